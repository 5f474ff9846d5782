from __future__ import annotations

import multiprocessing

import pytest

from svc.domain.job import Terms
from svc.domain.replies import Delivery
from svc.domain.retry import RetryPolicy
from svc.worker.attempt_limits import AttemptLimits
from svc.worker.slot import Order, Phase, Slot, SlotState, encoded_names

CONTEXT = multiprocessing.get_context("spawn")


@pytest.fixture
def slot() -> Slot:
    return Slot(CONTEXT)


def begin(
    slot: Slot, token: int = 7, last: int = 8, timeout: float | None = 1.5, watch: bool = False
) -> bool:
    delivery = Delivery(token, "origin", 100, Terms("m:f"), [b""], failures=2)
    limits = AttemptLimits(timeout, 0.75, 1 << 40)
    return slot.begin(delivery, last, RetryPolicy(4, 0.25), limits, encoded_names(delivery.terms), watch)


def test_a_new_slot_is_starting(slot: Slot) -> None:
    look = slot.look()
    assert (look.phase, look.recalled, look.ahead, look.busy) == (Phase.STARTING, False, 0, False)


def test_a_claimed_job_is_seen_with_its_lease_and_policy(slot: Slot) -> None:
    begin(slot)
    assert slot.claim(102, 5, 12.5, 3.25, True)
    look = slot.look()
    assert look.busy
    assert (look.token, look.last, look.number, look.ahead, look.started) == (7, 8, 102, 5, 12.5)
    assert (look.failures, look.retries, look.backoff, look.timeout) == (2, 4, 0.25, 1.5)
    assert (look.busy_seconds, look.unsent) == (3.25, True)
    assert (look.soft_timeout, look.max_rss) == (0.75, 1 << 40)
    assert (look.task, look.queue) == ("m:f", "default")


def test_no_job_executes_between_leases(slot: Slot) -> None:
    """A supervisor must never see the number of one lease with the token of the next."""
    begin(slot)
    slot.claim(102, 5, 12.5, 0.0, False)
    begin(slot, token=8)
    assert not slot.look().busy


def test_a_recall_refuses_the_next_claim_and_that_one_only(slot: Slot) -> None:
    begin(slot)
    slot.claim(100, 3, 1.0, 0.0, False)
    with slot.held() as held:
        assert held
        slot.recall()
    assert slot.look().recalled
    assert not slot.claim(101, 2, 2.0, 0.0, False)
    assert slot.look().number == 100
    assert slot.claim(200, 0, 3.0, 0.0, False)


def test_at_rest_nothing_executes(slot: Slot) -> None:
    begin(slot)
    slot.claim(100, 3, 1.0, 0.0, False)
    slot.rest(Phase.IDLE, 4.5, unsent=True)
    look = slot.look()
    assert (look.busy, look.ahead, look.busy_seconds, look.unsent) == (False, 0, 4.5, True)


def test_a_job_overruns_its_timeout_only_while_it_executes(slot: Slot) -> None:
    begin(slot, timeout=1.5)
    slot.claim(100, 0, 10.0, 0.0, False)
    assert not slot.look().overrun(11.0)
    assert slot.look().overrun(12.0)
    slot.rest(Phase.IDLE, 0.0, unsent=False)
    assert not slot.look().overrun(12.0)


def test_a_job_without_a_timeout_never_overruns(slot: Slot) -> None:
    begin(slot, timeout=None)
    slot.claim(100, 0, 10.0, 0.0, False)
    assert not slot.look().overrun(1e9)


def test_the_supervisor_is_nudged_once_until_it_has_looked_elsewhere(slot: Slot) -> None:
    assert not begin(slot, watch=False)
    assert begin(slot, watch=True)
    assert not begin(slot, watch=True)
    slot.watch(closely=False)
    assert begin(slot, watch=True)
    slot.watch(closely=True)
    assert not begin(slot, watch=True)


def die_holding(slot: Slot) -> None:
    slot.claim(5, 0, 1.0, 0.0, False)
    slot._acquire()


def test_a_process_that_died_with_the_lock_does_not_stop_the_supervisor() -> None:
    slot = Slot(CONTEXT)
    process = CONTEXT.Process(target=die_holding, args=(slot,))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    process.close()
    assert slot.look().number == 5
    with slot.held() as held:
        assert not held


def test_an_order_is_for_one_attempt_alone(slot: Slot) -> None:
    begin(slot)
    slot.claim(100, 1, 1.0, 0.0, False)
    assert slot.current_order() is None
    assert slot.give_order(Order.SOFT_TIMEOUT)
    assert slot.current_order() is Order.SOFT_TIMEOUT
    slot.claim(101, 0, 2.0, 0.0, False)
    assert slot.current_order() is None
    begin(slot, token=9)
    slot.claim(100, 0, 3.0, 0.0, False)
    assert slot.current_order() is None


def test_an_order_is_obeyed_once_and_only_a_stronger_one_replaces_it(slot: Slot) -> None:
    begin(slot)
    slot.claim(100, 0, 1.0, 0.0, False)
    assert slot.give_order(Order.SOFT_TIMEOUT)
    assert slot.give_order(Order.SOFT_TIMEOUT)
    slot.note_raised()
    assert slot.raised(7, 100) is Order.SOFT_TIMEOUT
    assert (slot.current_order(), slot.give_order(Order.SOFT_TIMEOUT)) == (None, False)
    assert slot.give_order(Order.CANCEL)
    assert (slot.current_order(), slot.raised(7, 100)) == (Order.CANCEL, None)
    slot.note_raised()
    assert (slot.give_order(Order.SOFT_TIMEOUT), slot.give_order(Order.CANCEL)) == (False, False)
    assert (slot.raised(7, 100), slot.raised(7, 101)) == (Order.CANCEL, None)


@pytest.mark.parametrize(
    ("place", "junk"),
    [(0, b"\xff"), (0, b"\xff" * 136), (24, b"\xff" * 8), (138, b"\xff"), (0, b"\xff" * 2000)],
)
def test_a_slot_with_junk_in_it_is_damaged_and_shows_no_job(slot: Slot, place: int, junk: bytes) -> None:
    begin(slot)
    slot.claim(100, 0, 1.0, 0.0, False)
    slot._memory.view[place : place + len(junk)] = junk
    assert slot.look() == SlotState(Phase.DAMAGED)


def test_damage_is_still_seen_when_the_next_job_has_begun(slot: Slot) -> None:
    slot._memory.view[:2000] = b"\xff" * 2000
    begin(slot)
    slot.share(100, 1.0, 0.0, Phase.BUSY)
    assert slot.look().phase is Phase.DAMAGED
