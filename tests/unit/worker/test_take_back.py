"""When a supervisor takes back the jobs behind a running one, and which."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

import pytest

from svc.domain.commands import Recall
from svc.domain.job import Terms
from svc.domain.replies import Delivery, Extended, TakeBack
from svc.domain.retry import RetryPolicy
from svc.worker.attempt_limits import AttemptLimits
from svc.worker.consumer_process import ConsumerProcess
from svc.worker.patience import ORDER_SECONDS
from svc.worker.slot import Phase, Slot, encoded_names
from svc.worker.stacks import StackReader

CONTEXT = multiprocessing.get_context("spawn")
#: The monotonic time at which the job began.
BEGUN = 100.0
PATIENCE = 0.25


@pytest.fixture
def child() -> Iterator[ConsumerProcess]:
    """A consumer as its supervisor sees it; there is no process behind it."""
    ours, theirs = CONTEXT.Pipe()
    trace, written = CONTEXT.Pipe(duplex=False)
    slot = Slot(CONTEXT)
    process = BaseProcess.__new__(BaseProcess)
    yield ConsumerProcess("w-1", process, slot, ours, StackReader(trace), os.getpid(), loaded=True)
    for end in (ours, theirs, trace, written):
        end.close()


def begin(child: ConsumerProcess, ahead: int = 0, patience: float = 0.0, *, asks: bool = False) -> None:
    delivery = Delivery(7, "origin", 100, Terms("m:f"), [b""] * (ahead + 1))
    limits, names = AttemptLimits(None, None, None), encoded_names(delivery.terms)
    watched = child.slot.begin(delivery, 8, RetryPolicy(4, 0.25), limits, names, True, patience, asks)
    assert watched
    assert child.slot.claim(100, ahead, BEGUN, 0.0, False)


def check(child: ConsumerProcess, seconds: float) -> Recall | None:
    return child.check(BEGUN + seconds, 10.0, 10.0)


def test_jobs_in_hand_go_back_after_20_ms_up_to_the_last_lease_of_the_grant(child):
    begin(child, ahead=3)

    assert check(child, 0.019) is None
    assert check(child, 0.021) == Recall("w-1", 7, 100, 8)


def test_jobs_that_are_on_their_way_go_back_as_long_as_the_job_runs(child):
    begin(child, asks=True)

    assert check(child, 0.021) == Recall("w-1", 7, 100, 8, unread=True)


def test_a_grant_may_say_that_its_jobs_take_longer(child):
    begin(child, ahead=1, patience=PATIENCE, asks=True)

    assert check(child, PATIENCE - 0.001) is None
    assert check(child, PATIENCE + 0.001) is not None


def test_they_go_back_once(child):
    begin(child, ahead=1)
    assert check(child, 0.021) is not None

    assert check(child, 0.022) is None
    assert not child.slot.claim(101, 0, BEGUN + 1, 0.0, False)


def test_a_job_with_nothing_behind_it_is_left_alone(child):
    begin(child)

    assert check(child, 10.0) is None
    assert child.next_check(BEGUN + 10.0) is None


def test_the_supervisor_wakes_up_in_time_to_take_them_back(child):
    begin(child, ahead=1, patience=PATIENCE)
    child.watch(BEGUN, needed=True)
    assert child.next_check(BEGUN) == BEGUN + PATIENCE

    check(child, PATIENCE + 0.001)

    assert child.next_check(BEGUN + PATIENCE) is None


def test_what_was_taken_back_behind_the_last_job_is_told_once(child):
    begin(child, asks=True)
    assert check(child, 0.021) is not None

    assert child.slot.take_recall()
    assert not child.slot.take_recall()


# --- while a consumer elsewhere is idle --------------------------------------------------------------------


def obey(child: ConsumerProcess, seconds: float, order: TakeBack) -> None:
    child.obey(Extended(take_back=[order]), BEGUN + seconds)


def test_an_order_takes_jobs_back_as_soon_as_the_one_that_runs_is_late(child):
    begin(child, ahead=1, patience=PATIENCE)
    obey(child, 0.005, TakeBack("w-1", 8, seconds=0.008, wait=0.01))

    assert check(child, 0.009) is None
    assert check(child, 0.011) == Recall("w-1", 7, 100, 8)


def test_an_order_takes_them_back_at_once_if_that_one_will_not_end_soon(child):
    begin(child, ahead=1, patience=PATIENCE)
    obey(child, 0.001, TakeBack("w-1", 8, seconds=0.1, wait=0.01))

    assert check(child, 0.0015) is not None


def test_an_order_holds_for_the_next_job_of_the_lease(child):
    begin(child, ahead=2, patience=PATIENCE)
    obey(child, 0.005, TakeBack("w-1", 8, seconds=0.008, wait=0.01))
    assert child.slot.claim(101, 1, BEGUN + 0.008, 0.0, False)
    assert check(child, 0.017) is None

    assert check(child, 0.019) == Recall("w-1", 7, 101, 8)


def test_an_order_is_for_no_jobs_that_were_granted_after_it(child):
    begin(child, ahead=1, patience=PATIENCE)
    obey(child, 0.005, TakeBack("w-1", 6, seconds=0.0, wait=0.01))

    assert check(child, 0.010) is None


def test_an_order_is_for_its_consumer_alone(child):
    begin(child, ahead=1, patience=PATIENCE)
    obey(child, 0.005, TakeBack("w-2", 8, seconds=0.0, wait=0.01))

    assert check(child, 0.010) is None


def test_an_order_holds_for_a_moment_only_and_the_same_one_again_not_for_longer(child):
    begin(child, ahead=1, patience=PATIENCE)
    order = TakeBack("w-1", 8, seconds=0.02, wait=0.1)
    obey(child, 0.0, order)
    obey(child, 0.015, order)

    assert check(child, 0.0 + ORDER_SECONDS + 0.003) is None


def test_the_supervisor_wakes_up_in_time_to_obey_also_if_a_job_has_just_ended(child):
    begin(child, ahead=1, patience=PATIENCE)
    child.watch(BEGUN, needed=True)
    obey(child, 0.0, TakeBack("w-1", 8, seconds=0.008, wait=0.01))
    assert child.next_check(BEGUN) == pytest.approx(BEGUN + 0.01)

    child.slot.rest(Phase.IDLE, 0.0, unsent=False)

    assert child.next_check(BEGUN + 0.001) == pytest.approx(BEGUN + 0.005)
    assert child.next_check(BEGUN + ORDER_SECONDS + 0.001) is None
