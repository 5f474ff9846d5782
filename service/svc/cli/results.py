"""`svc results`: the outcomes of jobs, as they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from svc.cli.options import Json, Ndjson, WaitTimeout
from svc.cli.output import Printer, json_text, tell
from svc.cli.waiting import AwaitedJobs
from svc.cli.wiring import open_client
from svc.errors import ConfigurationError, JobError, ResultTimeout
from svc.settings import RemoteSettings

if TYPE_CHECKING:
    from svc.client.client import BrokerClient
    from svc.domain.job import Outcome


def results(
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
    wait_timeout: WaitTimeout = None,
    json: Json = False,
    ndjson: Ndjson = False,
) -> int:
    """Print results as the jobs end.

    A line is the id, a tab and the value. With IDs (or --from) it waits until all of these have ended; the
    exit code is 8 if one did not succeed. Errors are told on stderr, and in JSON beside the values.
    """
    if source and (ids or follow):
        raise ConfigurationError("name either ids, or a file of them with --from, or --follow for all")
    if source:
        from svc.cli.input import ids_of

        ids = ids_of(source)
    with open_client(ctx, settings, settings.timeout) as client, Printer(json=json, ndjson=ndjson) as out:
        if ids or source:
            waiting = AwaitedJobs(client, ids or (), as_json=not out.text, later=True)
            return print_outcomes(waiting.outcomes(wait_timeout), out, named=True)
        print_outcomes(_kept(client, wait_timeout if follow else 0.0), out, named=True)
    return 0


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
        text = value if isinstance(value, str) else json_text(value)
        out.item(outcome_document(outcome), text, outcome.id if named else "")
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
