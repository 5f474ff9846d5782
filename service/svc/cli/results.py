"""`svc results`: the outcomes of jobs, as they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from svc.cli.options import Json, Ndjson, Quiet, WaitTimeout, integer
from svc.cli.output import Printer, json_text, tell
from svc.cli.waiting import AwaitedJobs
from svc.cli.wiring import open_client
from svc.domain.limits import NUMBER_MAX
from svc.errors import CodecError, ConfigurationError, JobError, ResultTimeout
from svc.settings import RemoteSettings

if TYPE_CHECKING:
    from svc.client.client import BrokerClient
    from svc.client.partial_results import PartialResults
    from svc.domain.job import Outcome


def results(  # noqa: PLR0913, PLR0917 - a command's options are its parameters
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs; without one, all kept.")
    ] = None,
    source: Annotated[
        str, typer.Option("--from", metavar="FILE|-", help="Read the ids, one a line; - is stdin.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", help="Without IDs: go on with the jobs that end from now on.")
    ] = False,
    output: Annotated[
        str,
        typer.Option("--output", metavar="FILE|-", help="Write the result of the one ID there, raw."),
    ] = "",
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the partial results of the one ID, as they come.")
    ] = False,
    start: Annotated[
        int | None,
        typer.Option(
            "--start",
            parser=integer(0, NUMBER_MAX),
            metavar="N",
            help="With --stream: begin with this index.",
        ),
    ] = None,
    wait_timeout: WaitTimeout = None,
    quiet: Quiet = False,
    json: Json = False,
    ndjson: Ndjson = False,
) -> int:
    """Print results as the jobs end.

    A line is the id, a tab and the value. With IDs (or --from) it waits until all of these have ended; the
    exit code is 8 if one did not succeed. Without them it prints the results that are kept, and ends with 0
    whatever became of the jobs. Errors are told on stderr, and in JSON beside the values. With
    --output the file has the bytes of the result, or text as UTF-8, or another value as JSON; it is written
    whole or not at all. With --stream a line is the index, a tab and the partial result; it ends
    with the job, and with an error if another attempt gives them anew.
    """
    if stream and (source or follow or output or len(ids or ()) != 1):
        raise ConfigurationError("--stream is for the partial results of one job: name one ID")
    if start is not None and not stream:
        raise ConfigurationError("--start is for the partial results of --stream")
    if source and (ids or follow):
        raise ConfigurationError("name either ids, or a file of them with --from, or --follow for all")
    if output and (source or follow or json or ndjson or len(ids or ()) != 1):
        raise ConfigurationError("--output is for the result of one job: name one ID, and no other form")
    if output:
        return _saved(ctx, settings, (ids or [""])[0], output, wait_timeout, quiet=quiet)
    if source:
        from svc.cli.input import ids_of

        ids = ids_of(source)
    with open_client(ctx, settings, settings.timeout) as client, Printer(json=json, ndjson=ndjson) as out:
        if stream and ids:
            print_stream(client.job(ids[0]).stream(start or 0, timeout=wait_timeout), out)
        elif ids or source:
            with AwaitedJobs(client, ids or (), as_json=not out.text, later=True, quiet=quiet) as waiting:
                return print_outcomes(waiting.outcomes(wait_timeout), out, named=True)
        else:
            print_outcomes(_kept(client, wait_timeout if follow else 0.0), out, named=True)
    return 0


def _saved(
    ctx: typer.Context, settings: RemoteSettings, job: str, path: str, timeout: float | None, *, quiet: bool
) -> int:
    """Write the result of a job to a file, once there is one; return the exit code."""
    from svc.cli.documents import failure_text, read_result
    from svc.cli.files import as_bytes, check_target, save, save_pieces
    from svc.domain.lifecycle import JobState

    check_target(path)
    with (
        open_client(ctx, settings, settings.timeout) as client,
        AwaitedJobs(client, [job], as_json=False, later=True, quiet=quiet) as waiting,
    ):
        (outcome,) = waiting.outcomes(timeout)
        pieces = client.pieces(outcome)
        if pieces is not None:
            save_pieces(path, pieces)
            return 0
    if outcome.state != JobState.SUCCEEDED:
        tell(f"svc: {failure_text(outcome)} - `svc jobs show {outcome.id}` tells more")
        return JobError.exit_code
    save(path, as_bytes(read_result(outcome)))
    return 0


def print_stream(stream: PartialResults, out: Printer) -> None:
    """Print each partial result with its index, as it comes; say so if the job ends without one."""
    first = stream.index
    while True:
        index, value, unreadable = stream.index, None, ""
        try:
            value = next(stream)
        except StopIteration:
            if index == first:
                tell(f"svc: {_no_more(stream.job_id, first)}")
            return
        except CodecError as error:
            unreadable = error.message
            if out.text:
                tell(f"svc: partial result {index} of job {stream.job_id}: {unreadable}")
        document = {"id": stream.job_id, "stream": stream.number, "index": index, "value": value}
        text = value if isinstance(value, str) else json_text(value)
        out.item({**document, **({"unreadable": unreadable} if unreadable else {})}, text, str(index))
        out.flush()


def _shown(outcome: Outcome, value: object) -> str:
    """Return the text of a *value*; of one that is fetched in pieces what it is."""
    from svc.large import reference_in

    if isinstance(value, str):
        return value
    reference = reference_in(outcome.result) if value is None else None
    return json_text(value) if reference is None else repr(reference)


def _no_more(job: str, first: int) -> str:
    if first:
        return f"job {job} gave no partial results from index {first} on"
    return f"job {job} gave no partial results; `svc results {job}` has its result"


def print_outcomes(outcomes: Iterable[Outcome], out: Printer, *, named: bool) -> int:
    """Print each outcome, if *named* with the job's id; return 8 if a job did not succeed, else 0."""
    from svc.cli.documents import failure_text, outcome_document, result_of
    from svc.domain.lifecycle import JobState

    failed = False
    for outcome in outcomes:
        succeeded = outcome.state == JobState.SUCCEEDED
        failed = failed or not succeeded
        if out.text and not succeeded:
            tell(f"svc: {failure_text(outcome)} - `svc jobs show {outcome.id}` tells more")
            continue
        value, unreadable = result_of(outcome) if out.text else (None, "")
        if unreadable:
            tell(f"svc: job {outcome.id}: {unreadable}")
        out.item(outcome_document(outcome), _shown(outcome, value), outcome.id if named else "")
        out.flush()
    return JobError.exit_code if failed else 0


def _kept(client: BrokerClient, timeout: float | None) -> Iterator[Outcome]:
    """Yield all kept outcomes, then those of the next *timeout* seconds (None: without end)."""
    from svc.client.session import SLICE_SECONDS, Deadline

    deadline, cursor, seconds = Deadline(timeout), 0, 0.0
    while True:
        page = client.feed(cursor, wait=seconds)
        yield from page.outcomes
        cursor = page.cursor
        seconds = 0.0 if page.outcomes else deadline.slice(SLICE_SECONDS)
        if not page.outcomes and deadline.passed:
            break
    if timeout:
        raise ResultTimeout(f"the {timeout:g} s of --wait-timeout are over")
