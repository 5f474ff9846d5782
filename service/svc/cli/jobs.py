"""`svc jobs`: show jobs, cancel them, requeue dead ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from svc.cli.no_match import none_of
from svc.cli.options import Json, Ndjson, Parser, integer, named, seconds
from svc.cli.output import (
    age,
    distance,
    facts,
    moment,
    show_items,
    size,
    span,
    table,
    tell,
    write,
    write_json,
)
from svc.cli.wiring import open_client
from svc.domain.lifecycle import JobState
from svc.domain.limits import CANCEL_GRACE_SECONDS
from svc.errors import ConfigurationError, Conflict
from svc.setting_kinds import parse_word
from svc.settings import RemoteSettings

if TYPE_CHECKING:
    from svc.domain.job import Attempt
    from svc.domain.job_view import JobView

#: Exit code if some of the jobs were in a state that forbids the action.
EXIT_PARTIAL = 7

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs.")]


#: The fields of a job that `show` prints in a way of their own; it prints each other one by its name.
_WITH_A_LINE = frozenset(
    (
        *("id", "task", "queue", "state", "reason", "priority", "key", "codec", "submitted_at", "due_at"),
        *(
            "finished_at",
            "consumer",
            "worker",
            "started_at",
            "seconds",
            "content",
            "failures",
            "retries",
            "crashes",
            "interruptions",
            "suspicions",
        ),
        *("suspect", "timeout", "soft_timeout", "max_rss", "attempts", "progress"),
        *("checkpoint_bytes", "checkpoint_at", "code", "peak_rss"),
        *("partial_results", "stream_bytes", "stream_number"),
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
    queue: Annotated[
        str, typer.Option("--queue", callback=named, metavar="NAME", help="Only jobs of this queue.")
    ] = "",
    task: Annotated[
        str, typer.Option("--task", callback=named, metavar="TASK", help="Only jobs of this task.")
    ] = "",
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
                ("AGE", lambda job: age(job.submitted_at)),
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
    said = job.attempts[-1].said.partition("\n")[0] if failed else ""
    return "; ".join(filter(None, (job.reason or job.consumer, said)))


def show(
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Ids,
    redact: Annotated[
        bool, typer.Option("--redact", help="Without arguments, result, texts of errors and output.")
    ] = False,
    json: Json = False,
    ndjson: Ndjson = False,
) -> None:
    """Show all there is to know of jobs.

    State, why one waits, its arguments and its result (shortened), when, by whom and with which code it was
    run, its memory, its counts, each attempt with its traceback, and the last lines of output. With --json
    one id gives one object, several give a list; values of up to 64 KiB are whole there.
    """
    from svc.cli.contents import last_lines
    from svc.cli.documents import shown_document

    with open_client(ctx, settings, settings.timeout) as client:
        found = [client.view(job_id, content=not redact) for job_id in ids]
        shown = [(job.redacted(), ()) if redact else (job, last_lines(client, job)) for job in found]
    if json and len(shown) == 1:
        write_json(shown_document(shown[0]))
    elif not show_items(shown, shown_document, json=json, ndjson=ndjson):
        for place, (job, lines) in enumerate(shown):
            if place:
                write("")
            _print_job(job)
            _print_lines(lines)


def cancel(
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of jobs.")] = None,
    task: Annotated[
        str,
        typer.Option(
            "--task", callback=named, metavar="TASK", help="In place of ids: all jobs of this task."
        ),
    ] = "",
    queue: Annotated[
        str,
        typer.Option(
            "--queue", callback=named, metavar="NAME", help="In place of ids: all jobs of this queue."
        ),
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="In place of ids: all jobs.")] = False,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            parser=seconds("0", "1d"),
            metavar="SECONDS",
            help="Time that a running task has to end before its consumer is killed.",
        ),
    ] = CANCEL_GRACE_SECONDS,
    json: Json = False,
) -> int:
    """Cancel jobs that wait or run.

    `svc.Cancelled` is raised in a task that runs. With both --task and --queue, jobs have to be of both. Exit
    code 6 if all of the ids name jobs that have ended, 7 if some do.
    """
    if bool(ids) + bool(task or queue) + every != 1:
        raise ConfigurationError("name either ids of jobs, or a --task or --queue, or --all")
    with open_client(ctx, settings, settings.timeout) as client:
        if ids:
            count, asked = client.cancel(ids, grace=grace), len(set(ids))
        else:
            count = asked = client.cancel_all(queue=queue, task=task, grace=grace)
            if not (count or every or json):
                tell(none_of(client, "no job that waits or runs", queue, task))
    return _counted("cancelled", count, asked, "the others have ended", _all_ended(asked), json=json)


def _all_ended(count: int) -> str:
    return "it has ended" if count == 1 else "all have ended"


def requeue(
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of dead jobs.")] = None,
    queue: Annotated[
        str,
        typer.Option(
            "--queue", callback=named, metavar="NAME", help="In place of ids: all dead jobs of this queue."
        ),
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
        count = client.requeue(ids or None, queue=queue)
        if queue and not (count or json):
            tell(none_of(client, "no dead job", queue))
    asked = len(set(ids)) if ids else count
    why = "only a dead job can be requeued"
    return _counted("requeued", count, asked, why, why, json=json)


def _counted(done: str, count: int, asked: int, why: str, why_none: str, *, json: bool) -> int:
    if asked and not count:
        which = "the job was not" if asked == 1 else f"none of the {asked} jobs was"
        raise Conflict(f"{which} {done}: {why_none}")
    if json:
        write_json({done: count, "left_alone": asked - count})
    else:
        write(f"{done} {count}" if count == asked else f"{done} {count} of {asked}; {why}")
    return 0 if count == asked else EXIT_PARTIAL


def _print_job(job: JobView) -> None:
    from svc.cli.contents import arguments_text, result_text

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
            ("started", _when(job.started_at)),
            ("finished", _when(job.finished_at)),
            ("duration", _duration(job.seconds)),
            ("consumer", job.consumer),
            ("worker", job.worker),
            ("code", job.code),
            ("peak rss", size(job.peak_rss) if job.peak_rss else ""),
            ("arguments", arguments_text(job) if job.content else ""),
            ("result", result_text(job)),
            (
                "failures",
                f"{job.failures}" + (f" (retries: {job.retries})" if job.retries is not None else ""),
            ),
            ("crashes", str(job.crashes)),
            ("interruptions", str(job.interruptions)),
            ("suspicions", _suspicions(job)),
            ("timeout", span(job.timeout) if job.timeout else ""),
            ("soft timeout", span(job.soft_timeout) if job.soft_timeout else ""),
            ("max rss", size(job.max_rss) if job.max_rss else ""),
            ("progress", _progress(job)),
            ("checkpoint", _checkpoint(job)),
            ("partial results", _stream(job)),
            *((name.replace("_", " "), str(getattr(job, name) or "")) for name in others),
        )
    )
    for place, attempt in enumerate(job.attempts, start=1):
        _print_attempt(attempt.number or place, attempt)
    last = job.attempts[-1].number or len(job.attempts) if job.attempts else 0
    by = f" by {job.consumer}" if job.consumer else ""
    if job.state == "succeeded" and job.finished_at:
        write("")
        write(f"attempt {last + 1}: succeeded after {_duration(job.seconds)}{by}, {_when(job.finished_at)}")
    elif job.state == "leased" and job.started_at:
        write("")
        write(f"attempt {last + 1}: runs{by} since {_when(job.started_at)}")


def _print_lines(lines: Sequence[str]) -> None:
    if lines:
        write("")
        write("last lines of output")
    for line in lines:
        write(f"  {line}")


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else span(seconds)


def _progress(job: JobView) -> str:
    """Return how far the job is, and when it said so; nothing if it does not run or tells nothing."""
    told = job.progress
    if told is None:
        return ""
    done, total = f"{told.done:,.12g}", "" if told.total is None else f" of {told.total:,.12g}"
    share = "" if told.fraction is None else f" ({told.fraction:.0%})"
    note = f": {told.note}" if told.note else ""
    return f"{done}{total}{share}{note}, {distance(told.at)}"


def _checkpoint(job: JobView) -> str:
    """Return the size and the time of the checkpoint that the next attempt gets."""
    if not job.checkpoint_at:
        return ""
    unit = "byte" if job.checkpoint_bytes == 1 else "bytes"
    return f"{job.checkpoint_bytes} {unit}, {_when(job.checkpoint_at)}"


def _stream(job: JobView) -> str:
    """Return how many partial results there are to read, and of which stream; nothing without a stream."""
    if not job.stream_number:
        return ""
    again = f", in stream number {job.stream_number}" if job.stream_number > 1 else ""
    return f"{job.partial_results} ({size(job.stream_bytes)}){again}"


def _suspicions(job: JobView) -> str:
    """Return how often the job was suspected of taking its worker down."""
    return (
        f"{job.suspicions} (a worker that held it was lost: it runs alone)"
        if job.suspect
        else str(job.suspicions)
    )


def _print_attempt(number: int, attempt: Attempt) -> None:
    by = f" by {attempt.consumer}" if attempt.consumer else ""
    write("")
    took = f", peak rss {size(attempt.peak_rss)}" if attempt.peak_rss else ""
    code = f", code {attempt.code}" if attempt.code else ""
    after = f" after {span(attempt.seconds)}" if attempt.timed else ""
    write(f"attempt {number}: {attempt.how}{after}{by}, {_when(attempt.at)}{took}{code}")
    if attempt.said:
        write(f"  {attempt.said}")
    for line in attempt.error.traceback.splitlines():
        write(f"  {line}")


def _when(at: float | None) -> str:
    return f"{moment(at)} ({distance(at)})" if at else ""
