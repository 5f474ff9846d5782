"""The JSON documents of the command line. Scripts rely on the names: add some, never rename or remove one.

A job and a worker have the names of the fields of their views, which a test pins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from svc import codec
from svc.cli.contents import content_document
from svc.cli.output import moment
from svc.client.session import failure_of
from svc.domain.job import SHELL, Attempt, ErrorInfo, Outcome
from svc.domain.job_view import JobView, Progress
from svc.domain.lifecycle import JobState
from svc.domain.replies import QueueStats, Totals, WorkerView
from svc.errors import CodecError
from svc.worker.exit_codes import exit_code_of


def job_document(job: JobView) -> dict[str, Any]:
    """Return a job as `svc jobs show --json` prints it."""
    attempts = [attempt_document(attempt) for attempt in job.attempts]
    told = {"attempts": attempts, "progress": progress_document(job.progress)}
    return _members(job) | told | {"content": content_document(job)}


def shown_document(shown: tuple[JobView, Sequence[str]]) -> dict[str, Any]:
    """Return a job with the last lines of its output."""
    job, lines = shown
    return job_document(job) | {"last_lines": list(lines)}


def progress_document(progress: Progress | None) -> dict[str, Any] | None:
    """Return the last report of a job that runs."""
    return None if progress is None else _members(progress) | {"fraction": progress.fraction}


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    """Return one ended attempt."""
    return {
        "number": attempt.number or None,
        "at": moment(attempt.at),
        "cause": attempt.how,
        "seconds": attempt.seconds,
        "consumer": attempt.consumer,
        "code": attempt.code,
        "peak_rss": attempt.peak_rss,
        "error": error_info(attempt.error),
    }


def error_info(error: ErrorInfo | None) -> dict[str, Any] | None:
    """Return the error of an attempt."""
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome of a job. A result that is a pickled object is not opened; `unreadable` says so.

    That of a shell command has its `exit_code`, None if it has none.
    """
    value, unreadable = result_of(outcome)
    document = {
        "id": outcome.id,
        "task": outcome.task,
        "state": outcome.state.word,
        "value": value,
        "error": error_info(outcome.error),
        "seconds": outcome.seconds,
        "finished_at": moment(outcome.finished_at),
    }
    if outcome.task == SHELL:
        document["exit_code"] = _exit_code(outcome, value)
    return {**document, "unreadable": unreadable} if unreadable else document


def _exit_code(outcome: Outcome, value: Any) -> int | None:
    if outcome.error is not None:
        return exit_code_of(outcome.error)
    return value.get("exit_code") if isinstance(value, dict) else None


def read_result(outcome: Outcome) -> Any:
    """Return the result of a job that succeeded.

    Raises:
        CodecError: it cannot be read, such as a pickled object.
    """
    return codec.decode_result(outcome.result)


def result_of(outcome: Outcome) -> tuple[Any, str]:
    """Return the result of a job that succeeded, and the reason if it cannot be read."""
    if outcome.state != JobState.SUCCEEDED:
        return None, ""
    try:
        return read_result(outcome), ""
    except CodecError as error:
        return None, error.message


def failure_text(outcome: Outcome) -> str:
    """Return the reason why a job did not succeed, in one line."""
    return str(failure_of(outcome)).partition("\n")[0]


def queue_document(queue: QueueStats) -> dict[str, Any]:
    """Return the counts of a queue."""
    return {
        "name": queue.name,
        **{state.word: getattr(queue, state.word) for state in JobState},
        "submitted": queue.submitted,
        "oldest_seconds": queue.oldest,
        "oldest_running_seconds": queue.oldest_running,
        "unknown_tasks": queue.unknown,
        "unaccepted_codecs": queue.unaccepted,
    }


def worker_document(worker: WorkerView) -> dict[str, Any]:
    """Return a connected worker."""
    found = _members(worker)
    return found | {"round_trip_seconds": found.pop("round_trip") or None}


def status_document(totals: Totals) -> dict[str, Any]:
    """Return an overview of the whole service."""
    return {
        "release": totals.release,
        "uptime_seconds": totals.uptime,
        "durability": totals.durability,
        "journal_bytes": totals.journal_bytes,
        "incarnation": totals.incarnation,
        "leader": totals.leader or None,
        "term": totals.incarnation if totals.leader else None,
        "standbys": totals.standbys if totals.leader else None,
        "workers": totals.workers,
        "consumers": totals.consumers,
        "busy": totals.busy,
        "draining": totals.drain != 0,
        "drain_epoch": totals.drain,
        "drained_workers": totals.drained_workers,
        "clock_offset_seconds": totals.clock_offset,
        "clock_held": totals.clock_held,
        "queues": [queue_document(queue) for queue in totals.queues],
    }


def _members(view: Struct) -> dict[str, Any]:
    """Return the fields of a view by name, each time as text."""
    found = structs.asdict(view)
    return {name: moment(value) if name.endswith("_at") else value for name, value in found.items()}
