"""The cost of requests with very many priorities, tasks, queues and consumers: no look at each of them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import survey
from svc.domain.apply import apply
from svc.domain.job import ITEM, RESULTS_QUEUE, NewChunk, Terms
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.survey import UNKNOWN_NAMES_MAX
from tests.support.queue_states import consumer, submit
from tests.support.state_checks import check_state
from tests.support.work import instructions_of

#: Enough for two leases of 256 jobs.
FEW_LANES = 600
MANY_LANES = 6_000
FEW, MANY = 100, 1_000


def lease_256(state: QueueState, member: Member) -> None:
    grant = apply(state, c.Lease(256), member, 2.0)
    assert isinstance(grant, r.Grant)
    assert grant.deliveries


def of_many_priorities(count: int) -> Callable[[], object]:
    state = QueueState()
    submit(state, [Terms("m:f", priority=priority) for priority in range(count)])
    member = consumer(state)
    return lambda: lease_256(state, member)


def of_many_tasks(count: int) -> Callable[[], object]:
    state = QueueState()
    tasks = [f"m:f{number}" for number in range(count)]
    submit(state, [Terms(task) for task in tasks])
    member = consumer(state, tasks=tasks)
    return lambda: lease_256(state, member)


def of_many_queues(count: int) -> Callable[[], object]:
    state = QueueState()
    queues = [f"q{number}" for number in range(count)]
    submit(state, [Terms("m:f", queue=queue) for queue in queues])
    member = consumer(state, queues=queues)
    return lambda: lease_256(state, member)


def beside_many_other_queues(count: int) -> Callable[[], object]:
    state = QueueState()
    mine = [Terms("m:f", priority=number) for number in range(FEW_LANES)]
    submit(state, [*mine, *(Terms("m:f", queue=f"q{number}") for number in range(count))])
    member = consumer(state)
    return lambda: lease_256(state, member)


def for_a_plain_client(count: int) -> Callable[[], object]:
    state = QueueState()
    submit(state, [Terms(f"m:f{number}", priority=number) for number in range(count)])
    member = Member("plain")
    return lambda: lease_256(state, member)


def of_what_was_put_into_results(count: int) -> Callable[[], object]:
    state = QueueState()
    item = [Terms(ITEM, queue=RESULTS_QUEUE, codec="item", priority=number) for number in range(count)]
    submit(state, item, inside=True)
    others = [Terms("m:f", priority=number) for number in range(count)]
    assert apply(state, c.Submit("p", [NewChunk(i, t, [b"x"]) for i, t in enumerate(others)]), Member(), 1.0)
    member = Member("plain", inside=True)

    def take() -> None:
        for _ in range(256):
            assert isinstance(apply(state, c.Take(0.0), member, 2.0), r.Outcomes)

    return take


@pytest.mark.parametrize(
    "lease",
    [
        of_many_priorities,
        of_many_tasks,
        of_many_queues,
        beside_many_other_queues,
        for_a_plain_client,
        of_what_was_put_into_results,
    ],
)
def test_a_lease_is_hardly_more_work_with_many_lanes(lease: Callable[[int], Callable[[], object]]):
    few, many = lease(FEW_LANES), lease(MANY_LANES)
    few(), many()  # the first lease of a kind puts the lanes in order

    assert instructions_of(many) < 1.5 * instructions_of(few)


@pytest.mark.parametrize("jobs_of_each", [1, 2])
def test_a_kind_of_consumer_that_asks_late_does_not_look_at_all_that_others_have_taken(jobs_of_each: int):
    """Another one has taken the oldest job of each task, and perhaps there is a second."""
    state = QueueState()
    tasks = [f"m:f{number}" for number in range(MANY_LANES)]
    submit(state, [Terms(task) for _ in range(jobs_of_each) for task in tasks])
    submit(state, [Terms("m:last")], origin="p")
    late = consumer(state, tasks=[*tasks, "m:last"])
    assert state.lanes.best(late.subscription)
    for number in range(-(-MANY_LANES // 256)):
        lease_256(state, consumer(state, tasks=tasks, name=f"busy-{number}"))

    assert instructions_of(lambda: apply(state, c.Lease(1), late, 2.0)) < 40 * MANY_LANES


def test_a_job_that_is_given_back_again_and_again_makes_no_later_choice_more_work():
    """Each time, its lane moves forward in the index, and leaves its old place there."""
    state = QueueState()
    submit(state, [Terms("m:f", priority=priority) for priority in range(MANY_LANES)])
    first = Terms("m:f", priority=MANY_LANES)
    submit(state, [first, Terms("m:g")] * 20, origin="p")
    member = consumer(state)

    def lease() -> None:
        assert isinstance(apply(state, c.Lease(1), member, 2.0), r.Grant)

    lease()
    fresh = instructions_of(lease)
    for _ in range(300):
        lease()
        assert state.lanes.best(member.subscription)
        token = next(reversed(member.leases))
        assert apply(state, c.Release(token, member.leases[token].start), member, 2.0) == r.Done(1)

    for _ in range(3):
        lease()  # one of them meets all the old places, once

    assert max(instructions_of(lease) for _ in range(10)) < 2 * fresh


def stats_with_many_queues(count: int) -> Callable[[], object]:
    state = QueueState()
    submit(state, [Terms("m:f", queue=f"q{number}") for number in range(count)])
    return lambda: apply(state, c.Stats(), Member(), 3.0)


def stats_with_many_leases(count: int) -> Callable[[], object]:
    state = QueueState()
    queues = [f"q{number}" for number in range(count)]
    submit(state, [Terms("m:f", queue=queue) for queue in queues])
    member = consumer(state, queues=queues)
    for _ in range(count):
        apply(state, c.Lease(1), member, 2.0)
    return lambda: apply(state, c.Stats(), Member(), 3.0)


def stats_with_many_consumers(count: int) -> Callable[[], object]:
    state = QueueState()
    queues = [f"q{number}" for number in range(count)]
    submit(state, [Terms("m:g", queue=queue) for queue in queues])
    for number in range(count):
        consumer(state, queues=queues[:5], name=f"w-{number}")
    return lambda: apply(state, c.Stats(), Member(), 3.0)


def views_of_many_leased(count: int) -> Callable[[], object]:
    state = QueueState()
    submit(state, [Terms("m:f", priority=number) for number in range(count)])
    member = consumer(state)
    for _ in range(count):
        apply(state, c.Lease(1), member, 2.0)
    return lambda: apply(state, c.List(limit=count), Member(), 3.0)


def reasons_of_many_waiting(count: int) -> Callable[[], object]:
    state = QueueState()
    submit(state, [Terms("m:g") for _ in range(count)])
    for number in range(count):
        consumer(state, name=f"w-{number}")
    return lambda: apply(state, c.List(limit=count), Member(), 3.0)


def strict_submits_to_many_consumers(count: int) -> Callable[[], object]:
    state = QueueState()
    for number in range(count):
        consumer(state, name=f"w-{number}")
    chunks = [NewChunk(number, Terms("m:g"), [b"x"]) for number in range(count)]
    return lambda: apply(state, c.Submit("o", chunks, strict=True), Member(), 3.0)


def roster_of_many_that_know_many_tasks(count: int) -> Callable[[], object]:
    state = QueueState()
    tasks = [f"m:f{number}" for number in range(count)]
    for number in range(count):
        consumer(state, tasks=tasks, name=f"w-{number}")
    return lambda: apply(state, c.Members(), Member(), 3.0)


@pytest.mark.parametrize(
    "request_of",
    [
        stats_with_many_queues,
        stats_with_many_leases,
        stats_with_many_consumers,
        views_of_many_leased,
        reasons_of_many_waiting,
        strict_submits_to_many_consumers,
        roster_of_many_that_know_many_tasks,
    ],
)
def test_what_is_said_of_many_is_work_in_proportion(request_of: Callable[[int], Callable[[], object]]):
    few, many = request_of(FEW), request_of(MANY)

    assert instructions_of(many) < 1.5 * MANY / FEW * instructions_of(few)


def test_stats_tell_of_each_queue_its_own_oldest_job_attempt_and_unknown_tasks():
    state = QueueState()
    first = [Terms("m:f", queue="a", priority=1), Terms("m:f", queue="a"), Terms("m:g", queue="b")]
    submit(state, first)
    later = [NewChunk(10, Terms("m:h", queue="b"), [b"x"]), NewChunk(11, Terms("m:f", queue="c"), [b"x"])]
    apply(state, c.Submit("o", later), Member(), 5.0)
    member = consumer(state, queues=["a", "c"])
    apply(state, c.Lease(1), member, 8.0)

    totals = apply(state, c.Stats(), Member(), 10.0)

    assert isinstance(totals, r.Totals)
    assert [(q.name, q.ready, q.oldest, q.oldest_running, q.unknown) for q in totals.queues] == [
        ("a", 1, 9.0, 2.0, []),
        ("b", 2, 9.0, 0.0, ["m:g", "m:h"]),
        ("c", 1, 5.0, 0.0, []),
    ]
    check_state(state)


def test_stats_name_a_bounded_number_of_unknown_tasks_and_count_all():
    state = QueueState()
    submit(state, [Terms(f"m:f{number:04}") for number in range(MANY)])

    totals = apply(state, c.Stats(), Member(), 10.0)

    assert isinstance(totals, r.Totals)
    assert totals.queues[0].unknown_tasks == MANY
    assert totals.queues[0].unknown == [f"m:f{number:04}" for number in range(UNKNOWN_NAMES_MAX)]


def test_the_names_in_the_answer_to_stats_are_bounded_over_all_queues(monkeypatch: pytest.MonkeyPatch):
    """1,500 queues with 100 long names each made an answer that no message holds: `svc status` failed."""
    monkeypatch.setattr(survey, "UNKNOWN_NAMES_BYTES", 10_000)
    state = QueueState()
    wide = "\N{GRINNING FACE}" * 50
    submit(state, [Terms(f"{wide}{n}", queue=f"q{n % 40}", codec=f"{wide}{n % 9}") for n in range(200)])

    totals = apply(state, c.Stats(), Member(), 10.0)

    assert isinstance(totals, r.Totals)
    assert len(msgspec.msgpack.encode(totals)) < 10_000 + 40 * 100
    assert [each.unknown_tasks for each in totals.queues] == [5] * 40
    assert len(totals.queues[0].unknown) == 5


def test_consumers_of_one_kind_share_their_sets_of_names():
    state = QueueState()
    tasks = [f"m:f{number}" for number in range(FEW)]
    first, second = (consumer(state, tasks=tasks, name=f"w-{number}").subscription for number in range(2))
    other = consumer(state, tasks=tasks[1:], name="w-3").subscription

    assert first[1] is not None
    assert first[1] is second[1]
    assert first[0] is second[0]
    assert other[1] == first[1].difference(tasks[:1])
