from __future__ import annotations

from svc.domain.lifecycle import TRANSITIONS, JobState, next_state


def test_every_arrow_leads_where_the_picture_says():
    assert {
        ("" if state is None else state.word, verb): to.word for (state, verb), to in TRANSITIONS.items()
    } == {
        ("", "submit"): "ready",
        ("", "submit_delayed"): "scheduled",
        ("scheduled", "due"): "ready",
        ("ready", "lease"): "leased",
        ("leased", "ack"): "succeeded",
        ("ready", "take"): "succeeded",
        ("leased", "nack_retry"): "scheduled",
        ("leased", "nack_retry_now"): "ready",
        ("leased", "nack_dead"): "dead",
        ("leased", "release"): "ready",
        ("leased", "reap"): "ready",
        ("ready", "cancel"): "cancelled",
        ("scheduled", "cancel"): "cancelled",
        ("dead", "requeue"): "ready",
    }


def test_only_a_dead_job_comes_back():
    after = {state for (state, _) in TRANSITIONS if state is not None and state.finished}

    assert after == {JobState.DEAD}


def test_an_arrow_that_does_not_exist_leads_nowhere():
    assert next_state(JobState.SUCCEEDED, "ack") is None
    assert next_state(JobState.READY, "lease") is JobState.LEASED


def test_the_numbers_are_those_in_journals():
    """One byte of a chunk's state array each: never to be renumbered."""
    assert [(state.value, state.word) for state in JobState] == [
        (0, "ready"), (1, "scheduled"), (2, "leased"), (3, "succeeded"), (4, "dead"), (5, "cancelled"),
    ]  # fmt: skip
