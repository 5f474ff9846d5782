"""Decides which invariants of the service held, from the records of clients, executions and the journal.

It does not know how the service works. It gets `Books` (the records of the service) and a `History` (the
observations from outside), and lists every contradiction. The invariants are those of docs/architecture.md:

I1 no loss · I2 no invention · I3 recorded once · I4 duplicates bounded by faults · I5 attempt budgets ·
I6/I7 accepted is kept, a repeat makes no second job · I10 every call ends · I12 drain · I13 cancel ·
I14 checkpoints · I18 metrics · I19 what is read of a stream is the beginning of what one attempt gave.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from svc.codec import PLAIN, decode_arguments, decode_result
from svc.domain import events as e
from svc.domain.job import Cause
from svc.domain.retry import CRASH_BUDGET
from tests.support.checkpoints import wrong_checkpoints
from tests.support.findings import Findings
from tests.support.history import OK, STOOD_STILL, Execution, Fault, History, StreamRead

#: Seconds by which a call may exceed its deadline (I10), beside those in which the machine stood still.
DEADLINE_SLACK = 2.0
#: Seconds by which an execution may seem to end after its outcome was recorded: its record is written last.
_CLOCK_SLACK = 0.05
#: Seconds before an execution in which a fault may already have affected its lease: the time of a lease, and
#: the time that a restarted manager waits for the holders of older leases.
LEASE_WINDOW = 6.0


@dataclass
class Job:
    """The service's record of one job: its ends (`succeeded`, `dead`, `cancelled`) and attempts."""

    id: str
    label: str
    task: str
    queue: str
    ends: list[str] = field(default_factory=list)
    results: list[object] = field(default_factory=list)
    charged: Counter[str] = field(default_factory=Counter)
    #: The partial results of the last attempt that gave some.
    given: list[object] = field(default_factory=list)


@dataclass
class Books:
    """The records of all jobs by id, and the service's own counts at the end: (queue, state) -> jobs."""

    jobs: dict[str, Job] = field(default_factory=dict)
    counted: Mapping[tuple[str, str], int] | None = None


@dataclass(frozen=True)
class Expectation:
    """The required end of the jobs of one task: `end`, with at most `attempts` if no fault affects it."""

    end: str
    attempts: int


def read_books(records: Iterable[e.AnyEvent]) -> Books:
    """Return the books in the events of a journal."""
    books = Books()
    for event in records:
        _enter(books, event)
    return books


def _enter(books: Books, event: e.AnyEvent) -> None:
    if isinstance(event, e.Submitted | e.Merged):
        for number, body in enumerate(event.bodies, start=event.first):
            args, _ = decode_arguments(PLAIN, body, (PLAIN,))
            job = Job(f"{event.origin}-{number}", str(args[0]), event.terms.task, event.terms.queue)
            books.jobs[job.id] = job
    elif isinstance(event, e.Succeeded):
        for span in event.ranges:
            for number, result in enumerate(span.results, start=span.first):
                job = books.jobs[f"{span.origin}-{number}"]
                job.ends.append("succeeded")
                # A plain consumer acknowledges without a result.
                job.results += [decode_result(result)] if result else []
    elif isinstance(event, e.Yielded):
        job = books.jobs[f"{event.origin}-{event.number}"]
        job.given = [*(job.given if event.first else []), *map(decode_result, event.values)]
    elif isinstance(event, e.Failed):
        _charge(books.jobs[f"{event.origin}-{event.number}"], event)
    elif isinstance(event, e.JobsCancelled):
        for number in event.numbers:
            books.jobs[f"{event.origin}-{number}"].ends.append("cancelled")


def _charge(job: Job, event: e.Failed) -> None:
    job.charged[event.cause] += 1
    if event.retry_at is None or "cancelled" in job.ends:
        job.ends.append("dead")


def parse_counts(exposition: str) -> dict[tuple[str, str], int]:
    """Return `svc_queue_jobs` of a metrics text as (queue, state) -> jobs."""
    pattern = re.compile(r'^svc_queue_jobs\{queue="([^"]*)",state="([^"]*)"\} (\S+)$', re.MULTILINE)
    return {(queue, state): int(float(count)) for queue, state, count in pattern.findall(exposition)}


