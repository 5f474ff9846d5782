"""A leader that is cut off from the servers while its clients reach it, beside a standby that takes over."""

from __future__ import annotations

from itertools import pairwise

import pytest

from svc.domain import events as e
from svc.server.journal.jetstream.replica import Replica
from tests.support.log_model import LogModel, ModelStream
from tests.support.memory_journals import MemoryMirror
from tests.support.two_managers import (
    Record,
    cut_off_bucket,
    cut_off_leader,
    election_of_the_bucket,
    terms_in,
)
from tests.support.virtual_time import run_virtual


async def rows_of(stream: ModelStream) -> set[str]:
    """Return the jobs that a manager finds that starts on the stream."""
    replica = Replica(LogModel(stream, "reader"), MemoryMirror)
    replica.start()
    await replica.catch_up()
    await replica.stop()
    found = [event for _, event in replica.mirror.replay() if isinstance(event, e.Submitted)]
    return {
        f"{event.origin}-{number}"
        for event in found
        for number in range(event.first, event.first + len(event.bodies))
    }


def check(seed: int, *, fenced: bool = True) -> Record:
    async def story() -> Record:
        record, stream = await cut_off_leader(seed, fenced=fenced)
        (first, _), (second, taken_over) = record.terms[:2]
        assert first != second
        terms = terms_in(stream)
        assert terms == sorted(terms), "the deposed leader has written after the new term began"
        assert record.deposed == [first]
        late = [at for name, at in record.granted if name == first and at > taken_over]
        assert not late, "the deposed leader has granted jobs after the new term began"
        assert record.accepted <= await rows_of(stream), "an accepted job is lost"
        return record

    return run_virtual(story())


@pytest.mark.parametrize("seed", range(20))
def test_a_leader_that_is_cut_off_writes_and_grants_nothing_after_the_takeover(seed: int):
    record = check(seed)
    assert len({name for name, _ in record.granted}) == 2, "one of the two has served nobody"


@pytest.mark.long
@pytest.mark.parametrize("tens", range(100))
def test_a_thousand_leaders_that_are_cut_off_write_nothing(tens: int):
    for seed in range(1000 + 10 * tens, 1010 + 10 * tens):
        check(seed)


def late_grants(record: Record) -> list[float]:
    """Return when the first leader granted jobs although the term of another one had begun."""
    (first, _), *later = record.terms
    return [at for name, at in record.granted for _, begun in later[:1] if name == first and at > begun]


def without_bucket(seed: int, *, waits: bool = True) -> list[float]:
    async def story() -> list[float]:
        record, stream = await cut_off_bucket(seed, waits=waits)
        assert terms_in(stream) == sorted(terms_in(stream))
        assert record.accepted <= await rows_of(stream), "an accepted job is lost"
        return late_grants(record)

    return run_virtual(story())


@pytest.mark.parametrize("seed", range(20))
def test_a_leader_that_the_log_alone_keeps_grants_nothing_after_the_takeover(seed: int):
    assert not without_bucket(seed)


def test_a_successor_that_does_not_wait_for_a_silent_log_is_noticed():
    assert any(without_bucket(seed, waits=False) for seed in range(20))


@pytest.mark.parametrize("seed", range(10))
def test_an_election_of_the_bucket_neither_changes_the_leader_nor_stops_its_grants(seed: int):
    record = run_virtual(election_of_the_bucket(seed, 4 + seed / 2))
    times = [at for _, at in record.granted]

    assert len(record.terms) == 1
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.5


def test_a_stream_without_a_fence_is_noticed():
    def fails(seed: int) -> bool:
        try:
            check(seed, fenced=False)
        except (TimeoutError, AssertionError):
            return True
        return False

    assert any(fails(seed) for seed in range(10))
