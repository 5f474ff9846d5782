"""A purge goes on until all jobs that match are gone, however its parts fall."""

from __future__ import annotations

import pytest

from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import purge as purge_module
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from tests.support.state_checks import check_journal, check_state

JOBS = 60
ERROR = ErrorInfo("ValueError", "no")


@pytest.mark.parametrize("work", [1, 150, 777, 1000, 2345, 9999, 100_000])
@pytest.mark.parametrize("dead_every", [1, 2, 7, JOBS + 1])
@pytest.mark.parametrize("command", [c.Purge(every=True), c.Purge(states=["dead"]), c.Purge(older=5.0)])
def test_all_jobs_that_match_go_in_parts_of_any_size(monkeypatch, work, dead_every, command):
    monkeypatch.setattr(purge_module, "PART_WORK", work)
    journal = MemoryJournal()
    state = QueueState(read=journal.read)
    for origin in ("a", "b"):
        new = NewChunk(0, Terms("m:f"), [b"x"] * JOBS)
        assert apply(state, c.Submit(origin, [new]), Member(), 1.0) == r.Accepted()
    plain = Member("plain")
    while True:
        grant = apply(state, c.Lease(16), plain, 2.0)
        assert isinstance(grant, r.Grant)
        if not grant.deliveries:
            break
        for each in grant.deliveries:
            for number in range(each.first, each.first + len(each.bodies)):
                died = number % dead_every == 0
                ended = (
                    c.Nack(each.token, number, ERROR) if died else c.Ack(each.token, number, [b"r"], [0.1])
                )
                assert apply(state, ended, plain, 2.0) == r.Done(1)
        journal.append(*state.take_events())
    dead = 2 * len(range(0, JOBS, dead_every))
    expected = dead if command.states else 2 * JOBS

    count = 0
    after: int | None = 0
    while after is not None:
        part = c.Purge(states=command.states, older=command.older, every=command.every, after=after)
        done = apply(state, part, Member(), 10.0)
        assert isinstance(done, r.Done)
        count, after = count + done.count, done.more
        journal.append(*state.take_events())
        check_state(state)
        check_journal(state, journal)

    assert count == expected
    assert sum(chunk.known for chunk in state.ledger.chunks.values()) == 2 * JOBS - expected
