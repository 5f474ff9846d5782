"""The queue against a model that a child could keep on paper: a dictionary of jobs and their states."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.events import Merged
from svc.domain.job import NewChunk, Terms
from svc.domain.members import RECONNECT_GRACE, Member
from svc.domain.scheduling.grants import may_lease
from tests.support.member_rules import MemberRules
from tests.support.queue_model import (
    CONSUMERS,
    ERROR,
    FINISHED,
    LIMITS,
    Job,
    Lease,
    StreamReader,
)
from tests.support.simulated_journals import AwaitedStreams
from tests.support.state_checks import entries


@pytest.fixture(autouse=True, scope="module")
def few_attempts_kept() -> Iterator[None]:
    """So that jobs have more attempts than are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("svc.domain.job_records.ATTEMPTS_KEPT", 2)
        yield


class QueueMachine(MemberRules):
    """Random commands, one commit each; a restart may come after any of them."""

    # --- jobs ---------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 5), delay=st.sampled_from([0.0, 0.0, 5.0]), priority=st.integers(0, 1))
    def submit(self, count: int, delay: float, priority: int) -> None:
        first, self.next_number = self.next_number, self.next_number + count
        bodies = [b"%05d" % number for number in range(first, first + count)]
        chunk = NewChunk(first, Terms("m:f", priority=priority, answer=priority == 1), bodies, delay)
        self.sent.append(chunk)
        assert self.ask(c.Submit("o", [chunk]), self.client) == r.Accepted([])
        for number in range(first, first + count):
            self.jobs[f"o-{number}"] = Job("scheduled" if delay else "ready", self.now + delay)

    @rule(jobs=st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 2.0, 5.0])), min_size=1, max_size=5))
    def submit_each(self, jobs: list[tuple[bool, float]]) -> None:
        """Jobs in chunks of one: some have a key, some a delay of their own."""
        chunks = []
        for keyed, delay in jobs:
            number, self.next_number = self.next_number, self.next_number + 1
            key = f"key-{number}" if keyed else ""
            self.headers[number] = b"h%05d" % number if number % 3 == 0 else b""
            headers = [self.headers[number]] if self.headers[number] else []
            chunks.append(NewChunk(number, Terms("m:f"), [b"%05d" % number], delay, key, headers))
            self.jobs[f"o-{number}"] = Job("scheduled" if delay else "ready", self.now + delay)
        self.sent += chunks
        assert self.ask(c.Submit("o", chunks), self.client) == r.Accepted([])

    @precondition(lambda self: any(chunk.key for chunk in self.sent))
    @rule(data=st.data())
    def submit_key_again(self, data: st.DataObject) -> None:
        """The same key is the same job, under whatever number it comes, as long as the job is kept."""
        chunk = data.draw(st.sampled_from([chunk for chunk in self.sent if chunk.key]))
        if self.state.ledger.find(f"o-{chunk.first}") is None:
            return
        again = NewChunk(0, chunk.terms, chunk.bodies, 0.0, chunk.key, chunk.headers)
        reply = self.ask(c.Submit("other", [again]), self.client)
        assert reply == r.Accepted([r.Note(0, f"o-{chunk.first}")])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        chunk = data.draw(st.sampled_from(self.sent))
        assert self.ask(c.Submit("o", [chunk]), self.client) == r.Accepted([])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def submit_others_under_known_numbers(self, data: st.DataObject) -> None:
        """A conflict as long as their chunk has a job; afterwards their numbers count as the same jobs."""
        chunk = data.draw(st.sampled_from(self.sent))
        others = NewChunk(chunk.first, chunk.terms, [b"other"] * len(chunk.bodies), chunk.delay, chunk.key)
        origin, numbers = (
            self.state.ledger.origins.get("o"),
            range(chunk.first, chunk.first + len(chunk.bodies)),
        )
        kept = origin is not None and any(origin.find(number) for number in numbers)
        reply = self.ask(c.Submit("o", [others]), self.client)
        assert isinstance(reply, r.Accepted)
        assert [(note.code, note.anew) for note in reply.notes] == [("conflict", True)] * kept

    @rule(name=st.sampled_from(CONSUMERS), limit=st.integers(1, 6))
    def lease(self, name: str, limit: int) -> None:
        member = self.members.get(name)
        if member is None or not may_lease(member):
            return
        grant = self.ask(c.Lease(limit), member)
        assert isinstance(grant, r.Grant)
        idle = self.state.ledger.drains.in_force or (
            member.worker is not None and member.worker.is_silent(self.now)
        )
        ready = [known for job, known in self.jobs.items() if known.state == "ready" and not self._waits(job)]
        suspects = [known for known in self.jobs.values() if known.suspect and known.state == "leased"]
        alone = not suspects and not any(lease.consumer == name for lease in self.held.values())
        if idle or not ready:
            assert not grant.deliveries
        elif alone or not all(known.suspect for known in ready):
            assert grant.deliveries
        assert bool(grant.pill) == bool(self.state.ledger.drains.in_force)
        for each in grant.deliveries:
            assert each.token not in self.held
            numbers = list(range(each.first, each.first + len(each.bodies)))
            assert each.bodies == [b"%05d" % number for number in numbers]
            headers = [self.headers.get(number, b"") for number in numbers]
            assert (each.headers or [b""] * len(numbers)) == headers
            self.held[each.token] = Lease(name, each.origin, numbers)
            for number in numbers:
                job = self.jobs[f"{each.origin}-{number}"]
                assert job.state == "ready"
                holder = self.awaited.get(f"{each.origin}-{number}")
                assert holder is None or not self.state.absentees, "its holder may still come back"
                assert [each.failures, each.crashes, each.interruptions] == job.charged[:3]
                if job.suspect:
                    assert (grant.deliveries, len(each.bodies)) == ([each], 1), "a suspect is not alone"
                    self._check_company(name, each)
                job.state = "leased"

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        token, lease, member = self._choose(data)
        count = data.draw(st.integers(1, len(lease.numbers)))
        ack = c.Ack(token, lease.numbers[0], [b"%d" % token] * count, [0.1] * count)
        assert self.ask(ack, member) == r.Done(1)
        for number in lease.numbers[:count]:
            job = self.jobs[f"{lease.origin}-{number}"]
            self._settle(job, "succeeded")
            if job.giver:
                job.gives(token, [])
        del lease.numbers[:count]
        assert self.ask(ack, member) == r.Done(1), "the same ack again"
        self._tidy(token)

    @precondition(lambda self: self._live())
    @rule(data=st.data(), count=st.integers(1, 3), again=st.integers(0, 2))
    def give(self, data: st.DataObject, count: int, again: int) -> None:
        """A job gives partial results, the last ones among them perhaps again."""
        token, lease, member = self._choose(data)
        number = data.draw(st.sampled_from(lease.numbers))
        job = self.jobs[f"{lease.origin}-{number}"]
        known = job.given if job.giver == token else []
        first = max(0, len(known) - again)
        fresh = [b"%d:%d" % (token, len(known) + place) for place in range(count)]
        values = [*known[first:], *fresh]
        job.gives(token, fresh)
        assert self.ask(c.Yield(token, number, first, values), member) == r.Done(len(job.given))
        assert self.ask(c.Yield(token, number, first, values), member) == r.Done(len(job.given)), "again"

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def begin_to_read(self, data: st.DataObject) -> None:
        self.readers.append(StreamReader(data.draw(st.sampled_from(sorted(self.jobs)))))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def read_on(self, data: st.DataObject) -> None:
        """What a reader sees goes on where it was, or it hears that the stream is another one."""
        reader = data.draw(st.sampled_from(self.readers))
        part = self.ask(c.ReadStream(reader.job, len(reader.seen), reader.token), self.client)
        known = self.jobs.get(reader.job)
        if known is None:
            assert isinstance(part, r.Refused)
        elif reader.token and reader.token != known.giver:
            assert isinstance(part, r.StreamPart)
            assert (part.token, part.number, part.values) == (known.giver, known.stream, [])
            self.readers.remove(reader)
        else:
            assert isinstance(part, r.StreamPart)
            reader.token = part.token
            reader.seen += part.values
            assert reader.seen == known.given

    @precondition(lambda self: self._live())
    @rule(data=st.data(), retry_in=st.sampled_from([None, 0.0, 5.0]))
    def nack(self, data: st.DataObject, retry_in: float | None) -> None:
        token, lease, member = self._choose(data)
        place = data.draw(st.integers(0, len(lease.numbers) - 1))
        number = lease.numbers[place]
        nack = c.Nack(token, number, ERROR, retry_in)
        assert self.ask(nack, member) == r.Done(1)
        self._back(Lease(lease.consumer, lease.origin, lease.numbers[:place]))
        job = self.jobs[f"{lease.origin}-{number}"]
        job.charged[0] += 1
        self._settle(job, "dead" if retry_in is None else "scheduled" if retry_in else "ready")
        job.due = self.now + (retry_in or 0.0)
        del lease.numbers[: place + 1]
        assert self.ask(nack, member) == r.Done(1), "the same nack again"
        self._tidy(token)

    @precondition(lambda self: self._live())
    @rule(data=st.data(), started=st.booleans())
    def release(self, data: st.DataObject, started: bool) -> None:
        token, lease, member = self._choose(data)
        place = data.draw(st.integers(0, len(lease.numbers) - 1))
        assert self.ask(c.Release(token, lease.numbers[place], started), member) == r.Done(1)
        if started and place == 0:
            self.jobs[f"{lease.origin}-{lease.numbers[0]}"].charged[2] += 1
        self._back(Lease(lease.consumer, lease.origin, lease.numbers[place:]))
        del lease.numbers[place:]
        self._tidy(token)

    @precondition(lambda self: self._live())
    @rule(data=st.data())
    def recall(self, data: st.DataObject) -> None:
        token, lease, _ = self._choose(data)
        supervisor = self.supervisors.get(lease.consumer[0])
        if supervisor is None:
            return
        mine = [t for t, each in self.held.items() if each.consumer == lease.consumer and t >= token]
        self.ask(c.Recall(lease.consumer, token, lease.numbers[0], max(mine)), supervisor)
        for each in mine:
            keep = 1 if each == token else 0
            if each in self._live_tokens() or each not in self.state.leases:
                self._back(Lease("", lease.origin, self.held[each].numbers[keep:]))
            del self.held[each].numbers[keep:]
            self._tidy(each)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def stale_ack(self, data: st.DataObject) -> None:
        """A token that is not in force changes nothing (the invariants look)."""
        ack = data.draw(st.sampled_from(self.stale))
        if ack.token not in self.state.leases:
            self.ask(ack, self.client)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.jobs)), max_size=4, unique=True))
        waiting = [job for job in ids if self.jobs[job].state in ("ready", "scheduled")]
        assert self.ask(c.Cancel(ids), self.client) == r.Done(len(waiting))
        for job in waiting:
            self._settle(self.jobs[job], "cancelled")

    @rule()
    def requeue(self) -> None:
        dead = [job for job in self.jobs.values() if job.state == "dead"]
        assert self.ask(c.Requeue(), self.client) == r.Done(len(dead))
        for job in dead:
            job.state = "ready"
            job.charged = [0, 0, job.charged[2], 0]

    @rule(data=st.data(), state=st.sampled_from(["", "dead", "succeeded", "cancelled"]))
    def purge(self, data: st.DataObject, state: str) -> None:
        ended = [name for name, job in self.jobs.items() if job.state in FINISHED]
        if state:
            ended = [name for name in ended if self.jobs[name].state == state]
            command = c.Purge(states=[state])
        elif self.jobs:
            named = data.draw(
                st.lists(st.sampled_from(sorted(self.jobs)), min_size=1, max_size=4, unique=True)
            )
            ended = [name for name in ended if name in named]
            command = c.Purge(named)
        else:
            command = c.Purge(every=True)
        assert self.ask(command, self.client) == r.Done(len(ended))
        for name in ended:
            del self.jobs[name]
        self.purged += len(ended)

    @rule(worker=st.sampled_from(["", "w"]), refuse=st.just(False), end=st.booleans())
    def drain(self, worker: str, refuse: bool, end: bool) -> None:
        if not worker:
            self.ask(c.Resume() if end else c.Drain("", refuse), self.client)

    @rule()
    def take(self) -> None:
        expected = next(iter(self.state.ledger.answers), None)
        reply = self.ask(c.Take(), Member("plain", inside=True))
        assert isinstance(reply, r.Outcomes)
        assert len(reply.outcomes) == (expected is not None)

    # --- time ---------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.05, 0.6, 5.0, 16.0, 120.0, 400.0]), renewed=st.booleans())
    def pass_time(self, seconds: float, renewed: bool) -> None:
        self.now += seconds
        if renewed:
            for supervisor in self.supervisors.values():
                self.ask(c.Extend(), supervisor)
        needed, before = self.state.needs_upkeep(self.now), self._picture()
        upkeep.tick(self.state, self.now)
        assert needed or self._picture() == before, "upkeep had work that the state did not announce"
        self.commit()
        self._note_due()
        self._note_expired()
        self._note_forgotten()

    def _picture(self) -> tuple[object, ...]:
        state = self.state
        return (
            set(state.leases),
            {name: set(worker.consumers) for name, worker in state.workers.items()},
            entries(state.scheduled),
            state.absentees.until,
            state.readied,
            # A chunk that grows long after its first job may be merged a little later.
            [type(event) for _, event in state._events if not isinstance(event, Merged)],
        )

    def _waits(self, job: str) -> bool:
        """Return whether a ready job waits for somebody who may hold it since before a restart."""
        place, absentees = self.state.ledger.find(job), self.state.absentees
        if place is None or not absentees:
            return False
        chunk, index = place
        return absentees.may_hold(chunk) or self.state.ledger.losses.of(chunk, index) is not None

    @rule()
    def restart(self) -> None:
        """Stop and start: leases are gone, all else is as before; consumers come back or do not."""
        self.journal = self.journals.reopened(self.journal)
        self.awaited = {
            f"{lease.origin}-{number}": lease.consumer
            for lease in self.held.values()
            for number in lease.numbers
        }
        for job in self.jobs.values():
            if job.state == "leased":
                job.state = "scheduled" if job.due > self.now else "ready"
        self._open()
        self.commit()

    def teardown(self) -> None:
        """All that is ready is handed out once, and then nothing is left."""
        if hasattr(self, "state"):
            self._hand_out_the_rest()
        super().teardown()

    def _hand_out_the_rest(self) -> None:
        self.ask(c.Resume(), self.client)
        if self.state.absentees:
            self.now = max(self.now, self.state.absentees.until)
            upkeep.tick(self.state, self.now)
            self._note_due()
            self._note_expired()
        ready = [job for job, known in self.jobs.items() if known.state == "ready"]
        plain, got = Member("plain"), list[str]()
        while True:
            grant = self.ask(c.Lease(3), plain)
            if not isinstance(grant, r.Grant) or not grant.deliveries:
                break
            for d in grant.deliveries:
                got += [f"{d.origin}-{d.first + i}" for i in range(len(d.bodies))]
                # A suspect keeps others waiting as long as it runs.
                self.ask(c.Ack(d.token, d.first, [b""] * len(d.bodies), [0.0] * len(d.bodies)), plain)
        assert sorted(got) == sorted(ready)


class StreamedQueueMachine(QueueMachine):
    """The same with the journal in a modelled stream, which loses answers and elects leaders."""

    kept_in = AwaitedStreams


SETTINGS = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
QueueMachine.TestCase.settings = SETTINGS
StreamedQueueMachine.TestCase.settings = settings(SETTINGS, max_examples=20)
TestQueueAgainstModel = QueueMachine.TestCase
TestStreamedQueueAgainstModel = StreamedQueueMachine.TestCase
assert LIMITS.lease_seconds > RECONNECT_GRACE
