"""The JSON of jobs and workers, as the command line shows it."""

from __future__ import annotations

from svc.cli.documents import attempt_document, job_document, worker_document
from svc.domain.job import Attempt, Cause, ErrorInfo
from svc.domain.job_view import JobView
from svc.domain.replies import WorkerView
from tests.support.document_names import ATTEMPT, JOB, WORKER


def test_a_job_has_its_names_and_times_as_text():
    attempt = Attempt(3.0, Cause.FAILED, ErrorInfo("ValueError", "no"))
    document = job_document(JobView("o-1", "m:f", "mail", "dead", 3, "plain", 1.5, attempts=[attempt]))
    assert document.keys() >= JOB
    assert document["submitted_at"] == "1970-01-01T00:00:01.500Z"
    assert (document["due_at"], document["priority"]) == (None, 3)
    assert document["attempts"] == [attempt_document(attempt)]
    assert document["attempts"][0].keys() >= ATTEMPT


def test_a_worker_has_its_names_and_times_as_text():
    document = worker_document(
        WorkerView("w", "h", 1, "0.1.0", 2, 1, 0, 1, ["q"], ["t"], 1.0, 2.0, draining=False)
    )
    assert document.keys() >= WORKER
    assert (document["round_trip_seconds"], document["read_ahead"]) == (None, 0)
    assert document["seen_at"] == "1970-01-01T00:00:02.000Z"
