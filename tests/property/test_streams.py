"""Whatever attempts and restarts follow each other, what a reader has seen is a prefix of one attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import Yielded
from svc.domain.limits import Limits
from tests.support.asking import ack_of, lease, nack_of, record, submit
from tests.support.simulated_journals import AwaitedStreams, Journals, MemoryJournals
from tests.support.state_checks import check_journal

JOB = "o-0"
LIMITS = Limits(reconnect_seconds=0.0)


@dataclass
class Reading:
    """One who reads the stream of the job, and what he has seen."""

    token: int = 0
    seen: list[bytes] = field(default_factory=list)


class StreamMachine(RuleBasedStateMachine):
    """One job, its attempts one after the other, and readers."""

    #: Where the queue's journal is kept.
    kept_in: ClassVar[Callable[[], Journals]] = MemoryJournals

    @initialize(seed=st.integers(0, 1 << 16))
    def start(self, seed: int) -> None:
        self.journals = type(self).kept_in()
        self.journal = self.journals.new(Random(seed))
        self.delivery: r.Delivery | None = None
        #: What each attempt has given, by its token; the last one that gave some, and the one to read.
        self.given: dict[int, list[bytes]] = {}
        self.giver = self.current = 0
        self.ended = False
        self.readers = [Reading(), Reading()]
        self._open([])
        submit(self.client)

    def _open(self, held: list[c.Held]) -> None:
        self.queue = LocalQueue(self.journal, limits=LIMITS)
        self.client = LocalBroker(self.queue)
        hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"], held=held)
        self.consumer = LocalBroker(self.queue, lambda: hello)

    @precondition(lambda self: self.delivery is None and not self.ended)
    @rule()
    def take(self) -> None:
        (self.delivery,) = lease(self.consumer)
        assert self.delivery.token not in self.given

    @precondition(lambda self: self.delivery is not None)
    @rule(count=st.integers(1, 3), again=st.integers(0, 2))
    def give(self, count: int, again: int) -> None:
        assert self.delivery is not None
        token = self.delivery.token
        known = self.given.setdefault(token, [])
        first = max(0, len(known) - again)
        known += [b"%d:%d" % (token, len(known) + place) for place in range(count)]
        self.current = self.giver = token
        assert record(self.consumer, c.Yield(token, 0, first, known[first:])) == len(known)

    @precondition(lambda self: self.delivery is not None)
    @rule(dead=st.booleans())
    def fail(self, dead: bool) -> None:
        assert self.delivery is not None
        record(self.consumer, nack_of(self.delivery, None if dead else 0.0))
        self.delivery = None
        if dead:
            assert self.client.requeue([JOB]) == 1

    @precondition(lambda self: self.delivery is not None)
    @rule()
    def give_back(self) -> None:
        assert self.delivery is not None
        record(self.consumer, c.Release(self.delivery.token, 0))
        self.delivery = None

    @precondition(lambda self: self.delivery is not None and self.given)
    @rule()
    def succeed(self) -> None:
        assert self.delivery is not None
        record(self.consumer, ack_of(self.delivery))
        self.current = self.delivery.token
        self.given.setdefault(self.current, [])
        self.delivery, self.ended = None, True

    @rule(back=st.booleans())
    def restart(self, back: bool) -> None:
        """The manager restarts; the consumer names its lease, or is gone."""
        self.journal = self.journals.reopened(self.journal)
        held = self.delivery is not None and back
        self.delivery = self.delivery if held else None
        self._open([c.Held(self.delivery.token, "o", 0, 1)] if self.delivery is not None else [])

    @invariant()
    def journal_is_the_state(self) -> None:
        if not hasattr(self, "queue"):
            return
        check_journal(self.queue.host.state, self.journal)
        kept = {event.token for _, event in self.journal.replay() if isinstance(event, Yielded)}
        assert kept == ({self.giver} if self.giver else set()), "only the last stream is kept"

    @rule(place=st.integers(0, 1))
    def read(self, place: int) -> None:
        reader = self.readers[place]
        part = self.client.read_stream(c.ReadStream(JOB, len(reader.seen), reader.token))
        if reader.token and reader.token != self.current:
            assert (part.token, part.values) == (self.current, [])
            self.readers[place] = Reading()
            return
        assert part.token == self.current
        reader.token = part.token
        reader.seen += part.values
        assert reader.seen == self.given.get(self.current, [])
        assert part.ended == self.ended

    def teardown(self) -> None:
        if hasattr(self, "journals"):
            self.journals.close()


class ReplicatedStreamMachine(StreamMachine):
    """The same with the journal in a modelled stream of NATS, which loses answers and elects leaders."""

    kept_in = AwaitedStreams


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
TestStreamMachine = StreamMachine.TestCase
TestStreamMachine.settings = SETTINGS
TestReplicatedStreamMachine = ReplicatedStreamMachine.TestCase
TestReplicatedStreamMachine.settings = settings(SETTINGS, max_examples=15)
