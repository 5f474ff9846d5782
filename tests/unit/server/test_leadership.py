"""The rules of the lead, step by step; tests/property/test_leadership.py runs them with faults."""

from __future__ import annotations

from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.leadership import (
    Holding,
    Leadership,
    Look,
    Position,
    Prove,
    Wait,
    Write,
)

T = Timing()
ME = Holding("me", ("a:7077",))
FREE = Holding("me", ("a:7077",), free=True)
OTHER = Holding("other", ("b:7077",), term=3)


def standby(now: float = 0.0) -> Leadership:
    return Leadership("me", ("a:7077",), now=now)


def leader(now: float = 0.0) -> Leadership:
    """A manager that took a key that was free, by a write that began at *now*."""
    made = standby(now)
    made.proved(now)
    made.seen(Holding("other", (), 3, free=True), 7, now)
    assert isinstance(made.next(now), Write)
    made.written(ME, 8, now, now)
    return made


def steady(until: float) -> Leadership:
    """A standby that has written without a gap, and has seen a leader."""
    made = standby()
    now = 0.0
    while now <= until:
        made.proved(now)
        made.seen(OTHER, 1, now)
        now += T.renew_every
    return made


def test_a_standby_writes_its_own_key_and_looks_in_turn():
    made = standby()

    assert made.next(0) == Prove()
    made.proved(0)
    assert made.next(0) == Look()
    made.seen(OTHER, 4, 0)
    assert made.next(0) == Wait(T.look_every)
    assert made.next(T.look_every) == Look()
    assert made.next(T.renew_every) == Prove()


def test_a_key_that_is_gone_is_taken_at_once_if_the_bucket_had_no_fault():
    made = steady(T.steady)

    made.seen(None, 0, T.steady + 0.1)

    assert made.next(T.steady + 0.1) == Write(ME, 0)


def test_after_a_fault_of_the_bucket_a_key_that_is_gone_is_left_to_its_leader_for_a_ttl():
    made = steady(T.steady)
    back = T.steady + T.gap + 1
    made.failed(back - 0.5)
    made.proved(back)

    made.seen(None, 0, back)
    assert isinstance(made.next(back), Wait)

    now = back
    while now < back + T.steady:
        made.proved(now)
        made.seen(None, 0, now)
        assert not isinstance(made.next(now), Write)
        now += T.renew_every
    made.proved(now)
    made.seen(None, 0, now)
    assert isinstance(made.next(now), Write)


def test_one_lost_answer_of_a_standby_is_no_fault_of_the_bucket():
    made = steady(T.steady)
    made.failed(T.steady + T.renew_every + T.answer_within)
    made.proved(T.steady + T.renew_every + T.answer_within + T.retry_after)

    made.seen(None, 0, T.steady + 1.2)

    assert isinstance(made.next(T.steady + 1.2), Write)


def test_a_free_key_is_taken_at_once_even_by_a_standby_that_has_just_come():
    made = standby()
    made.proved(0)

    made.seen(Holding("other", (), 3, free=True), 9, 0.1)

    assert made.next(0.1) == Write(ME, 9)


def test_a_free_key_is_left_to_others_by_a_standby_that_has_not_caught_up():
    made = steady(T.steady)
    made.caught_up = False
    now = T.steady + 0.1
    free = Holding("other", (), 3, free=True)
    made.seen(free, 9, now)
    assert isinstance(made.next(now), Wait)
    now += T.look_every
    assert made.next(now) == Look()
    made.seen(free, 9, now)

    made.caught_up = True
    now += T.look_every
    assert made.next(now) == Look()
    made.seen(free, 9, now)
    assert made.next(now) == Write(ME, 9)


def test_a_key_that_is_gone_is_taken_also_by_a_standby_that_has_not_caught_up():
    made = steady(T.steady)
    made.caught_up = False

    made.seen(None, 0, T.steady + 0.1)

    assert made.next(T.steady + 0.1) == Write(ME, 0)


def test_a_leader_renews_with_the_revision_of_its_last_write():
    made = leader(10.0)

    assert made.next(10.0) == Wait(T.renew_every)
    assert made.next(10.0 + T.renew_every) == Write(ME, 8)


def test_a_leader_is_valid_from_the_start_of_its_renewal_and_not_from_its_answer():
    made = leader()
    made.written(ME, 9, started=1.0, now=1.4)

    assert made.valid(1.0 + T.ttl - T.margin - 0.01)
    assert not made.valid(1.0 + T.ttl - T.margin)


def test_an_append_keeps_a_leader_valid_from_its_beginning_on():
    made = leader()

    made.stored(2.0)

    assert made.valid(2.0 + T.silence - T.margin - 0.01)
    assert not made.valid(2.0 + T.silence - T.margin)


def test_an_append_that_is_older_than_the_renewal_takes_nothing_from_it():
    made = leader(1.0)

    made.stored(1.0 - T.renew_every)

    assert made.valid_until == 1.0 + T.ttl - T.margin


def test_the_log_alone_keeps_a_leader_valid_for_a_time_that_is_longer_than_an_election():
    made = leader()
    end = T.log_within - T.margin
    assert end > 9

    made.stored(end - 0.01)

    assert made.valid(end - 0.01)
    made.stored(end + 5)
    assert not made.valid(end + 5)


def test_an_append_makes_no_standby_valid():
    made = standby()

    made.stored(0.0)

    assert not made.valid(0.0)
    assert not made.must_append(0.0)


