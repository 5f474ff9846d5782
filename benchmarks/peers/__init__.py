"""svc beside Celery, RQ, Dramatiq, Huey, TaskIQ, Dask and Ray in one run: `make bench-peers`."""
