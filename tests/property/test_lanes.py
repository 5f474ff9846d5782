"""The choice of the next job, held against one that looks at every ready job each time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svc.domain.chunk import Chunk
from svc.domain.events import Submitted
from svc.domain.job import Terms
from svc.domain.lifecycle import JobState
from svc.domain.scheduling import lanes as lanes_module
from svc.domain.scheduling.lanes import INDEXES_MAX, STALE_MAX, Lanes, ReadySpan, Subscription

QUEUES = ("a", "b", "c")
TASKS = ("m:f", "m:g", "m:h")
CODECS = ("plain", "pickle", "other")
EVERYTHING = (frozenset(QUEUES), None, None)

subscriptions = st.tuples(
    st.frozensets(st.sampled_from(QUEUES), min_size=1),
    st.none() | st.frozensets(st.sampled_from(TASKS)),
    st.none() | st.frozensets(st.sampled_from(CODECS)),
)


class ModelledLanes:
    """Lanes beside the plainest model of them: all jobs, of which the best is found by looking at each."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.chunks: list[Chunk] = []
        self.leased: list[ReadySpan] = []

    def submit(self, queue: str, task: str, priority: int, count: int, codec: str = "plain") -> None:
        sequence = len(self.chunks) + 1
        terms = Terms(task, queue=queue, priority=priority, codec=codec)
        chunk = Chunk(sequence, Submitted(0.0, "o", sequence * 1000, terms, [b""] * count))
        self.chunks.append(chunk)
        self.lanes.push(chunk, 0, count, 0.0)

    def take(self, subscription: Subscription, limit: int) -> ReadySpan | None:
        """Take from the lane that is offered, which must be the one that holds the expected job."""
        expected = self.expected(*subscription)
        lane = self.lanes.best(subscription)
        if expected is None:
            assert lane is None
            return None
        assert lane is not None
        span = self.lanes.take(lane, limit)
        assert (span.chunk, span.start) == expected
        span.chunk.mark(span.start, span.stop, JobState.LEASED)
        self.leased.append(span)
        return span

    def expected(
        self, queues: frozenset[str], tasks: frozenset[str] | None, codecs: frozenset[str] | None
    ) -> tuple[Chunk, int] | None:
        ready = [
            (-chunk.terms.priority, chunk.sequence, chunk, index)
            for chunk in self.chunks
            if chunk.terms.queue in queues
            and (tasks is None or chunk.terms.task in tasks)
            and (codecs is None or chunk.terms.codec in codecs)
            for index in self.indexes(chunk, JobState.READY)[:1]
        ]
        return min(ready)[2:] if ready else None

    def give_back(self, rng: random.Random) -> None:
        if self.leased:
            span = self.leased.pop(rng.randrange(len(self.leased)))
            start = rng.randint(span.start, span.stop - 1)
            span.chunk.mark(span.start, start, JobState.SUCCEEDED)
            span.chunk.mark(start, span.stop, JobState.READY)
            self.lanes.push(span.chunk, start, span.stop, 1.0)

    def cancel(self, rng: random.Random) -> None:
        waiting = [(b, index) for b in self.chunks for index in self.indexes(b, JobState.READY)]
        for chunk, index in rng.sample(waiting, min(len(waiting), 3)):
            self.lanes.skip(chunk, 1)
            chunk.mark(index, index + 1, JobState.CANCELLED)

    @staticmethod
    def indexes(chunk: Chunk, state: JobState) -> list[int]:
        return [index for index, each in enumerate(chunk._states) if each == state]


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"),
            st.sampled_from(QUEUES),
            st.sampled_from(TASKS),
            st.integers(-2, 2),
            st.integers(1, 4),
            st.sampled_from(CODECS),
        ),
        st.tuples(st.just("take"), subscriptions, st.integers(1, 3)),
        st.tuples(st.just("give back")),
        st.tuples(st.just("cancel")),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(
    steps,
    st.randoms(use_true_random=False),
    st.sampled_from((1, 2, INDEXES_MAX)),
    st.sampled_from((0, 2, 64)),
)
def test_the_lane_offered_is_the_one_that_a_look_at_every_job_would_choose(
    done: list[tuple[Any, ...]], rng: random.Random, indexes: int, stale: int
) -> None:
    with pytest.MonkeyPatch.context() as bounds:
        bounds.setattr(lanes_module, "INDEXES_MAX", indexes)
        bounds.setattr(lanes_module, "STALE_MAX", stale)
        both = ModelledLanes()
        for name, *details in done:
            match name:
                case "submit":
                    both.submit(*details)
                case "take":
                    both.take(*details)
                case "give back":
                    both.give_back(rng)
                case "cancel":
                    both.cancel(rng)
        while both.take(EVERYTHING, 2):
            pass
    assert not both.lanes.queues
    assert list(both.lanes) == []
    assert not any(both.lanes._indexes.values())


