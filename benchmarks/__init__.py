"""Benchmarks of svc and of the standard library's pools: `python -m benchmarks` (`make bench`)."""
