"""Matchers, thresholds and queries that several panels share."""  # noqa: INP001  # build.py beside it is a script

from __future__ import annotations

BAD_BELOW_ONE = ((None, "red"), (1.0, "green"))
BAD_FROM_ONE = ((None, "green"), (1.0, "red"))
QUEUE = 'queue=~"$queue"'
TASK = f'{QUEUE}, task=~"$task"'
FAILURES = "failed|timed_out|crashed|refused"


def per_second(metric: str, by: str, matchers: str = QUEUE) -> str:
    """Return the rate of a counter, summed *by* labels."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


FAILED = per_second("svc_job_attempts_total", "job", f'{QUEUE}, outcome=~"{FAILURES}"')
ENDED = per_second("svc_job_attempts_total", "job", f'{QUEUE}, outcome!~"released|lost"')
