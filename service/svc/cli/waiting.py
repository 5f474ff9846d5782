"""Waits for jobs at a terminal, tells why they have not ended, and names the rest after Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Self

from svc.cli.output import json_text, tell
from svc.cli.tally import Tally
from svc.cli.wait_view import ViewForm, WaitView

if TYPE_CHECKING:
    from svc.client.client import BrokerClient
    from svc.client.outcomes import Reason
    from svc.domain.job import Outcome

#: Seconds between two questions why jobs have not ended.
ASK_SECONDS = 0.2
#: Seconds after which `svc results` tells the reasons that block jobs: `svc submit` told them at once.
LATER_SECONDS = 10.0
#: Ids of jobs that are named after a Ctrl-C.
NAMED_MAX = 10


class AwaitedJobs:
    """The jobs that a command waits for, in a `with` statement, which shows how far they are.

    The reasons why they have not ended are told on stderr: for a single job each new one, for several only
    those that block a job. As JSON only the latter are told, one object a line. If they are told *later*, it
    is not before `LATER_SECONDS`, and again only the latter. To be *quiet* is to tell none, and no counts.
    After a Ctrl-C the jobs that go on are named.
    """

    def __init__(
        self,
        client: BrokerClient,
        ids: Sequence[str],
        *,
        as_json: bool,
        later: bool = False,
        quiet: bool = False,
        again: str = "results",
    ) -> None:
        """Wait for *ids* over *client*; the command *again* waits again."""
        self._client = client
        self._left = dict.fromkeys(ids)
        self._single = len(self._left) == 1
        self._as_json = as_json
        self._quiet = quiet
        self._again = again
        self._tells_all = self._single and not (as_json or later)
        self._told: set[str] = set()
        self._ask_after = time.monotonic() + LATER_SECONDS if later else 0.0
        self.tally = Tally(len(self._left), time.monotonic())
        form = ViewForm.fitting(quiet=quiet, as_json=as_json)
        self.view = WaitView(self.tally, form, client.job(ids[0]).progress if self._single else None)

    def __enter__(self) -> Self:
        """Begin to show how far the jobs are."""
        self.view.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        """End that; after a Ctrl-C name the jobs that go on."""
        self.view.__exit__(kind, *exception)
        if kind is KeyboardInterrupt:
            self._tell_left()

    def outcomes(self, timeout: float | None) -> Iterator[Outcome]:
        """Yield the outcomes as the jobs end, within *timeout* seconds.

        Raises:
            ResultTimeout: not all ended in time.
        """
        idle = None if self._quiet else self.tell_reasons
        for outcome in self._client.follow(list(self._left), timeout, idle):
            self._left.pop(outcome.id, None)
            self.tally.add(outcome, time.monotonic())
            yield outcome

    def tell_reasons(self, wanted: Collection[str]) -> None:
        """Tell why the *wanted* jobs have not ended, if it is time for another question and that is new."""
        now = time.monotonic()
        if now < self._ask_after:
            return
        self._ask_after = now + ASK_SECONDS
        grouped: dict[Reason, list[str]] = {}
        for job, reason in self._client.reasons(wanted).items():
            grouped.setdefault(reason, []).append(job)
        for reason, jobs in grouped.items():
            if (reason.blocked or self._tells_all) and reason.text not in self._told:
                self._tell(jobs, reason.text)

    def _tell(self, jobs: list[str], why: str) -> None:
        if self._single:
            self._told.clear()  # an earlier reason may hold again
        self._told.add(why)
        if self._as_json:
            tell(json_text({"waiting": {"ids": jobs, "reason": why}}))
        else:
            others = f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
            tell(f"svc: job {jobs[0]}{others} {why}")

    def _tell_left(self) -> None:
        """Name the jobs that have not ended."""
        if not self._left:
            return
        names = list(islice(self._left, NAMED_MAX))
        if self._as_json:
            tell(json_text({"interrupted": {"ids": names, "count": len(self._left)}}))
            return
        more = f" and {len(self._left) - len(names)} more" if len(self._left) > len(names) else ""
        go = "goes" if len(self._left) == 1 else "go"
        hint = f"`svc {self._again} {names[0]}` waits again"
        tell(f"svc: not waited for any longer, and {go} on: {' '.join(names)}{more} - {hint}")
