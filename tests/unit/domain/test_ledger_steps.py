"""A step that the table of states does not have is refused before anything of it is durable."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain import replay as replay_module
from svc.domain.apply import apply
from svc.domain.enrolment import recover
from svc.domain.events import Failed, JobsCancelled, Range, Requeued, Submitted, Succeeded
from svc.domain.job import Cause, ErrorInfo, NewChunk, Terms
from svc.domain.job_states import Counts
from svc.domain.ledger import Ledger
from svc.domain.lifecycle import (
    FINISHED,
    LIVE_STEPS,
    REPLAYED_STEPS,
    TRANSITIONS,
    WAITING,
    InvariantBroken,
    JobState,
    Verb,
)
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.replay import replay

ERROR = ErrorInfo("ValueError", "no")
SUBMITTED = Submitted(1.0, "o", 0, Terms("m:f"), [b"x"] * 4)


def state_with_jobs(count: int = 4) -> QueueState:
    state = QueueState()
    apply(state, c.Submit("o", [NewChunk(0, Terms("m:f"), [b"x"] * count)]), Member(), 1.0)
    return state


def leads(table, verb):
    return {state: to for state in JobState if (to := table[verb][state]) is not None}


@pytest.mark.parametrize("verb", Verb)
def test_a_live_queue_takes_the_transitions_of_the_table_and_no_others(verb):
    assert leads(LIVE_STEPS, verb) == {state: to for (state, each), to in TRANSITIONS.items() if each is verb}


@pytest.mark.parametrize("verb", Verb)
def test_a_replay_takes_what_a_lease_led_to_though_it_saw_no_lease(verb):
    live, replayed = leads(LIVE_STEPS, verb), leads(REPLAYED_STEPS, verb)
    assert replayed.items() >= live.items()
    if JobState.LEASED in live:
        assert {replayed[waiting] for waiting in WAITING} == {live[JobState.LEASED]}
    assert not set(replayed) & set(FINISHED) - set(live)


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("live", [True, False])
def test_each_verb_is_refused_from_each_state_that_the_table_does_not_have_it_for(verb, live):
    table = LIVE_STEPS if live else REPLAYED_STEPS
    for state in set(JobState) - set(leads(table, verb)):
        ledger = Ledger()
        ledger.live = live
        chunk, _ = ledger.submitted(1, SUBMITTED)
        chunk._states[0] = state
        if live:
            with pytest.raises(InvariantBroken, match=f"is {state.word}, from which no {verb.word} leads"):
                ledger.move(chunk, 0, 1, verb)
        else:
            ledger.move(chunk, 0, 1, verb)
        assert chunk._states[0] == state
        assert ledger.passed_over == (not live)


@pytest.mark.parametrize(
    ("start", "stop", "verb"),
    [
        (0, 1, Verb.ACK),
        (0, 1, Verb.RELEASE),
        (0, 1, Verb.DUE),
        (1, 3, Verb.GIVE_UP),
        (1, 2, Verb.ACK),
        (0, 5, Verb.LEASE),
        (-1, 2, Verb.LEASE),
        (2, 2, Verb.LEASE),
        (4, 5, Verb.LEASE),
    ],
)
def test_a_step_that_is_none_changes_neither_states_nor_counts(start, stop, verb):
    ledger = Ledger()
    chunk, _ = ledger.submitted(1, SUBMITTED)
    ledger.move(chunk, 3, 4, Verb.LEASE)
    if verb is Verb.ACK and not start:
        ledger.move(chunk, 0, 1, Verb.LEASE)
        ledger.succeeded(2, 0, chunk, Range("o", 0, 7, [b""], [0.0]), 2.0)
    before = bytes(chunk._states), ledger.counts["default"].by_state()

    with pytest.raises(InvariantBroken):
        ledger.move(chunk, start, stop, verb)

    assert (bytes(chunk._states), ledger.counts["default"].by_state()) == before


def test_a_span_with_one_job_that_may_not_is_refused_as_a_whole():
    ledger = Ledger()
    chunk, _ = ledger.submitted(1, SUBMITTED)
    ledger.move(chunk, 2, 3, Verb.LEASE)

    with pytest.raises(InvariantBroken, match="is leased, from which no lease leads"):
        ledger.move(chunk, 0, 4, Verb.LEASE)


@pytest.mark.parametrize(
    "event",
    [
        JobsCancelled(2.0, "o", [3]),
        Requeued(2.0, "o", [0]),
        Succeeded(2.0, [Range("o", 1, 0, [b"", b"", b""], [0.0] * 3)]),
    ],
    ids=["ended", "not dead", "partly ended"],
)
def test_of_two_events_in_a_journal_that_contradict_each_other_the_first_one_stands(event):
    ledger = Ledger()
    replay(ledger, 1, SUBMITTED)
    replay(ledger, 2, Failed(1.5, "o", 3, Cause.FAILED, ERROR, None))
    replay(ledger, 3, event)

    counts = ledger.counts["default"]
    assert (counts[JobState.READY], counts[JobState.DEAD], ledger.passed_over) == (3, 1, 1)
    assert 3 in ledger.forgotten, "the row goes, since nothing refers to it"


@pytest.mark.parametrize("numbers", [[0, 0], [1, 2, 1, 1]])
def test_a_journal_in_which_an_older_release_ended_a_job_twice_has_its_other_jobs(numbers):
    ledger = Ledger()
    replay(ledger, 1, SUBMITTED)
    replay(ledger, 2, JobsCancelled(2.0, "o", numbers))

    ended = set(numbers)
    chunk = ledger.chunks[1]
    assert chunk.unfinished == ledger.counts["default"][JobState.READY] == 4 - len(ended)
    assert ledger.passed_over == len(numbers) - len(ended)


def test_the_checks_of_a_live_queue_are_in_force_after_a_replay():
    state = QueueState()
    replay(state.ledger, 1, SUBMITTED)
    recover(state, 2.0)

    with pytest.raises(InvariantBroken):
        replay_module.cancelled(state.ledger, 2, JobsCancelled(3.0, "o", [0, 0]))
    event = Failed(3.0, "o", 1, Cause.FAILED, ERROR, None)
    with pytest.raises(InvariantBroken):
        replay_module.failed(state.ledger, 3, event)  # nobody has leased it


def test_no_count_goes_below_none():
    counts = Counts()
    counts.admit(1, 0)

    with pytest.raises(InvariantBroken, match="-1 jobs as ready"):
        counts.move(((JobState.READY, 2),), None)

    assert counts[JobState.READY] == 1


def test_an_attempt_that_is_interrupted_goes_back_with_what_was_read_ahead():
    state = state_with_jobs()
    member = Member()
    apply(state, c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]), member, 1.0)
    apply(state, c.Lease(4), member, 1.0)
    lease = next(iter(member.leases.values()))
    held = lease.stop - lease.start

    apply(state, c.Release(lease.token, lease.chunk.first + lease.start, started=True), member, 2.0)

    assert state.ledger.counts["default"][JobState.READY] == 4
    assert [record.interruptions for record in lease.chunk.records.values()] == [1]
    assert not member.leases
    assert held > 0
