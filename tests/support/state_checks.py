"""Conditions that a queue's state must meet at any time, and that a replay must meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from svc.broker.journal import Journal
from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.columns import DIGEST_BYTES
from svc.domain.due import Schedule
from svc.domain.handlers import Room
from svc.domain.job import Terms
from svc.domain.job_records import ATTEMPTS_KEPT, NO_RECORD
from svc.domain.job_states import Counts
from svc.domain.job_streams import JobStream
from svc.domain.ledger import Ledger
from svc.domain.lifecycle import PURGED, JobState, word_of
from svc.domain.members import ON_TRIAL, Member
from svc.domain.names import LARGE
from svc.domain.origins import Completion, Origin
from svc.domain.outcomes import outcome
from svc.domain.queue_state import QueueState
from svc.domain.replay import end_replay, replay
from svc.domain.views import Page


def about_jobs(events: Iterable[e.AnyEvent]) -> list[e.AnyEvent]:
    """Return the events that are not about the roster of workers."""
    return [each for each in events if not isinstance(each, e.OF_ROSTER)]


def check_state(state: QueueState, leavers: Iterable[Member] = ()) -> None:
    """Fail if the state contradicts itself; *leavers* may hold leases although no worker lists them."""
    _check_counts(state.ledger)
    _check_leases(state)
    _check_lanes(state)
    _check_outcomes(state)
    _check_known_tasks(state)
    assert state.consumers == sum(len(worker.consumers) for worker in state.workers.values())
    _check_holders(state)
    assert NO_RECORD.charges == (0, 0, 0, 0), "the record of all jobs without a history was changed"
    assert (NO_RECORD.due, list(NO_RECORD.attempts), NO_RECORD.ended) == (None, [], 0)


def check_journal(state: QueueState, journal: Journal) -> None:
    """Fail unless the journal has exactly the rows that the state needs, and replays to the same ledger."""
    ledger = state.ledger
    rows = {sequence for sequence, _ in journal.replay()}
    drains = {sequence for _, sequence in ledger.drains.in_force.values()}
    marks = {sequence for origin in ledger.origins for sequence in origin.forgotten_by}
    accepted = {sequence for chunk in ledger.chunks.values() for sequence in chunk.rows()}
    records = [record for chunk in ledger.chunks.values() for record in chunk.records.values()]
    attempts = {sequence for record in records for sequence in record.attempts}
    large = {row for group in ledger.large for value in group.values.values() for row in value.rows}
    # The first event of a roster is recorded at the start, and committed with the first turn.
    roster = set(ledger.roster.rows()) - {sequence for sequence, _ in state._events}
    needed = accepted | attempts | set(ledger.references) | drains | marks | large | roster
    # The newest row may stay until there is a newer one, and a replay forgets it again.
    assert rows - needed <= {max(rows, default=0)}
    assert needed <= rows
    assert all(len(record.attempts) <= ATTEMPTS_KEPT for record in records)

    replayed = Ledger()
    for sequence, event in journal.replay():
        replay(replayed, sequence, event)
    end_replay(replayed, 0.0)
    assert set(replayed.forgotten) == rows - needed
    live, again = portrait(ledger), portrait(replayed)
    for name, value in live.items():
        assert again[name] == value, f"the replayed {name} differ: {again[name]!r:.800}, live {value!r:.800}"
    for key, ranges in replayed.settled.ranges.items():
        assert all(any(a <= low and stop <= b for a, b in ledger.settled.ranges[key]) for low, stop in ranges)


def entries(schedule: Schedule) -> int:
    """Return the number of entries; a cancelled job may still have one."""
    return len(schedule._heap) + len(schedule._unswept)


def portrait(ledger: Ledger) -> dict[str, Any]:
    """Return all parts of a ledger that a restart must keep; an unfinished job may wait in another state."""
    chunks = list(ledger.chunks.values())
    return {
        "chunks": [(b.rows(), b.origin, b.first, b.count, b.unfinished) for b in chunks],
        "columns": {
            b.sequence: [(b.key_of(i), b.due_of(i), b.at_of(i), b.sequence_of(i)) for i in range(b.count)]
            for b in chunks
        },
        "states": {b.sequence: [_lasting(state) for state in b._states] for b in chunks},
        "outcomes": {b.sequence: [b.ended_by(index) for index in range(b.count)] for b in chunks},
        "records": {
            (b.sequence, index): (
                r.failures,
                r.crashes,
                r.interruptions,
                r.due,
                list(r.attempts),
                r.requeued,
                r.answered,
                r.suspicions,
                r.cleared,
                r.checkpoint,
                _stream(r.stream),
                r.ended,
            )
            for b in chunks
            for index, r in sorted(b.records.items())
        },
        "counts": {name: _kept(counts) for name, counts in _used(ledger)},
        "purges": {b.sequence: b.purges for b in chunks},
        "suspects": {b.sequence: _losses(ledger, b) for b in chunks if b.suspects},
        "keys": {key: _keyed(ledger, key) for key in ledger.keys._chunks},
        "dead": set(ledger.dead),
        "answers": [(key, sequence) for key, (_, sequence) in ledger.answers.items()],
        "roster": ledger.roster.workers,
        "watermarks": {name: (mark.up_to, mark.row) for name, mark in ledger.roster.watermarks.items()},
        "drains": (ledger.drains.in_force, ledger.drains.refusing),
        "references": dict(ledger.references.items()),
        "order of outcomes": [each for each in ledger.outcome_order if each in ledger.references],
        "feeds": {
            origin.name: [each for each in origin.completions.after(0) if _is_kept(ledger, origin, each)]
            for origin in ledger.origins
            if origin.chunks
        },
        "known numbers": {
            origin.name: (origin.forgotten, origin.floor)
            for origin in ledger.origins
            # No row says that plain clients' items existed, because only the manager numbers them.
            if origin.forgotten_by and not origin.name.startswith("put")
        },
        "large values": _large_values(ledger),
        "finish times": {b.sequence: b.finished_at for b in chunks if not b.unfinished},
    }


def _stream(stream: JobStream | None) -> tuple[Any, ...] | None:
    if stream is None:
        return None
    return stream.token, stream.place, stream.count, stream.size, list(stream.rows), list(stream.parts(0))


def _large_values(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Return all large values with their rows, and whether their results were recorded."""
    large = ledger.large
    values = [(group, place, value) for group in large for place, value in group.values.items()]
    assert large.size == sum(value.size for _, _, value in values)
    assert large.missing == sum(value.size - value.stored for _, _, value in values)
    assert large.arguments_size == sum(value.size for group, _, value in values if not group.token)
    return sorted(
        (
            *(group.origin, group.number, group.token, place, value.size, value.stored, list(value.rows)),
            large.result(group.origin, group.number) is value,
        )
        for group, place, value in values
    )


