"""The state machine of the queue. It is pure: no clock, no I/O, no randomness, no logging.

Start with `lifecycle` (the states and transitions), then `queue_state` (commands in, events out).
"""