def test_a_leader_without_a_renewal_or_an_append_must_append_until_the_log_is_not_enough():
    made = leader()

    assert not made.must_append(T.append_after / 2)
    assert made.must_append(T.append_after)
    made.stored(T.append_after)
    assert not made.must_append(T.append_after)
    assert made.must_append(2 * T.append_after)
    assert not made.must_append(T.log_within)
    made.release(2 * T.append_after)
    assert not made.must_append(3 * T.append_after)


def test_a_leader_that_fails_again_and_again_appends_often_enough_to_stay_valid():
    slowest = T.answer_within + T.retry_after + T.append_after

    assert 2 * slowest <= T.silence - T.margin


def test_who_took_a_free_key_has_a_predecessor_that_serves_no_more():
    assert leader().took_free
    made = steady(T.steady)
    made.seen(None, 0, T.steady + 0.1)

    made.written(ME, 9, T.steady + 0.1, T.steady + 0.1)

    assert made.leads
    assert not made.took_free


def test_a_key_that_was_freed_before_a_term_began_is_no_proof_that_nobody_serves():
    made = standby()
    made.proved(0)
    made.seen(Holding("other", (), term=0, free=True), 7, 0)

    made.written(ME, 8, 0, 0)

    assert made.leads
    assert not made.took_free


def test_a_leader_that_was_not_valid_goes_on_after_a_renewal():
    made = leader()
    made.failed(0.6)
    assert not made.valid(5)
    assert made.next(5) == Look()

    made.seen(ME, 8, 5)
    assert made.next(5) == Write(ME, 8)
    made.written(ME, 9, 5, 5.1)

    assert made.valid(5.1)


def test_a_leader_writes_a_key_that_has_vanished_again():
    made = leader()
    made.failed(6)
    made.seen(None, 0, 7)

    assert made.next(7) == Write(ME, 0)


def test_a_leader_knows_that_nobody_had_its_key_since_its_append_unless_the_key_had_vanished():
    made = leader()
    assert not made.kept_since_append()
    made.stored(1)
    made.seen(ME, 8, 2)
    made.written(ME, 9, 2, 2)
    assert made.kept_since_append()

    made.failed(6)
    made.seen(None, 0, 7)
    made.written(ME, 20, 7, 7)
    assert not made.kept_since_append()
    made.stored(8)
    assert made.kept_since_append()


def test_a_leader_whose_key_another_has_taken_is_a_standby():
    made = leader()
    made.refused(1)
    assert made.next(1) == Look()

    made.seen(OTHER, 20, 1)

    assert made.position is Position.STANDBY
    assert not made.valid(1)
    assert made.next(1) == Prove()


def test_a_write_without_an_answer_makes_no_leader_until_another_one_is_answered():
    made = steady(T.steady)
    now = T.steady + 0.1
    made.seen(None, 0, now)
    assert isinstance(made.next(now), Write)
    made.failed(now + 0.5)
    now += 0.6
    made.proved(now)
    assert made.next(now) == Look()

    made.seen(ME, 5, now)

    assert made.position is Position.STANDBY
    assert made.next(now) == Write(ME, 5)


def test_the_key_gets_the_term_at_once():
    made = leader()

    made.name_term(4, 0.2)

    assert made.next(0.2) == Write(Holding("me", ("a:7077",), 4), 8)


def test_a_later_takeover_begins_without_a_term():
    made = leader()
    made.name_term(4, 0.2)
    made.refused(1)
    made.seen(Holding("other", (), 5, free=True), 30, 1)
    made.proved(1)
    made.seen(Holding("other", (), 5, free=True), 30, 1)

    assert made.next(1) == Write(ME, 30)
    made.written(ME, 31, 1, 1)
    assert made.next(1 + T.renew_every) == Write(ME, 31)


def test_a_leader_that_hands_over_is_not_valid_and_marks_the_key_as_free():
    made = leader()

    made.release(0.1)

    assert not made.valid(0.1)
    assert made.next(0.1) == Write(FREE, 8)
    made.written(FREE, 9, 0.1, 0.2)
    assert made.position is Position.STANDBY


def test_a_renewal_that_was_under_way_is_no_release():
    made = leader()
    made.release(0.6)

    made.written(ME, 9, 0.5, 0.7)

    assert made.position is Position.RELEASING
    assert made.next(0.7) == Write(FREE, 9)


def test_a_release_without_an_answer_is_tried_again_and_given_up_after_a_ttl():
    made = leader()
    made.release(0.1)
    made.failed(0.6)
    assert isinstance(made.next(0.6), Wait)
    assert made.next(0.8) == Look()
    made.seen(ME, 8, 0.8)
    assert isinstance(made.next(0.8), Write)
    made.failed(1.3)

    made.next(0.1 + T.release_within)

    assert made.position is Position.STANDBY


def test_a_release_that_was_kept_without_an_answer_ends_at_the_look_after_it():
    made = leader()
    made.release(0.1)
    made.failed(0.6)

    made.seen(FREE, 9, 0.8)

    assert made.position is Position.STANDBY


def test_who_has_handed_over_takes_the_key_again_only_after_nobody_else_did():
    made = leader()
    made.release(0.1)
    made.written(FREE, 9, 0.1, 0.1)
    now = 0.1
    while now < 0.1 + T.held_back:
        made.proved(now)
        made.seen(FREE if now < 3 else None, 9 if now < 3 else 0, now)
        assert not isinstance(made.next(now), Write)
        now += T.renew_every
    made.proved(now)
    made.seen(None, 0, now)

    assert isinstance(made.next(now), Write)
