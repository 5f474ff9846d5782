"""Who asks about jobs looks at the leases of their chunks alone; reports about them are bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from svc.domain import commands as c
from svc.domain import leases
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.job import NewChunk, Terms
from svc.domain.leases import TOLD_OVERHEAD_BYTES
from svc.domain.members import LeaseRecord, Member
from svc.domain.queue_state import QueueState
from tests.support.state_checks import check_state
from tests.support.work import instructions_of

FEW, MANY = 20, 1000


def leased(others: int) -> QueueState:
    """Lease four jobs of one chunk, one by one, and *others* that are each a chunk of their own."""
    state = QueueState()
    apply(state, c.Submit("mine", [NewChunk(0, Terms("m:f"), [b""] * 4)]), Member(), 1.0)
    apply(state, c.Submit("o", [NewChunk(2 * n, Terms("m:f"), [b""]) for n in range(others)]), Member(), 1.0)
    consumer = Member()
    apply(state, c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]), consumer, 1.0)
    for _ in range(4 + others):
        grant = apply(state, c.Lease(1), consumer, 2.0)
        assert isinstance(grant, r.Grant)
        assert len(grant.deliveries) == 1
    assert len(state.leases) == 4 + others
    check_state(state)
    return state


def cancel(state: QueueState) -> None:
    assert apply(state, c.Cancel(["mine-1", "mine-2"], running=True), Member(), 3.0) == r.Done(2)


def ask_progress(state: QueueState) -> None:
    assert apply(state, c.AskProgress(["mine-1"]), Member(), 3.0) == r.ProgressReports([None])


def describe(state: QueueState) -> None:
    views = apply(state, c.Get(["mine-1"]), Member(), 3.0)
    assert isinstance(views, r.Views)
    assert views.jobs[0].consumer == "w-1"


@pytest.mark.parametrize("ask", [cancel, ask_progress, describe])
def test_a_question_about_a_job_is_no_more_work_beside_a_thousand_leases(ask: Callable[[QueueState], None]):
    few, many = leased(FEW), leased(MANY)
    ask(leased(FEW))  # what is imported or kept at the first call
    assert instructions_of(lambda: ask(many)) <= 1.1 * instructions_of(lambda: ask(few))
    check_state(many)


def test_leases_of_a_chunk_are_found_in_the_order_of_their_jobs_while_some_end():
    state = leased(FEW)
    (chunk,) = (chunk for chunk in state.ledger.chunks.values() if chunk.count == 4)
    assert [lease.start for lease in state.leases.of(chunk)] == [0, 1, 2, 3]
    for start, left in ((1, [0, 2, 3]), (3, [0, 2]), (0, [2]), (2, [])):
        (lease,) = (lease for lease in state.leases.of(chunk) if lease.start == start)
        ack = c.Ack(lease.token, start, [b""], [0.0])
        assert apply(state, ack, lease.holder, 3.0) == r.Done(1)
        assert [lease.start for lease in state.leases.of(chunk)] == left
        assert lease.older is lease.newer is None
    check_state(state)


# --- reports of progress -----------------------------------------------------------------------------------


def tell(state: QueueState, lease: LeaseRecord, index: int, note: str = "") -> r.Reply | None:
    report = c.JobProgress(lease.token, lease.chunk.first + index, 0.5, 1.0, note)
    return apply(state, c.TellProgress([report]), lease.holder, 3.0)


def test_reports_are_kept_up_to_a_bound_over_all_leases_and_make_room_when_their_lease_ends(monkeypatch):
    note = "x" * 100
    size = TOLD_OVERHEAD_BYTES + 4 * len(note)
    monkeypatch.setattr(leases, "TOLD_BYTES_MAX", 3 * size)
    state = leased(FEW)
    held = list(state.leases.values())
    assert [tell(state, lease, lease.start, note) for lease in held[:5]] == [r.Done(1)] * 5
    assert [bool(lease.progress) for lease in held[:5]] == [True, True, True, False, False]
    assert tell(state, held[0], held[0].start, note) == r.Done(1)  # the report before makes room for it
    assert state.leases.told_bytes == 3 * size
    ack = c.Ack(held[1].token, held[1].chunk.first + held[1].start, [b""], [0.0])
    assert apply(state, ack, held[1].holder, 3.0) == r.Done(1)
    assert state.leases.told_bytes == 2 * size
    assert tell(state, held[4], held[4].start) == r.Done(1)
    assert held[4].progress


def test_the_reports_of_jobs_that_have_ended_go_before_there_are_more_than_jobs():
    state = QueueState()
    apply(state, c.Submit("mine", [NewChunk(0, Terms("m:f"), [b""] * 4)]), Member(), 1.0)
    member = Member("plain")
    apply(state, c.Lease(4), member, 1.0)
    (lease,) = state.leases.values()
    for index in range(4):
        assert tell(state, lease, index, "half") == r.Done(1)
        assert lease.progress is not None
        assert index in lease.progress
        assert len(lease.progress) <= max(2, lease.stop - lease.start)
        assert state.leases.told_bytes == len(lease.progress) * (TOLD_OVERHEAD_BYTES + 16)
        assert apply(state, c.Ack(lease.token, index, [b""], [0.0]), member, 3.0) == r.Done(1)
    assert state.leases.told_bytes == 0
