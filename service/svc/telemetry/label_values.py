"""The values that labels of metrics have: the closed sets, and the bound on those of an open one."""

from __future__ import annotations

from svc.broker.broken import Place
from svc.domain.lifecycle import FINISHED, UNFINISHED, JobState

#: The label value that replaces all values beyond a bound.
OTHER = "other"
#: The most distinct values of a label; further ones count as `other`. A task counts once for each queue, and
#: an exception once for each task of a queue, so these are bounds on the number of series.
LABEL_BOUNDS = {"queue": 200, "task": 200, "exception": 500, "method": 50}

OUTCOMES = (
    "succeeded",
    "failed",
    "timed_out",
    "crashed",
    "refused",
    "released",
    "lost",
    "suspected",
    "snoozed",
)
FINAL_OUTCOMES = tuple(state.word for state in FINISHED)
#: Codes of `svc.errors` with which a submission is refused.
REJECTIONS = (
    "queue_full",
    "journal_full",
    "draining",
    "job_too_large",
    "unknown_task",
    "conflict",
    "bad_request",
    OTHER,
)
#: The states whose jobs are a queue's backlog: those to be done, and those that somebody has to look at.
QUEUE_STATES = tuple(state.word for state in (*UNFINISHED, JobState.DEAD))
#: Roles of keys, and `none` for peers that have proved no key.
KEY_ROLES = ("admin", "submit", "work", "read", "shell", "none")
#: The places of a manager among those on one replicated journal.
LEAD_ROLES = ("leader", "standby")
#: The reasons for refusing requests and connections, except wrong keys (`svc_manager_auth_failures_total`).
REFUSALS = (
    "forbidden",
    "malformed",
    "not_plain",
    "too_large",
    "no_place",
    "lease_lost",
    "unknown_job",
    *REJECTIONS,
)
#: The reasons for dropping output that a manager had or was sent.
DROP_REASONS = ("full", "scarce", "fault")
CALL_RESULTS = ("ok", "error", "denied")
CONSUMER_STATES = ("busy", "idle", "starting")
#: The work that the manager was doing when its state broke.
RECOVERY_PLACES = tuple(str(place) for place in Place)
RESTART_REASONS = ("crashed", "timed_out", "memory", "cancelled", "lost", "renewed", "recycled", OTHER)
