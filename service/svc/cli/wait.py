"""`svc wait`: until jobs have ended, without their results."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from svc.cli.options import Json, Quiet, WaitTimeout
from svc.cli.output import tell, write_json
from svc.cli.waiting import AwaitedJobs
from svc.cli.wiring import open_client
from svc.domain.lifecycle import FINISHED, JobState
from svc.errors import ConfigurationError, JobError
from svc.settings import RemoteSettings

if TYPE_CHECKING:
    from svc.cli.tally import Tally
    from svc.domain.job import Outcome

#: Jobs that are told one by one because they did not succeed.
TOLD_MAX = 10


def wait(
    ctx: typer.Context,
    settings: RemoteSettings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs.")] = None,
    source: Annotated[
        str, typer.Option("--from", metavar="FILE|-", help="Read the ids, one a line; - is stdin.")
    ] = "",
    wait_timeout: WaitTimeout = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Wait until jobs have ended.

    It prints no results: `svc results` does. A terminal shows a bar meanwhile, else stderr has a line now and
    then. In the end stderr has the counts, and the first jobs that did not succeed; the exit code is 8 if
    there are such. Ctrl-C ends the wait and not the jobs.
    """
    if bool(ids) == bool(source):
        raise ConfigurationError("name either the ids of jobs, or a file of them with --from")
    if source:
        from svc.cli.input import ids_of

        ids = ids_of(source)
    ended = NotSucceeded()
    with (
        open_client(ctx, settings, settings.timeout) as client,
        AwaitedJobs(client, ids or (), as_json=json, later=True, quiet=quiet, again="wait") as waiting,
    ):
        for outcome in waiting.outcomes(wait_timeout):
            ended.add(outcome, tells=not json)
        if json:
            write_json(ended.document(waiting.tally))
        else:
            ended.tell_more()
            waiting.view.tell_last()
    return JobError.exit_code if ended.ids else 0


class NotSucceeded:
    """The jobs of a wait that did not succeed.

    Attributes:
        ids: their ids, in the order in which they ended.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.ids: list[str] = []
        self._counts: Counter[JobState] = Counter()

    def add(self, outcome: Outcome, *, tells: bool) -> None:
        """Look at an outcome; *tells* says whether the first bad ones are told."""
        self._counts[JobState(outcome.state)] += 1
        if outcome.state == JobState.SUCCEEDED:
            return
        self.ids.append(outcome.id)
        if tells and len(self.ids) <= TOLD_MAX:
            from svc.cli.documents import failure_text

            tell(f"svc: {failure_text(outcome)} - `svc jobs show {outcome.id}` tells more")

    def tell_more(self) -> None:
        """Tell how many were not told one by one."""
        if len(self.ids) > TOLD_MAX:
            tell(f"svc: {len(self.ids) - TOLD_MAX} more did not succeed; --json has the ids of all")

    def document(self, tally: Tally) -> dict[str, Any]:
        """Return the document of `--json`."""
        return {
            "jobs": tally.total,
            **{state.word: self._counts[state] for state in FINISHED},
            "seconds": round(tally.seconds(time.monotonic()), 3),
            "not_succeeded": self.ids,
        }
