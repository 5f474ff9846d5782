"""The manager: one event loop that serves the stdlib's BaseManager clients and our own."""
