"""What svc tells about itself: log records, metrics, and the HTTP server that hands them out.

`events` and `catalogue` are the promises (every log event, every metric); `logs`, `metrics` and
`worker_metrics` keep them; `http` and `routes` serve them.
"""
