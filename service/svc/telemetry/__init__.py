"""Log records, metrics, and the HTTP server for the metrics.

`events` and `catalogue` list every log event and every metric, `label_values` the values of labels; `logs`,
`metrics` and `worker_metrics` produce them; `http` and `routes` serve the metrics.
"""
