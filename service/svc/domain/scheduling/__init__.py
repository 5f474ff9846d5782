"""Who gets which job next: the order of the ready jobs, and the choice of the jobs for each consumer.

It holds the ready jobs by priority and age with the run times of their tasks (`lanes`), the share of one
consumer and the number of jobs that it may read ahead (`grants`), and the jobs that are handed out one at a
time because they may have ended a worker (`suspects`).

Fairness, limits and groups belong here too. An index leads to a lane by `Lane.settle` alone: a lane that a
limit or a group blocks can answer None there, and return to the indexes at its release, as in `Lanes.push`.
"""
