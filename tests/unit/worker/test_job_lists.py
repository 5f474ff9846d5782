"""Lists of jobs in a consumer: which jobs are in a call, and what the supervisor sees meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import pytest

from svc import codec
from svc.domain.job import Terms
from svc.domain.replies import Delivery, Grant
from svc.worker.capture import Capture
from svc.worker.channel import PipeChannel
from svc.worker.exchange import EndedJob
from svc.worker.failure import Failure
from svc.worker.job_lists import JobLists, Surroundings
from svc.worker.outbox import AttemptLog, Holdings, Outbox
from svc.worker.registry import Registry, Task, TaskOptions
from svc.worker.runner import Runner
from svc.worker.slot import Phase, Slot

NAME = "m:f"


def delivery(token: int, **terms: Any) -> Delivery:
    body = codec.encode_arguments(codec.PLAIN, (token,), {})
    return Delivery(token, "o", token, Terms(task=NAME, **terms), [body], 0, 0, 0, 0.0, 0.0)


@dataclass
class Manager:
    """Stands in for the connection: hands out jobs, and takes outcomes."""

    jobs: list[Delivery] = field(default_factory=list)
    asked: list[tuple[int, float]] = field(default_factory=list)
    ended: list[EndedJob] = field(default_factory=list)
    given_back: list[int] = field(default_factory=list)
    pill: int = 0
    stops: bool = False
    task: str = NAME
    outbox: Outbox = field(default_factory=Outbox)
    holdings: Holdings = field(default_factory=Holdings)
    log: AttemptLog = field(default_factory=lambda: AttemptLog("w", "w-1"))
    meanwhile: Callable[[], None] = lambda: None

    def turn(self, limit: int = 0, wait: float = 0.0) -> Grant | None:
        self.asked.append((limit, wait))
        self.meanwhile()
        jobs, self.jobs = self.jobs[:limit], self.jobs[limit:]
        return Grant(jobs, 0 if jobs else self.pill)

    def settle(self, ended: EndedJob, *, listed: bool) -> None:
        assert listed
        self.ended.append(ended)

    def give_back(self, delivery: Delivery, _number: int) -> None:
        self.given_back.append(delivery.token)

    def stopping(self) -> bool:
        return self.stops


@dataclass
class Scene:
    manager: Manager
    slot: Slot
    channel: PipeChannel
    supervisor: Connection
    function: Callable[[list[Any]], Any] = lambda jobs: [job.args[0] for job in jobs]
    calls: list[list[int]] = field(default_factory=list)

    def call(self, jobs: list[Any]) -> Any:
        self.calls.append([job.number for job in jobs])
        return self.function(jobs)

    def cancel(self, token: int) -> None:
        self.channel.ended(msgspec.msgpack.encode([(token, token, 5.0)]))

    def run(self, first: Delivery, batch: int = 3, linger: float = 0.0) -> JobLists:
        task = Task(NAME, self.call, TaskOptions(batch=batch, linger=linger))
        runner = Runner(Registry([task]), [codec.PLAIN], 1 << 20)
        line = threading.Lock()
        around = Surroundings(self.slot, self.channel, Capture(), line, lambda _: True)
        lists = JobLists(self.manager, runner, runner.resolve(first.terms), around, 0.0)  # type: ignore[arg-type]
        with line:
            lists.run(first)
        return lists

    def outcomes(self) -> dict[int, Any]:
        return {each.leased.delivery.token: each.result for each in self.manager.ended}


@pytest.fixture
def scene() -> Scene:
    ours, theirs = multiprocessing.Pipe()
    slot = Slot(multiprocessing.get_context("spawn"))
    return Scene(Manager(), slot, PipeChannel(theirs, lambda: True), ours)


def test_a_list_is_filled_and_the_next_one_takes_the_rest(scene: Scene) -> None:
    scene.manager.jobs = [delivery(token) for token in range(2, 6)]
    scene.run(delivery(1))
    assert scene.calls == [[1, 2, 3], [4, 5]]


def test_a_full_list_asks_for_no_more(scene: Scene) -> None:
    scene.run(delivery(1), batch=1, linger=60)
    assert scene.manager.asked == [(1, 0.0)]  # for the next list


def test_the_wait_is_what_is_left_of_the_linger(scene: Scene) -> None:
    scene.manager.jobs = [delivery(2)]
    scene.run(delivery(1), linger=60)
    (first, wait), (second, rest), _ = scene.manager.asked
    assert (first, second) == (2, 1)
    assert 59 < rest < wait <= 60


def test_a_job_that_is_cancelled_while_the_list_waits_is_taken_out(scene: Scene) -> None:
    scene.manager.jobs = [delivery(2), delivery(3)]
    scene.manager.meanwhile = lambda: scene.cancel(2)
    scene.run(delivery(1))
    assert scene.calls == [[1, 3]]
    assert list(scene.outcomes()) == [1, 3]


def test_a_list_whose_jobs_are_all_cancelled_is_not_called(scene: Scene) -> None:
    scene.cancel(1)  # the order has overtaken the job
    scene.run(delivery(1))
    assert scene.calls == []


def test_a_stop_gives_a_waiting_list_back(scene: Scene) -> None:
    scene.manager.jobs = [delivery(2)]
    scene.manager.meanwhile = lambda: setattr(scene.manager, "stops", True)
    scene.run(delivery(1), linger=60)
    assert scene.calls == []
    assert scene.manager.given_back == [1, 2]


def test_a_pill_ends_the_wait_and_the_list_runs(scene: Scene) -> None:
    scene.manager.pill = 7
    assert scene.run(delivery(1), linger=60).pill == 7
    assert scene.calls == [[1]]


def test_a_job_that_cannot_be_read_fails_alone(scene: Scene) -> None:
    scene.manager.jobs = [delivery(2, codec="pickle"), delivery(3)]
    scene.run(delivery(1))
    assert scene.calls == [[1, 3]]
    assert isinstance(scene.outcomes()[2], Failure)
    assert codec.decode_result(scene.outcomes()[3]) == 3


def test_the_supervisor_sees_one_that_is_not_cancelled_and_the_smallest_limits(scene: Scene) -> None:
    seen: list[tuple[Phase, int, float]] = []

    def look() -> None:
        state = scene.slot.look()
        seen.append((state.phase, state.token, state.timeout))

    def run(jobs: list[Any]) -> Sequence[None]:
        look()
        for token in (2, 1, 3):
            scene.cancel(token)
            look()
        return [None] * len(jobs)

    scene.function = run
    scene.manager.jobs = [delivery(2, timeout=20.0), delivery(3, timeout=30.0)]
    scene.run(delivery(1, timeout=25.0))
    listed = Phase.LISTED
    assert seen == [(listed, 1, 20.0), (listed, 1, 20.0), (listed, 3, 20.0), (Phase.BUSY, 3, 20.0)]
    assert scene.outcomes() == {1: None, 2: None, 3: None}
    assert scene.slot.look().phase is Phase.IDLE


def test_a_list_of_one_is_shown_as_a_job_that_runs_alone(scene: Scene) -> None:
    phases: list[Phase] = []

    def run(jobs: list[Any]) -> list[None]:
        phases.append(scene.slot.look().phase)
        return [None for _ in jobs]

    scene.function = run
    scene.run(delivery(1))
    assert phases == [Phase.BUSY]


def test_a_large_list_is_not_filled_beyond_the_bytes_of_its_arguments(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc.worker.job_lists._LIST_BYTES", 1)
    scene.manager.jobs = [delivery(2)]
    scene.run(delivery(1), linger=60)
    assert scene.calls == [[1], [2]]
