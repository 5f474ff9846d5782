"""Who gets which job next: the order of the ready jobs, and the choice of the jobs for each consumer.

It holds the ready jobs by priority and age (`lanes`), the share of one consumer and the number of jobs that
it may read ahead (`grants`), the run times behind that number (`lanes`), and the jobs that are handed out
one at a time because they may have ended a worker (`suspects`). Fairness, limits and groups belong here too.
"""
