"""The worker: a supervisor process and its consumers, which run jobs.

Read `consumer` first (take, run, report), then `runner` (one job), then `supervisor` (watch and replace).
"""
