"""A model of the queue that fits on paper: a dictionary of jobs and their states.

It holds the states and charges that the queue must have, and compares them after each step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.enrolment import recover
from svc.domain.job import ErrorInfo, NewChunk, parse_job_id
from svc.domain.limits import Limits
from svc.domain.members import ON_TRIAL, Member
from svc.domain.queue_state import QueueState
from svc.domain.replay import replay
from tests.support.simulated_journals import Journals, MemoryJournals
from tests.support.state_checks import check_journal, check_state

LIMITS = Limits(
    lease_seconds=15.0,
    retention_seconds=100.0,
    retention_jobs=12,
    dead_retention_seconds=300.0,
    window_bytes=300,
    grant_jobs=8,
    merge_seconds=2.0,
    reconnect_seconds=1.0,
    suspicion_budget=2,
)
ERROR = ErrorInfo("ValueError", "no")
WORKERS = ("v", "w")
CONSUMERS = ("v-1", "w-1", "w-2")
FINISHED = ("succeeded", "dead", "cancelled")


@dataclass
class Job:
    """One job in the model."""

    state: str
    due: float = 0.0
    ended: float = 0.0
    charged: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    suspect: bool = False
    outcomes: int = 0
    #: The partial results of the last attempt that gave some, its token, and the number of its stream.
    given: list[bytes] = field(default_factory=list)
    giver: int = 0
    stream: int = 0

    def gives(self, token: int, values: list[bytes]) -> None:
        """Take partial results of the attempt under *token*; those of another one are gone."""
        if token != self.giver:
            self.given, self.giver, self.stream = [], token, self.stream + 1
        self.given = [*self.given, *values]


@dataclass
class StreamReader:
    """A client that reads the partial results of a job, and what it has seen."""

    job: str
    token: int = 0
    seen: list[bytes] = field(default_factory=list)


@dataclass
class Lease:
    """A lease as its consumer sees it: jobs in order, without the settled ones."""

    consumer: str
    origin: str
    numbers: list[int]


class QueueModel(RuleBasedStateMachine):
    """The queue, and the state of each job as the model has it; the rules are in a subclass."""

    #: Where the queue's journal is kept.
    kept_in: ClassVar[Callable[[], Journals]] = MemoryJournals

    @initialize(seed=st.integers(0, 1 << 16))
    def start(self, seed: int) -> None:
        self.now = 1_000.0
        self.journals = type(self).kept_in()
        self.journal = self.journals.new(Random(seed))
        self.jobs: dict[str, Job] = {}
        self.next_number = 0
        self.headers: dict[int, bytes] = {}
        self.sent: list[NewChunk] = []
        self.held: dict[int, Lease] = {}
        #: After a restart: the jobs that were leased, each with the consumer that may come back for it.
        self.awaited: dict[str, str] = {}
        self.stale: list[c.Ack] = []
        self.readers: list[StreamReader] = []
        self.purged = 0
        self._open()

    def _open(self) -> None:
        self.state = QueueState(incarnation=self.journal.incarnation, read=self.journal.read, limits=LIMITS)
        for sequence, event in self.journal.replay():
            replay(self.state.ledger, sequence, event)
        recover(self.state, self.now)
        self.commit()
        self._note_due()
        self.client = Member()
        self.members: dict[str, Member] = {}
        self.supervisors: dict[str, Member] = {}

    def ask(self, command: c.Command, member: Member) -> r.Reply:
        reply = apply(self.state, command, member, self.now)
        assert reply is not None
        self.commit()
        return reply

    def commit(self) -> None:
        self.journal.append(*self.state.take_events())

    def teardown(self) -> None:
        if hasattr(self, "journals"):
            self.journals.close()

    # --- the passing of time -----------------------------------------------------------------------

    def _note_due(self) -> None:
        for job in self.jobs.values():
            if job.state == "scheduled" and job.due <= self.now:
                job.state = "ready"

    def _note_expired(self) -> None:
        for token, lease in list(self.held.items()):
            if (
                token in self.state.leases
                or self.jobs[f"{lease.origin}-{lease.numbers[0]}"].state != "leased"
            ):
                continue
            if not any(t == token for t in self.before_tokens):
                continue
            member = self.members.get(lease.consumer)
            on_trial = token in self.trials
            assert on_trial or member is None or self._worker_silent(member), "a lease ended for no reason"
            del self.held[token]
            self.stale.append(c.Ack(token, lease.numbers[0], [b"x"], [0.0]))
            self._back(lease)
            for number in lease.numbers:
                self.jobs[f"{lease.origin}-{number}"].suspect = True
        self._note_interruptions()

    def _note_interruptions(self) -> None:
        """Take over the one charge that has no budget: which job was executing, the model does not know."""
        for job, known in self.jobs.items():
            place = self.state.ledger.origins.find(*parse_job_id(job))
            if place is not None and (record := place[0].records.get(place[1])) is not None:
                assert record.interruptions >= known.charged[2]
                assert record.suspicions in (known.charged[3], known.charged[3] + 1)
                assert record.suspicions == known.charged[3] or known.suspect
                known.charged[2:] = [record.interruptions, record.suspicions]
                if known.charged[3] == LIMITS.suspicion_budget and known.state == "ready":
                    self._settle(known, "dead", given_back=True)

    def _worker_silent(self, member: Member) -> bool:
        return member.worker is None or self.now >= member.worker.expires

    def _note_forgotten(self) -> None:
        for job, known in list(self.jobs.items()):
            if self.state.ledger.find(job) is None:
                assert known.state in FINISHED
                old = self.now >= known.ended + LIMITS.retention_seconds
                kept = sum(each.state in FINISHED for each in self.jobs.values())
                # The jobs of a chunk count as long as it is kept, those that were purged too.
                many = kept + self.purged > LIMITS.retention_jobs
                assert old or many
                del self.jobs[job]

    # --- for the rules ------------------------------------------------------------------------------

    def _live_tokens(self) -> set[int]:
        return {token for token in self.held if token in self.state.leases}

    def _live(self) -> bool:
        return bool(self._held_by_members())

    def _held_by_members(self) -> set[int]:
        """Return the leases that their consumers still have; those on trial stand apart."""
        held = {token for token in self._live_tokens() if self.held[token].consumer in self.members}
        return {token for token in held if self.state.leases[token].holder.role != ON_TRIAL}

    def _choose(self, data: st.DataObject) -> tuple[int, Lease, Member]:
        tokens = sorted(t for t in self._held_by_members())
        token = data.draw(st.sampled_from(tokens))
        return token, self.held[token], self.members[self.held[token].consumer]

    def _listed(self, worker: str) -> list[str]:
        known = self.state.workers.get(worker)
        return [] if known is None else list(known.consumers)

    def _settle(self, job: Job, state: str, *, given_back: bool = False) -> None:
        assert job.state == "leased" or state == "cancelled" or given_back
        job.state = state
        if state in FINISHED:
            job.ended = self.now
            job.suspect = False

    def _back(self, lease: Lease) -> None:
        for number in lease.numbers:
            job = self.jobs[f"{lease.origin}-{number}"]
            assert job.state == "leased"
            job.state = "ready"

    def _tidy(self, token: int) -> None:
        if not self.held[token].numbers:
            del self.held[token]

    def _drop_leases_of(self, name: str) -> None:
        for token in [token for token, lease in self.held.items() if lease.consumer == name]:
            lease = self.held.pop(token)
            if lease.numbers:
                self.stale.append(c.Ack(token, lease.numbers[0], [b"x"], [0.0]))
            if token in self.before_tokens:
                self._back(lease)

    # --- invariants ---------------------------------------------------------------------------------

    @invariant()
    def states_are_the_models(self) -> None:
        for job, known in self.jobs.items():
            place = self.state.ledger.find(job)
            assert place is not None, f"{job} is lost"
            chunk, index = place
            assert chunk.state(index).word == known.state, job
            record = chunk.records.get(index)
            charged = [0, 0, 0, 0]
            if record is not None:
                charged = [record.failures, record.crashes, record.interruptions, record.suspicions]
            assert charged == known.charged, job
            assert (self.state.ledger.losses.of(chunk, index) is not None) == known.suspect, job
        self._check_streams()
        #: Which leases were in force before the next rule.
        self.before_tokens = set(self.state.leases)
        self.trials = {each.token for each in self.state.leases.values() if each.holder.role == ON_TRIAL}

    @invariant()
    def state_is_sound(self) -> None:
        check_state(self.state)

    @invariant()
    def journal_is_the_state(self) -> None:
        check_journal(self.state, self.journal)

    def _check_streams(self) -> None:
        for job, known in self.jobs.items():
            part = apply(self.state, c.ReadStream(job), self.client, self.now)
            assert isinstance(part, r.StreamPart)
            assert (part.token, part.number, part.values) == (known.giver, known.stream, known.given)
            assert part.ended == (known.state in FINISHED)

    def _check_company(self, name: str, suspect: r.Delivery) -> None:
        """Suspects run on one worker, and those that have a suspicion alone."""
        leased = [
            lease
            for token, lease in self.held.items()
            if token in self.state.leases
            and token != suspect.token
            and any(self.jobs[f"{lease.origin}-{number}"].suspect for number in lease.numbers)
        ]
        assert {lease.consumer[0] for lease in leased} <= {name[0]}
        numbers = [(suspect.origin, suspect.first), *((lease.origin, lease.numbers[0]) for lease in leased)]
        if leased:
            assert not any(self.jobs[f"{origin}-{number}"].charged[3] for origin, number in numbers)
