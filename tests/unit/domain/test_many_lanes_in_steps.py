"""Indexes and counts of very many lanes, which are made over several turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import survey
from svc.domain.apply import apply
from svc.domain.job import Terms
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.survey import UNKNOWN_NAMES_MAX
from svc.domain.tables import SPLIT
from tests.support.queue_states import consumer, submit
from tests.support.state_checks import check_state
from tests.support.work import instructions_of

#: Of very many lanes, in these tests.
AT_ONCE = 100
LANES = 10 * AT_ONCE + 7


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc.domain.scheduling.indexes.INDEXED_AT_ONCE", AT_ONCE)
    monkeypatch.setattr("svc.domain.scheduling.lanes.INDEXED_AT_ONCE", AT_ONCE)
    monkeypatch.setattr("svc.domain.scheduling.lanes._CORRECTED_SIZE", 8 * AT_ONCE)


def granted(state: QueueState, member: Member) -> list[int]:
    """Return the priorities of the jobs that a member gets now."""
    grant = apply(state, c.Lease(1), member, 2.0)
    assert isinstance(grant, r.Grant)
    return [each.terms.priority for each in grant.deliveries]


@pytest.mark.usefixtures("small_steps")
def test_an_index_of_very_many_lanes_is_made_in_steps_while_others_come_and_go():
    state, member, plain = QueueState(), Member("plain"), Member("plain")
    plain.subscription = (frozenset(("default", "other")), None, None)
    submit(state, [Terms("m:f", priority=priority) for priority in range(LANES)])
    assert granted(state, member) == []
    steps = 0
    while state.lanes.go_on():
        steps += 1
        if steps == 3:
            submit(state, [Terms("m:f", priority=LANES), Terms("m:f", priority=-1)], origin="new")
        elif steps == 5:
            assert apply(state, c.Cancel([f"o-{LANES - 1}"]), Member(), 1.0) == r.Done(1)

    assert steps > LANES // AT_ONCE
    left = [LANES, *range(LANES - 2, -2, -1)]
    assert [priority for _ in left for priority in granted(state, member)] == left
    check_state(state)


@pytest.mark.usefixtures("small_steps")
def test_a_kind_whose_lanes_others_have_emptied_asks_again_a_step_at_a_time():
    state, member, late = QueueState(), Member("plain"), Member("plain")
    late.subscription = (frozenset(("default", "other")), None, None)
    submit(state, [Terms("m:f", priority=priority) for priority in range(LANES)])
    for each in (member, late):
        assert granted(state, each) == []
        while state.lanes.go_on():
            pass
    taken = [priority for _ in range(8 * AT_ONCE) for priority in granted(state, member)]
    assert granted(state, late) == []
    work = instructions_of(lambda: granted(state, late))
    while state.lanes.unfinished:
        work = max(work, instructions_of(state.lanes.go_on))

    assert granted(state, late) == [taken[-1] - 1]
    assert work < 20 * AT_ONCE * 20
    check_state(state)


def test_the_lanes_of_one_queue_are_surveyed_in_steps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(survey, "LANES_AT_ONCE", AT_ONCE)
    state = QueueState()
    submit(state, [Terms("m:f", priority=priority) for priority in range(LANES)])
    begun, steps = survey.Survey(state, 11.0), 1
    while begun.advance(1):
        steps += 1

    assert steps > LANES // AT_ONCE
    assert {each.name: each.oldest for each in begun.queues}["default"] == 10.0


# --- counts that are taken over several turns -------------------------------------------------------------

#: Tasks, codecs or leases, in these tests.
COUNTED = 20_000


def of_a_task_each(number: int) -> Terms:
    return Terms(f"m:f{number}")


def of_a_codec_each(number: int) -> Terms:
    return Terms("m:f", codec=f"c{number}")


def of_a_task_in_two_codecs(number: int) -> Terms:
    return Terms(f"m:f{number // 2}", codec=f"c{number % 2}")


def surveyed(state: QueueState) -> tuple[r.QueueStats, int]:
    """Return the counts of the only queue, and the number of steps that they took."""
    begun, steps = survey.Survey(state, 11.0), 1
    while begun.advance(1):
        steps += 1
    (found,) = begun.queues
    return found, steps


@pytest.mark.parametrize(
    ("terms_of", "unknown"),
    [(of_a_task_each, COUNTED), (of_a_codec_each, 1), (of_a_task_in_two_codecs, COUNTED // 2)],
)
def test_tasks_that_nobody_knows_are_counted_in_steps(terms_of: Callable[[int], Terms], unknown: int):
    """300,000 tasks of one queue took 71 ms of one turn."""
    state = QueueState()
    for start in range(0, COUNTED, 1000):
        submit(state, [terms_of(n) for n in range(start, start + 1000)], origin=f"o{start}")
    consumer(state, tasks=["m:other"])

    found, steps = surveyed(state)

    assert (found.unknown_tasks, found.unaccepted) == (unknown, [])
    assert steps > 2 * COUNTED // survey.LANES_AT_ONCE


def test_codecs_that_nobody_accepts_are_counted_in_steps():
    state = QueueState()
    for start in range(0, COUNTED, 1000):
        submit(state, [of_a_codec_each(n) for n in range(start, start + 1000)], origin=f"o{start}")
    member = Member()
    hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"], accept=["c7", "plain"])
    assert isinstance(apply(state, hello, member, 1.0), r.Welcome)

    found, steps = surveyed(state)

    assert found.unknown_tasks == 0
    assert len(found.unaccepted) == UNKNOWN_NAMES_MAX
    assert "c7" not in found.unaccepted
    assert steps > 2 * COUNTED // survey.LANES_AT_ONCE


def test_leases_are_looked_at_in_steps():
    state = QueueState()
    for start in range(0, COUNTED, 1000):
        submit(state, [Terms("m:f")] * 1000, origin=f"o{start}")
    for _ in range(COUNTED // 1000):
        member = Member("plain")
        for _ in range(1000):
            assert isinstance(apply(state, c.Lease(1), member, 2.0), r.Grant)
    assert len(state.leases) == COUNTED

    found, steps = surveyed(state)

    assert found.oldest_running == 9.0
    assert steps > COUNTED // SPLIT
