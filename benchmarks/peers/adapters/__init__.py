"""One file for each peer. It runs only in that peer's own environment, and says how the peer is set.

Each has a class `System`: a context manager that starts four worker processes, and two ways to have work
done: `all` and `one`, as in `benchmarks.peers.timing`. The peers' own commands import these files to find the
application in them, so it is a global here, as each peer's manual has it.
"""
