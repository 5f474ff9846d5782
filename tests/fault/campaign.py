"""A campaign: load on a whole service, one fault after the other from a shuffled deck, and the findings.

The seed fixes the order of the faults, and their pauses, victims and lengths; their effect depends on the
machine. Each round has every fault once. After each fault, the resources of the processes must return to
their earlier level.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from svc.broker.manager import ManagerBroker
from svc.errors import ManagerUnreachable
from tests.fault.deadly_jobs import DEADLY, LOSSES_MAX
from tests.fault.deck import ALLOWANCES, DECKS, JOB_BYTES, NEEDS, SERVICES
from tests.fault.site import TASKS, Producer, Site
from tests.fault.stalls import Stalls
from tests.fault.strikes import Strikes
from tests.support.checker import Checker, Expectation, parse_counts, read_books
from tests.support.fault_tasks import LOOP_ATTEMPTS
from tests.support.findings import Findings
from tests.support.history import (
    Fault,
    History,
    read_calls,
    read_cancels,
    read_checkpoints,
    read_executions,
    read_faults,
)
from tests.support.resources import Balance, Usage, strays

#: The required end of jobs whose task is at fault, and the number of their attempts.
EXPECTED = {
    f"{TASKS}:segfault": Expectation("dead", 3),
    f"{TASKS}:leave": Expectation("dead", 3),
    f"{TASKS}:devour": Expectation("dead", 3),
    f"{TASKS}:overreach": Expectation("dead", 1),
    f"{TASKS}:loop": Expectation("dead", LOOP_ATTEMPTS),
    f"{TASKS}:too_large": Expectation("dead", 1),
    f"{TASKS}:unspeakable": Expectation("dead", 1),
    **{f"{TASKS}:{task}": Expectation("dead", LOSSES_MAX) for task, _ in DEADLY.values()},
}
_SETTLE_SECONDS = 120.0
#: Seconds for which a fault waits for standbys that still read the journal.
_CATCH_UP_SECONDS = 60.0
#: Seconds between two faults.
_PAUSES = (0.1, 0.4)


class Campaign:
    """One run of the fault suite in *folder*; *seed* decides the order of the faults.

    Args:
        folder: the folder in which all processes run and write their records.
        seed: decides the order of the faults.
        kinds: the kinds of faults, by default all of the journal's deck; those that this machine cannot
            produce are left out and named in the findings.
        journal: the kind of journal.
        progress: whether each fault is reported on stderr.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        kinds: Sequence[str] = (),
        *,
        journal: str = "sqlite",
        progress: bool = False,
    ) -> None:
        self._deck = DECKS[journal]
        self._job_bytes = JOB_BYTES[journal]
        self.site = Site(folder, seed, SERVICES[journal])
        kinds = kinds or tuple(self._deck)
        self._strikes = Strikes(self.site)
        self._balance = Balance(self._usage)
        self._progress = progress
        missing = self.site.missing
        self._undealt = {kind: missing[NEEDS[kind]] for kind in kinds if NEEDS.get(kind) in missing}
        self._kinds = sorted(set(kinds) - self._undealt.keys())
        self._violations: list[str] = []
        self._counted: dict[tuple[str, str], int] = {}

    def run(self, seconds: float) -> Findings:
        """Inject faults for *seconds*, at least one round of all; wait for all jobs; return the findings."""
        try:
            self.site.start()
            producers = [
                Producer(self.site, "chunks", 400, proxied=False),
                Producer(self.site, "behind", 250, proxied=True),
                Producer(self.site, "singles", 1, proxied=False),
                Producer(self.site, "lists", 60, f"{TASKS}:work_listed", proxied=False),
                Producer(self.site, "beside", 60, f"{TASKS}:work_beside", proxied=True),
            ]
            for producer in producers:
                producer.start()
            with Stalls(self.site.folder) as stalls:
                self._break_things(time.monotonic() + seconds, producers)
                try:
                    self._settle(producers)
                except ManagerUnreachable as error:
                    self._violations.append(f"I6: nobody serves any more: {error}")
                self.site.stop()
            self._strikes.faults += stalls.faults
            return self._findings()
        finally:
            self.site.close()

    # --- the course -----------------------------------------------------------------------------------

    def _break_things(self, end: float, producers: Sequence[Producer]) -> None:
        if not self._strikes.until(self.site.complete, 60.0):
            raise TimeoutError(f"the site is not complete; see the logs in {self.site.folder}")
        self._balance.take_standard()
        for kind in self._dealt(end):
            time.sleep(self.site.random.uniform(*_PAUSES))
            self._tell(kind)
            self._strikes.until(self._standbys_caught_up, _CATCH_UP_SECONDS)
            self._balance.before()
            self._deck[kind](self._strikes, kind)
            tables = self._job_bytes * sum(producer.submitted for producer in producers)
            self._balance.after(kind, ALLOWANCES.get(kind, 0) + tables)

    def _standbys_caught_up(self) -> bool:
        """Return whether no standby reads old commits any more, by which it grows without a fault."""
        standbys = len(self.site.service.standbys)
        if not standbys:
            return True
        try:
            with self.site.broker(10.0) as broker:
                return broker.stats().standbys >= standbys
        except ManagerUnreachable:
            return False

    def _dealt(self, end: float) -> Iterator[str]:
        """Yield the kinds in rounds, each in a random order, until *end*; the first round is complete."""
        rounds = 0
        while not rounds or time.monotonic() < end:
            rounds += 1
            deck = list(self._kinds)
            self.site.random.shuffle(deck)
            for kind in deck:
                if rounds > 1 and time.monotonic() >= end:
                    return
                yield kind

    def _usage(self) -> dict[str, Usage | None]:
        """Return the resources of all processes; start ended processes again first."""
        self._mend()
        return self.site.usage()

    def _mend(self) -> None:
        """Start managers, workers and stock clients that have ended, as a supervisor would do."""
        managers = self.site.service.replace_managers()
        self.site.replace_actors()
        for ended in (*managers, *self.site.replace_workers()):
            # Mostly the fault's doing; if it is not, this tells a kill by the kernel from a crash.
            self._tell(f"{ended} at {time.monotonic():.3f}")

    def _settle(self, producers: list[Producer]) -> None:
        """Stop the load, and wait until every job has ended; then read the manager's counts."""
        for producer in producers:
            producer.stopping.set()
        for producer in producers:
            producer.join(90)
            if producer.error is not None:
                raise producer.error
        self.site.end_actors("produce")
        with self.site.broker(10.0) as broker:
            end = time.monotonic() + _SETTLE_SECONDS
            while time.monotonic() < end and self._unfinished(broker):
                self._mend()
                time.sleep(0.2)
        pids = self.site.end_actors("consume")
        now = time.monotonic()
        ended = Fault("end of the stock clients", now, now, pids, injected=False, fatal=True)
        self._strikes.faults.append(ended)
        with self.site.service.client() as client:
            # The metrics have the unfinished and the dead jobs; only the totals have the succeeded ones.
            for queue in client.stats().queues:
                for state in ("ready", "scheduled", "leased", "succeeded", "dead", "cancelled"):
                    self._counted[queue.name, state] = getattr(queue, state)
            self._counted |= parse_counts(client.metrics())
        known = self.site.processes()
        self._violations += [f"I9: process {pid} belongs to nobody" for pid in strays(self.site.mark, known)]

    def _unfinished(self, broker: ManagerBroker) -> int:
        queues = broker.stats().queues
        return sum(queue.ready + queue.scheduled + queue.leased for queue in queues)

    def _findings(self) -> Findings:
        folder, strikes = self.site.folder, self._strikes
        history = History(
            read_calls(folder),
            read_executions(folder),
            [*strikes.faults, *read_faults(folder)],
            strikes.drains,
            strikes.streams,
            read_cancels(folder),
            read_checkpoints(folder),
        )
        books = read_books(self.site.service.own_records())
        self._violations += self.site.service.contradictions()
        books.counted = self._counted
        findings = Checker(history, books, EXPECTED).check()
        findings.left_over = self._balance.worst
        findings.longest_return = self._balance.longest
        findings.aged = self._balance.aged
        findings.undealt = self._undealt
        findings.violations += [*self._violations, *strikes.violations, *self._balance.violations]
        if os.environ.get("CI") == "true":
            findings.violations += [f"not dealt: {kind}: {why}" for kind, why in self._undealt.items()]
        return findings

    def _tell(self, kind: str) -> None:
        if self._progress:
            sys.stderr.write(f"{len(self._strikes.faults):5d}  {kind}\n")
