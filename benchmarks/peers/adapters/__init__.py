"""One file for each peer. It runs only in that peer's own environment, and has the peer's settings.

Each has a class `System`: a context manager that starts four worker processes, with the methods `all` and
`one` of `benchmarks.peers.timing`. The peers' own commands import these files to find the application in
them, so it is a global variable, as in each peer's manual.
"""
