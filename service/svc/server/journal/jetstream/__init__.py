"""The replicated journal: its rows are in frames, and its frames in a stream of NATS JetStream.

Only this package uses `nats` (the extra `jetstream`).
"""
