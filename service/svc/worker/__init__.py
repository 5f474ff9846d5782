"""What runs jobs: a supervisor process and its consumers.

Read `consumer` first (take, run, report), then `runner` (one job), then `supervisor` (watch and replace).
"""
