"""What svc does in a second, beside the standard library's pools: `python -m benchmarks` (`make bench`)."""