def _is_kept(ledger: Ledger, origin: Origin, each: Completion) -> bool:
    return origin.find(each.first) is not None and each.sequence in ledger.references


def _losses(ledger: Ledger, chunk: Chunk) -> list[tuple[int, ...]]:
    """Return the suspects of *chunk*, and whether the losses that made them that can still be withdrawn."""
    found: list[tuple[int, ...]] = []
    for index in sorted(chunk.suspects):
        loss = ledger.losses.of(chunk, index)
        assert loss is not None, "a suspect has no loss"
        open_still = ledger.losses.of_lease(loss.token) is loss
        found.append((index, loss.sequence, loss.token, loss.left, loss.again, loss.charged, open_still))
    return found


def _keyed(ledger: Ledger, key: str) -> tuple[int, int, bytes]:
    chunk, index = ledger.keys.find(key) or pytest.fail(f"the key {key!r} has no job")
    assert chunk.columns is not None
    assert len(chunk.columns._digests) == chunk.count * DIGEST_BYTES
    return chunk.sequence, index, chunk.columns.digest_of(index)


def _lasting(state: int) -> str:
    return word_of(state) if state == PURGED or JobState(state).finished else "unfinished"


def _kept(counts: Counts) -> tuple[int, int, int, int]:
    return counts.unfinished, counts[JobState.SUCCEEDED], counts[JobState.DEAD], counts[JobState.CANCELLED]


def _used(ledger: Ledger) -> list[tuple[str, Counts]]:
    return [(name, counts) for name, counts in sorted(ledger.counts.items()) if any(_kept(counts))]


def _check_counts(ledger: Ledger) -> None:
    seen: dict[str, Counter[str]] = {}
    for chunk in ledger.chunks.values():
        seen.setdefault(chunk.terms.queue, Counter()).update(map(word_of, chunk._states))
        assert chunk.unfinished == sum(_lasting(state) == "unfinished" for state in chunk._states)
        purged = [index for index in range(chunk.count) if chunk.is_purged(index)]
        assert bool(purged) == bool(chunk.purges)
        assert chunk.known == chunk.count - len(purged) > 0, "a chunk has no jobs"
        for index in purged:
            assert ledger.find(chunk.id(index)) is None
            assert index not in chunk.records
            assert not chunk.ended_by(index)
            assert (chunk.sequence, index) not in {*ledger.dead, *ledger.answers}
    for name, counts in ledger.counts.items():
        found = counts.by_state()
        assert found == {state.word: seen.get(name, Counter())[state.word] for state in JobState}, name
    assert ledger.unfinished == sum(chunk.unfinished for chunk in ledger.chunks.values())
    kept = [chunk for chunk in ledger.chunks.values() if not chunk.unfinished]
    for jobs, ends, is_kept_dead in (
        (ledger.finished_jobs, ledger.finished, False),
        (ledger.kept_dead_jobs, ledger.kept_dead, True),
    ):
        counted = [chunk for chunk in kept if chunk.is_kept_dead == is_kept_dead]
        assert jobs == sum(chunk.count for chunk in counted)
        assert {(chunk.finished_at, chunk) for chunk in counted} <= set(ends)
    resident = sum(b.weight for b in ledger.chunks.values() if b.in_memory)
    assert ledger.window.used == resident