def sizes(lanes: Lanes) -> dict[str, int]:
    """Return how many entries each of the structures behind the choice has."""
    codecs = [tasks for queue in lanes._lanes.values() for tasks in queue.values()]
    return {
        "codecs": len(codecs),
        "tasks": sum(map(len, codecs)),
        "lanes": sum(1 for _ in lanes),
        "spans": sum(len(lane.spans) for lane in lanes),
        "indexes": len(lanes._indexes),
        "places": max(map(len, lanes._indexes.values()), default=0),
    }


def grown(**more: int) -> dict[str, int]:
    """Return what one lane with one waiting job has at most, beside out-of-date entries."""
    bound = 2 + STALE_MAX + 1
    return {"codecs": 1, "tasks": 1, "lanes": 1, "spans": bound, "indexes": 1, "places": bound} | more


def flood_of_rising_priorities(both: ModelledLanes, number: int) -> None:
    both.submit("a", "m:f", number, 1)
    both.take((frozenset("a"), frozenset(("m:f",)), None), 1)


def flood_of_falling_priorities(both: ModelledLanes, number: int) -> None:
    both.submit("a", "m:f", -number, 1)
    both.take((frozenset("a"), frozenset(("m:f",)), None), 1)


def flood_of_cancelled_jobs(both: ModelledLanes, number: int) -> None:
    both.submit("a", "m:f", 0, 1)
    both.lanes.skip(both.chunks[-1], 1)
    both.chunks[-1]._states[0] = JobState.CANCELLED


def flood_of_cancelled_priorities(both: ModelledLanes, number: int) -> None:
    both.submit("a", "m:f", -number, 1)
    both.lanes.skip(both.chunks[-1], 1)
    both.chunks[-1]._states[0] = JobState.CANCELLED


def flood_of_tasks(both: ModelledLanes, number: int) -> None:
    both.submit("a", f"m:f{number}", 0, 1)
    both.take((frozenset("a"), None, None), 1)


def flood_of_queues(both: ModelledLanes, number: int) -> None:
    both.submit(f"q{number}", "m:f", 0, 1)
    both.take((frozenset((f"q{number}",)), None, None), 1)


def flood_of_codecs(both: ModelledLanes, number: int) -> None:
    both.submit("a", "m:f", 0, 1, f"codec{number}")
    both.take((frozenset("a"), None, None), 1)


@pytest.mark.parametrize(
    ("flood", "bound"),
    [
        (flood_of_rising_priorities, grown(indexes=2)),
        (flood_of_falling_priorities, grown(indexes=2)),
        (flood_of_cancelled_jobs, grown()),
        (flood_of_cancelled_priorities, grown()),
        (flood_of_tasks, grown(indexes=2)),
        (flood_of_codecs, grown(indexes=2)),
        (flood_of_queues, grown(indexes=INDEXES_MAX)),
    ],
)
def test_what_has_passed_through_leaves_nothing_behind(flood, bound) -> None:
    """One job waits all the time, for consumers that ask no more."""
    both = ModelledLanes()
    both.submit("idle", "m:idle", 0, 1)
    assert both.lanes.best((frozenset(("a", "idle")), None, None))
    for number in range(1, 5 * STALE_MAX):
        flood(both, number)

    found = sizes(both.lanes)

    assert all(found[name] <= most for name, most in bound.items()), found


def test_a_job_given_back_again_and_again_has_one_place() -> None:
    both = ModelledLanes()
    both.submit("a", "m:f", 0, 2)
    for _ in range(5 * STALE_MAX):
        # As a consumer that comes back has it: the lease is made while the job stands in its lane.
        both.lanes.skip(both.chunks[0], 1)
        both.lanes.push(both.chunks[0], 0, 1, 1.0)

    assert sizes(both.lanes)["spans"] <= grown()["spans"] + 2
    assert both.take(EVERYTHING, 1) is not None
