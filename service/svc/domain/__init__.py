"""The queue itself, pure: no clock, no I/O, no randomness, no logging.

Start with `lifecycle` (the states and arrows), then `queue_state` (commands in, events out).
"""