class Checker:
    """Compares a history with the books; *expected* has the ends of jobs whose task does not succeed."""

    def __init__(
        self, history: History, books: Books, expected: Mapping[str, Expectation] | None = None
    ) -> None:
        self._history = history
        self._books = books
        self._expected = expected or {}
        self._findings = Findings(jobs=len(books.jobs))
        self._by_label: dict[str, list[Job]] = defaultdict(list)
        for job in books.jobs.values():
            self._by_label[job.label].append(job)
        self._runs: dict[str, list[Execution]] = defaultdict(list)
        for execution in history.executions:
            self._runs[execution.label].append(execution)
        self._faults = sorted(history.faults, key=lambda fault: fault.at)
        # A fault that affected no process explains nothing, and may be long: searches look at the others
        # only.
        self._striking_faults = [fault for fault in self._faults if fault.pids is None or fault.pids]
        self._stalls = [fault for fault in self._faults if fault.kind == STOOD_STILL]
        self._starts = [fault.at for fault in self._striking_faults]
        self._longest = max((fault.until - fault.at for fault in self._striking_faults), default=0.0)

    def check(self) -> Findings:
        """Return the findings on all invariants."""
        self._check_loss_and_invention()
        self._check_ends()
        self._check_repeats()
        self._check_calls()
        self._check_drains()
        self._check_counts()
        self._check_streams()
        self._check_cancels()
        self._findings.violations += wrong_checkpoints(self._history.checkpoints, self.explanations)
        self._findings.faults.update(fault.kind for fault in self._faults if fault.injected)
        self._measure_recoveries()
        return self._findings

    def _blame(self, invariant: str, text: str) -> None:
        self._findings.violations.append(f"{invariant}: {text}")

    # --- I1, I2, I6, I7 -------------------------------------------------------------------------------

    def _check_loss_and_invention(self) -> None:
        findings = self._findings
        asked: set[str] = set()
        accepted: set[str] = set()
        for call in self._history.calls:
            if call.verb == "submit":
                labels = set(call.labels())
                asked |= labels
                accepted |= labels if call.outcome == OK else set()
        for label in sorted(accepted):
            if not any(job.ends for job in self._by_label.get(label, ())):
                findings.lost += 1
                where = "never ended" if label in self._by_label else "is not on record"
                self._blame("I1", f"{label} was accepted and {where}")
        for label in sorted((self._runs.keys() | self._by_label.keys()) - asked):
            findings.invented += 1
            self._blame("I2", f"{label} was never submitted")
        for label, jobs in self._by_label.items():
            if len(jobs) > 1:
                findings.invented += len(jobs) - 1
                self._blame("I7", f"{label} became {len(jobs)} jobs: {[job.id for job in jobs]}")

    # --- I3, I5 ---------------------------------------------------------------------------------------

    def _check_ends(self) -> None:
        for job in self._books.jobs.values():
            if len(job.ends) > 1:
                self._findings.twice += 1
                self._blame("I3", f"{job.label} ended {len(job.ends)} times: {job.ends}")
            if not job.ends:
                self._blame("I1", f"{job.label} never ended")
            expected = self._expected.get(job.task)
            if expected is None:
                self._check_innocent(job)
            else:
                self._check_budget(job, expected)

    def _check_innocent(self, job: Job) -> None:
        """A job that should succeed does, with its own result, unless its process died three times."""
        if any(result != job.label for result in job.results):
            self._blame("I3", f"{job.label} has the result of another job: {job.results}")
        if "succeeded" in job.ends and not self._runs.get(job.label):
            self._blame("I2", f"{job.label} has a result and was never executed")
        runs = self._runs.get(job.label, ())
        kills = sum(any(fault.fatal for fault in self._striking(run, run.end)) for run in runs)
        if "dead" in job.ends and kills < CRASH_BUDGET:
            self._blame("I5", f"{job.label} was given up on after {kills} deaths of its process")

    def _check_budget(self, job: Job, expected: Expectation) -> None:
        if job.ends and job.ends[0] != expected.end:
            self._blame("I5", f"{job.label} of {job.task} ended {job.ends}, not {expected.end}")
        runs = self._runs.get(job.label, [])
        struck = sum(any(fault.injected for fault in self.explanations(*pair)) for pair in _gaps(runs))
        charged = sum(job.charged[cause] for cause in (Cause.FAILED, Cause.TIMED_OUT, Cause.CRASHED))
        if charged > expected.attempts or len(runs) > expected.attempts + struck:
            self._blame("I5", f"{job.label} of {job.task} ran {len(runs)} times, charged {charged}")

    # --- I4 -------------------------------------------------------------------------------------------

    def _check_repeats(self) -> None:
        """Between two runs of a job lies a fault that affected one of their leases, its own or injected."""
        for label, runs in self._runs.items():
            for before, after in _gaps(runs):
                fault = self._explanation(before, after)
                if fault is not None:
                    self._findings.explained += 1
                    self._findings.repeats[fault.kind] += 1
                elif not self._was_charged(label):
                    self._findings.unexplained += 1
                    self._blame(
                        "I4",
                        f"{label} ran again without a fault: by {before.pid} from {before.start:.3f} to "
                        f"{before.end or 0:.3f}, by {after.pid} from {after.start:.3f}",
                    )

    def repeats(self) -> list[str]:
        """Check the repeats alone; return the violations."""
        self._check_repeats()
        return self._findings.violations

    def _was_charged(self, label: str) -> bool:
        return any(job.task in self._expected for job in self._by_label.get(label, ()))

    def _explanation(self, before: Execution, after: Execution) -> Fault | None:
        """Return the fault that explains the second run; a fault with process numbers is preferred."""
        found = self.explanations(before, after)
        return min(found, key=lambda fault: (fault.pids is None, -fault.at), default=None)

    def explanations(self, before: Execution, after: Execution) -> list[Fault]:
        """Return the faults that explain why a job ran again."""
        since = before.start - LEASE_WINDOW
        return [
            fault
            for fault in self._between(since, after.start)
            if fault.hits(before.pid, after.pid) and (not fault.fatal or fault.until >= before.start)
        ]

    def _striking(self, run: Execution, end: float | None) -> Iterator[Fault]:
        """Yield the faults that affected the process of *run* while it ran."""
        for fault in self._between(run.start, float("inf") if end is None else end):
            if fault.pids is not None and run.pid in fault.pids:
                yield fault

    def _between(self, since: float, until: float) -> Iterator[Fault]:
        first = bisect_left(self._starts, since - self._longest)
        for fault in itertools.islice(self._striking_faults, first, None):
            if fault.at > until:
                return
            if fault.until >= since:
                yield fault

    # --- I10, I12, I18 --------------------------------------------------------------------------------

    def _check_calls(self) -> None:
        for call in self._history.calls:
            if not call.deadline:
                continue
            if call.returned is None:
                self._blame("I10", f"{call.verb} of {call.client} from {call.call:.3f} on never ended")
                continue
            over = call.returned - call.call - call.deadline - self._stood_still(call.call, call.returned)
            self._findings.longest_overrun = max(self._findings.longest_overrun, over)
            if over > DEADLINE_SLACK:
                self._blame("I10", f"{call.verb} of {call.client} ended {over:.2f} s after its deadline")

    def _stood_still(self, since: float, until: float) -> float:
        """Return the seconds of this time in which the machine stood still."""
        return sum(max(0.0, min(each.until, until) - max(each.at, since)) for each in self._stalls)

    def _check_drains(self) -> None:
        for drain in self._history.drains:
            if drain.still is None:
                self._blame("I12", f"a drain ended with code {drain.code}")
                continue
            runs = [run for run in self._history.executions if run.pid not in drain.stock]
            late = [run for run in runs if drain.still < run.start < drain.resumed]
            running = [run for run in runs if run.end and run.start < drain.still < run.end - _CLOCK_SLACK]
            if late or running:
                pids = sorted({run.pid for run in (*late, *running)})
                text = f"{len(late)} jobs began and {len(running)} ran on after a drain was done, in {pids}"
                self._blame("I12", text)
            if any(drain.workers):
                self._blame("I12", f"workers ended with codes {drain.workers} in a drain")

    def _check_counts(self) -> None:
        counted = self._books.counted
        if counted is None:
            return
        booked = Counter((job.queue, (job.ends or ["unfinished"])[-1]) for job in self._books.jobs.values())
        shown = {key: count for key, count in counted.items() if count}
        if shown != dict(booked):
            self._blame("I18", f"the metrics say {shown} and the journal {dict(booked)}")

    # --- I19 ------------------------------------------------------------------------------------------

    def _check_streams(self) -> None:
        """What was read of one stream is of one process, in order; what was read last is on record."""
        for read in self._history.streams:
            pid = read.values[0][1] if read.values else 0
            right = [[read.label, pid, number] for number in range(len(read.values))]
            if read.values != right:
                self._blame("I19", f"stream {read.number} of {read.label} has {_first_wrong(read, right)}")
            kept = [job.given for job in self._by_label.get(read.label, ())]
            if read.ended and [read.values] != kept:
                self._blame("I19", f"{read.label} was read to its end, and the journal has something else")

    # --- I13 ------------------------------------------------------------------------------------------

    def _check_cancels(self) -> None:
        """A job has an end when its cancel returns, and no other one ever."""
        for label, state in self._history.cancels.items():
            ends = [end for job in self._by_label.get(label, ()) for end in job.ends]
            if ends != [state]:
                self._blame("I13", f"{label} was {state} after its cancel, and has the ends {ends}")

    # --- recovery times -------------------------------------------------------------------------------

    def _measure_recoveries(self) -> None:
        """Measure to the first answer after a fault that affected all, or to the next runs of its jobs."""
        answered = sorted((c.call, c.returned) for c in self._history.calls if c.outcome == OK and c.returned)
        begun = [call for call, _ in answered]
        for fault in self._faults:
            if not fault.injected:
                continue
            if fault.pids is None:
                ends = [returned for _, returned in answered[bisect_left(begun, fault.until) :][:50]]
                if ends:
                    self._findings.recoveries[fault.kind].append(min(ends) - fault.until)
        for runs in self._runs.values():
            for before, after in _gaps(runs):
                cause = self._explanation(before, after)
                if cause is not None and cause.pids is not None and before.end is None:
                    self._findings.recoveries[cause.kind].append(after.start - cause.at)


def _first_wrong(read: StreamRead, right: Sequence[list[object]]) -> str:
    place = next(place for place, value in enumerate(read.values) if value != right[place])
    return f"{read.values[place]} where {right[place]} was due"


def _gaps(runs: Iterable[Execution]) -> Iterator[tuple[Execution, Execution]]:
    return itertools.pairwise(runs)