def _check_leases(state: QueueState) -> None:
    leased: Counter[tuple[int, int]] = Counter()
    for lease in state.leases.values():
        assert lease.start < lease.stop
        assert lease.holder.leases[lease.token] is state.leases[lease.token] is lease
        assert lease in state.leases.of(lease.chunk)
        leased.update((lease.chunk.sequence, index) for index in range(lease.start, lease.stop))
    marked = {
        (chunk.sequence, index)
        for chunk in state.ledger.chunks.values()
        for index, each in enumerate(chunk._states)
        if each == JobState.LEASED
    }
    assert not leased or max(leased.values()) == 1, "a job has two live leases"
    assert set(leased) == marked
    linked = sum(len(state.leases.of(chunk)) for chunk in state.ledger.chunks.values())
    assert linked == len(state.leases)
    for lease in state.leases.values():
        worker = lease.holder.worker
        if lease.holder.role == ON_TRIAL:
            judged = any(trial.lease is lease for trial in state.suspects.trials)
            returns = any(each.heir is lease.holder for each in state.returns._waiting)
            assert judged or returns, "nobody judges it, and nobody gives it back"
            continue
        assert worker is None or worker.consumers.get(lease.holder.name) is lease.holder, "nobody returns it"


def _check_lanes(state: QueueState) -> None:
    ready: dict[tuple[object, ...], set[tuple[int, int]]] = {}
    for chunk in state.ledger.chunks.values():
        for i, each in enumerate(chunk._states):
            if each == JobState.READY:
                apart = state.ledger.losses.of(chunk, i) is not None
                awaited = not apart and state.absentees.may_hold(chunk)
                ready.setdefault(_place(chunk.terms, apart, awaited), set()).add((chunk.sequence, i))
    parts = ((state.lanes, False), (state.suspects.lanes, False), (state.absentees.lanes, True))
    lanes = {_place(lane.terms, lane.apart, awaited): lane for part, awaited in parts for lane in part}
    for place, jobs in ready.items():
        lane = lanes[place]
        assert lane.count == len(jobs)
        covered = {(s.chunk.sequence, i) for s in lane.spans for i in range(s.start, s.stop)}
        assert jobs <= covered, "a ready job is in no lane"


def _place(terms: Terms, apart: bool, awaited: bool) -> tuple[object, ...]:
    return apart, awaited, terms.queue, terms.priority, terms.task, terms.codec


def _check_outcomes(state: QueueState) -> None:
    for chunk in state.ledger.chunks.values():
        for index in range(chunk.count):
            if chunk.has_ended(index) and not chunk.is_purged(index):
                found = outcome(state, chunk, index)
                assert found is not None, "a finished job has no outcome"
                assert (found.id, found.state) == (chunk.id(index), chunk.state(index))


def _check_known_tasks(state: QueueState) -> None:
    consumers = [each for worker in state.workers.values() for each in worker.consumers.values()]
    for terms in {chunk.terms for chunk in state.ledger.chunks.values()}:
        queue, task = terms.queue, terms.task
        there = [each.subscription for each in consumers if each.connected]
        knows = [each for each in there if queue in each[0] and (each[1] is None or task in each[1])]
        assert state.known_tasks.has(queue, task) == bool(knows), (
            f"who knows {task} of {queue} is out of date"
        )
        accepts = any(terms.codec in codecs if codecs else terms.codec != LARGE for _, _, codecs in knows)
        assert state.known_tasks.accepts(terms) == accepts, f"who accepts {terms} is out of date"


def _check_holders(state: QueueState) -> None:
    page = Page(state, Room())
    held = {
        (lease.chunk.sequence, index): lease.holder
        for lease in state.leases.values()
        for index in range(lease.start, lease.stop)
    }
    for chunk in state.ledger.chunks.values():
        for index in range(chunk.count):
            assert getattr(page.lease_of(chunk, index), "holder", None) is held.get((chunk.sequence, index))
