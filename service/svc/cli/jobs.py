"""`svc jobs`: show jobs, cancel waiting ones, requeue dead ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from svc.cli.options import Json, Ndjson, Parser, integer
from svc.cli.output import ago, facts, moment, show_items, span, table, write, write_json
from svc.cli.wiring import open_client
from svc.domain.lifecycle import JobState
from svc.errors import ConfigurationError, Conflict
from svc.settings import RemoteSettings, parse_word

if TYPE_CHECKING:
    from svc.domain.job import Attempt, JobView

#: Exit code if some of the jobs were in a state that forbids the action.
EXIT_PARTIAL = 7

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs.")]


#: The fields of a job that `show` prints in a way of their own; it prints each other one by its name.
_WITH_A_LINE = frozenset(
    (
        *("id", "task", "queue", "state", "reason", "priority", "key", "codec", "submitted_at", "due_at"),
        *("finished_at", "consumer", "failures", "retries", "crashes", "interruptions", "suspicions"),
        *("suspect", "timeout", "attempts"),
    )
)
_STATES = tuple(state.word for state in JobState)


def list_jobs(
    ctx: typer.Context,
    settings: RemoteSettings,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            parser=Parser(partial(parse_word, words=("", *_STATES))),
            metavar="|".join(_STATES),
            help="Only jobs in this state.",
        ),
    ] = None,
    queue: Annotated[str, typer.Option("--queue", metavar="NAME", help="Only jobs of this queue.")] = "",
    task: Annotated[str, typer.Option("--task", metavar="TASK", help="Only jobs of this task.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", parser=integer(1, 10_000), metavar="N", help="Number of jobs at most.")
    ] = 50,
    json: Json = False,
    ndjson: Ndjson = False,
) -> None:
    """List jobs, newest first."""
    from svc.cli.documents import job_document

    with open_client(ctx, settings, settings.timeout) as client:
        found = client.find(state=state or "", queue=queue, task=task, limit=limit)
    if not show_items(found, job_document, json=json, ndjson=ndjson):
        table(
            found,
            [
                ("ID", lambda job: job.id),
                ("TASK", lambda job: job.task),
                ("QUEUE", lambda job: job.queue),
                ("STATE", lambda job: job.state),
                ("AGE", lambda job: ago(job.submitted_at)),
                ("FAILURES", lambda job: str(job.failures)),
                ("NOTE", _note),
            ],
            "no jobs",
            spare=("QUEUE", "AGE", "FAILURES", "STATE", "TASK"),
            note="NOTE",
        )


def _note(job: JobView) -> str:
    """Return why a job waits, or its consumer; and the error of its last attempt, if that failed."""
    failed = job.state in ("dead", "scheduled") and bool(job.attempts)
    error = job.attempts[-1].error if failed else None
    said = ": ".join(filter(None, (error.type, error.message.partition("\n")[0]))) if error else ""
    return "; ".join(filter(None, (job.reason or job.consumer, said)))


def show(
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Ids,
    json: Json = False,
    ndjson: Ndjson = False,
) -> None:
    """Show all there is to know of jobs.

    State, why one waits, its counts, and each attempt with its traceback. With --json one id
    gives one object, several give a list.
    """
    from svc.cli.documents import job_document

    with open_client(ctx, settings, settings.timeout) as client:
        found = [client.view(job_id) for job_id in ids]
    if json and len(found) == 1:
        write_json(job_document(found[0]))
    elif not show_items(found, job_document, json=json, ndjson=ndjson):
        for place, job in enumerate(found):
            if place:
                write("")
            _print_job(job)


def cancel(
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Ids,
    json: Json = False,
) -> int:
    """Cancel jobs that wait.

    Those that run or have ended are left alone. Exit code 6 if none of them waits, 7 if some do not.
    """
    with open_client(ctx, settings, settings.timeout) as client:
        count = client.cancel(ids)
    return _counted("cancelled", count, len(set(ids)), "only a waiting job can be cancelled", json=json)


def requeue(
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of dead jobs.")] = None,
    queue: Annotated[
        str, typer.Option("--queue", metavar="NAME", help="In place of ids: all dead jobs of this queue.")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="In place of ids: all dead jobs.")] = False,
    json: Json = False,
) -> int:
    """Make dead jobs ready again.

    Their budgets of retries, crashes and suspicions start anew. Exit code 6 if none of the ids names a dead
    job, 7 if some do not.
    """
    if sum((bool(ids), bool(queue), every)) != 1:
        raise ConfigurationError("name either ids of dead jobs, or a --queue, or --all")
    with open_client(ctx, settings, settings.timeout) as client:
        count = client.requeue(ids or (), queue=queue)
    asked = len(set(ids)) if ids else count
    return _counted("requeued", count, asked, "only a dead job can be requeued", json=json)


def _counted(done: str, count: int, asked: int, why: str, *, json: bool) -> int:
    if asked and not count:
        raise Conflict(f"none of the {asked} jobs was {done}: {why}")
    if json:
        write_json({done: count, "left_alone": asked - count})
    else:
        write(f"{done} {count}" if count == asked else f"{done} {count} of {asked}; {why}")
    return 0 if count == asked else EXIT_PARTIAL


def _print_job(job: JobView) -> None:
    others = (name for name in job.__struct_fields__ if name not in _WITH_A_LINE)
    facts(
        (
            ("id", job.id),
            ("task", job.task),
            ("queue", job.queue),
            ("state", job.state + (f" ({job.reason})" if job.reason else "")),
            ("priority", str(job.priority) if job.priority else ""),
            ("key", job.key),
            ("codec", job.codec if job.codec != "plain" else ""),
            ("submitted", _when(job.submitted_at)),
            ("due", _when(job.due_at) if job.state == "scheduled" else ""),
            ("finished", _when(job.finished_at)),
            ("consumer", job.consumer),
            (
                "failures",
                f"{job.failures}" + (f" (retries: {job.retries})" if job.retries is not None else ""),
            ),
            ("crashes", str(job.crashes)),
            ("interruptions", str(job.interruptions)),
            ("suspicions", _suspicions(job)),
            ("timeout", span(job.timeout) if job.timeout else ""),
            *((name.replace("_", " "), str(getattr(job, name) or "")) for name in others),
        )
    )
    for place, attempt in enumerate(job.attempts, start=1):
        _print_attempt(attempt.number or place, attempt)


def _suspicions(job: JobView) -> str:
    """Return how often the job was suspected of taking its worker down; nothing if it never was."""
    if job.suspect:
        return f"{job.suspicions} (a worker that held it was lost: it runs alone)"
    return str(job.suspicions) if job.suspicions else ""


def _print_attempt(number: int, attempt: Attempt) -> None:
    by = f" by {attempt.consumer}" if attempt.consumer else ""
    said = ": ".join(part for part in (attempt.error.type, attempt.error.message) if part)
    write("")
    write(f"attempt {number}: {attempt.how} after {span(attempt.seconds)}{by}, {_when(attempt.at)}")
    write(f"  {said}")
    for line in attempt.error.traceback.splitlines():
        write(f"  {line}")


def _when(at: float | None) -> str:
    stamp = moment(at)
    if stamp is None:
        return ""
    distance = ago(at)
    return f"{stamp} (in {distance[1:]})" if distance.startswith("-") else f"{stamp} ({distance} ago)"
