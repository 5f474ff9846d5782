"""The Python client: submits jobs and reads their outcomes."""
