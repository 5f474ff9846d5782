"""Workers that are lost, and the suspects that they leave."""

from __future__ import annotations

from collections.abc import Iterator

from svc.broker.base import Broker
from svc.domain.job import ErrorInfo
from svc.domain.job_view import JobView
from svc.domain.limits import Limits
from svc.domain.suspicion import TOGETHER_SECONDS
from tests.support.asking import chunk, lease, numbers, submit
from tests.support.engines import Engine

#: Seconds in which the queue notices that no process of a worker is there any more, and in which it judges.
SOON = 0.6


JUDGED = SOON + TOGETHER_SECONDS


BUDGET = Limits().suspicion_budget


DIED = ErrorInfo("ConsumerDied", "it is gone")


def consumer_of(engine: Engine, worker: str, *, place: int = 1) -> Broker:
    return engine.consumer(f"{worker}-{place}", worker)


def lose(engine: Engine, *lost: Broker, wait: float = JUDGED) -> None:
    """Let consumers go without a word, and nobody of their workers be there."""
    for broker in lost:
        engine.cut(broker)
    engine.advance(SOON)
    engine.advance(wait - SOON)


def only(queue: Broker, job: str = "o-0") -> JobView:
    (view,) = queue.get([job])
    return view


def suspicions(queue: Broker, *jobs: str) -> list[int]:
    return [view.suspicions for view in queue.get(jobs)]


def suspect_each(engine: Engine, queue: Broker, names: Iterator[str], jobs: int) -> None:
    """Submit jobs, and make suspects of them all."""
    submit(queue, chunk(0, jobs))
    worker = consumer_of(engine, next(names))
    assert len(numbers(lease(worker, jobs))) == jobs
    lose(engine, worker)
    assert [view.suspect for view in queue.get([f"o-{number}" for number in range(jobs)])] == [True] * jobs
