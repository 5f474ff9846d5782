"""What a task asks of its own job, in a real worker."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import secrets
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from svc import Progress
from svc.broker.manager import ManagerBroker
from svc.codec import decode_result
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.handlers import HANDLERS
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.roles import Role
from svc.errors import Forbidden, LeaseLost
from svc.server.keys import Key, KeyRing
from svc.worker.channel import TELL_SECONDS
from tests.support.clock import LeapingClock
from tests.support.manager import running_manager
from tests.support.memory_journals import reopened
from tests.support.workers import Client, Manager, Start, Worker, descendants, options, until

TASKS = "tests.support.context_tasks"
#: Seconds for something that takes a second or two if the machine has nothing else to do.
PATIENCE = 60.0


def test_a_line_of_a_tasks_logger_names_its_job(client: Client, start: Start) -> None:
    worker = start(1, tasks=(TASKS,))
    ids = client.submit(f"{TASKS}:log_a_line")
    client.results(ids)
    worker.signal(signal.SIGTERM)
    worker.wait()
    lines = worker.events("a_line_of_a_task")
    assert [(line["job_id"], line["task"], line["rows"]) for line in lines] == [
        (ids[0], f"{TASKS}:log_a_line", 3)
    ]


def test_each_job_of_a_grant_is_told_its_own_id(client: Client, start: Start) -> None:
    start(1, tasks=(TASKS,))
    ids = client.submit(f"{TASKS}:describe", *[()] * 50)
    assert [found["id"] for found in client.results(ids)] == ids


@pytest.fixture(scope="module")
def reporting() -> Iterator[Client]:
    """A client whose jobs go to a worker with two consumers, which all tests share."""
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(2, tasks=(TASKS,)))
    worker.start()
    with manager.client() as client:
        yield client
    worker.end()
    manager.stop()


# --- progress -------------------------------------------------------------------------------------------


def progress(client: Client, job: str) -> Progress | None:
    return client.broker.progress([job])[0]


def _is_told(client: Client, job: str, done: float) -> bool:
    told = progress(client, job)
    return told is not None and told.done == done


def test_progress_is_told_while_the_job_runs(reporting: Client, tmp_path: Path) -> None:
    (job,) = reporting.submit(f"{TASKS}:tell_and_wait", (str(tmp_path / "go"), 3, 10, "third\x1b[1m"))
    until(lambda: progress(reporting, job) is not None)
    told = progress(reporting, job)
    assert told is not None
    assert (told.done, told.total, told.fraction) == (3, 10, 0.3)
    assert told.note == "third [1m"
    assert reporting.view(job).progress == told
    (tmp_path / "go").touch()
    reporting.results([job])
    assert progress(reporting, job) is None


def test_very_many_reports_arrive_as_a_few_and_the_last_one_counts(
    manager: Manager, client: Client, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[float] = []
    handler = HANDLERS[c.TellProgress]

    def counting(state: QueueState, command: c.TellProgress, member: Member, now: float) -> r.Reply | None:
        handled.append(time.monotonic())
        return handler(state, command, member, now)

    changed: dict[Any, Any] = HANDLERS
    monkeypatch.setitem(changed, c.TellProgress, counting)
    start(2, tasks=(TASKS,))
    began = time.monotonic()
    jobs = client.submit(f"{TASKS}:tell_often", *[(str(tmp_path / "go"), 20_000)] * 2)
    for job in jobs:
        until(functools.partial(_is_told, client, job, 20_000))
    (tmp_path / "go").touch()
    client.results(jobs)
    # One that was held up may come shortly before the next one, but the tenth not before its time.
    late = [at - began - place * TELL_SECONDS for place, at in enumerate(handled)]
    assert min(late) >= 0.0, late


def test_nonsense_for_progress_is_an_error_of_the_task(reporting: Client) -> None:
    told: list[tuple[Any, ...]] = [(each,) for each in (-1, math.nan, math.inf, "x", None)]
    told += [(1, -2), (1, math.nan), (1, [])]
    for outcome in reporting.outcomes(reporting.submit(f"{TASKS}:tell", *told)):
        assert outcome.error is not None
        assert outcome.error.type == "ArgumentError"
        assert "progress is told in numbers from 0" in outcome.error.message


def test_a_total_of_0_is_taken(reporting: Client) -> None:
    assert reporting.results(reporting.submit(f"{TASKS}:tell", (0, 0))) == [None]


# --- checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [False, True])
def test_the_attempt_after_a_failure_gets_the_checkpoint(reporting: Client, durable: bool) -> None:
    sizes = [0, 1, 8 * 1024 - 10, 8 * 1024, 65_000]
    jobs = reporting.submit(f"{TASKS}:leave_and_fail", *[(size, durable) for size in sizes])
    assert [len(found[0]) for found in reporting.results(jobs)] == sizes


def test_the_attempt_after_a_crash_gets_the_last_checkpoint(reporting: Client) -> None:
    assert reporting.results(reporting.submit(f"{TASKS}:leave_and_die", (50,))) == [{"row": 49}]


def test_a_checkpoint_may_have_64_kib_and_no_more(reporting: Client) -> None:
    assert reporting.results(reporting.submit(f"{TASKS}:leave", (bytes(65_536),))) == [bytes(65_536)]
    (outcome,) = reporting.outcomes(reporting.submit(f"{TASKS}:leave", (bytes(65_560),)))
    assert outcome.error is not None
    assert outcome.error.type == "JobTooLarge"


def test_threads_of_a_task_may_leave_checkpoints_at_once(reporting: Client) -> None:
    assert reporting.results(reporting.submit(f"{TASKS}:leave_from_threads", (8,))) == [8]


def test_a_process_that_the_task_forks_is_told_that_it_may_not_report(reporting: Client) -> None:
    (said,) = reporting.results(reporting.submit(f"{TASKS}:leave_in_a_child"))
    assert "this process was started by the task" in said


def expired(client: Client, job: str, clock: LeapingClock) -> bool:
    """Set the clock forward by more than a lease; a renewal that was on its way may have saved it before."""
    clock.advance(1000.0)
    return client.state(job) != "leased"


def test_a_checkpoint_is_refused_once_another_worker_has_the_job(tmp_path: Path) -> None:
    """A whole worker is stopped for longer than a lease lasts, by the manager's clock, and goes on."""
    clock = LeapingClock()
    manager = Manager(Limits(lease_seconds=600.0), clock=clock)
    with contextlib.ExitStack() as ends:
        manager.start()
        ends.callback(manager.stop)
        client = ends.enter_context(manager.client())
        worker, other = (
            Worker(manager.address, options(1, name=name, tasks=(TASKS,))) for name in ("w", "other")
        )
        worker.start()
        ends.callback(worker.end)
        (job,) = client.submit(f"{TASKS}:leave_until_refused", (str(tmp_path / "error"),))
        until(lambda: client.view(job).checkpoint_bytes, PATIENCE)
        stopped = [worker.process.pid, *descendants(worker.process.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        until(lambda: expired(client, job, clock), PATIENCE)
        other.start()
        ends.callback(other.end)
        assert client.results([job], PATIENCE) == ["the second attempt"]
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        error = tmp_path / "error"
        until(lambda: error.exists() and error.read_text(encoding="utf-8"), PATIENCE)
        assert error.read_text(encoding="utf-8") == "LeaseLost"


def test_a_checkpoint_survives_a_restart_of_the_manager(
    manager: Manager, client: Client, start: Start, tmp_path: Path
) -> None:
    """The supervisor keeps what it could not deliver, and the lease is claimed again before it is refused."""
    start(1, tasks=(TASKS,))
    paths = [str(tmp_path / name) for name in ("begun", "away", "left")]
    (job,) = client.submit(f"{TASKS}:leave_while_away", tuple(paths))
    until(Path(paths[0]).exists)
    manager.stop()
    Path(paths[1]).touch()
    until(Path(paths[2]).exists)
    manager.journal = reopened(manager.journal)
    manager.start()
    with manager.client() as again:
        until(lambda: again.broker.get([job])[0].state == "succeeded", 30.0)
        assert decode_result(again.broker.wait([job], timedelta(seconds=1))[0].result) == "while away"


# --- child jobs -----------------------------------------------------------------------------------------


def test_a_task_submits_jobs_over_its_workers_own_connection(reporting: Client) -> None:
    (child,) = reporting.results(reporting.submit(f"{TASKS}:submit_child", ("hello",)))
    (outcome,) = reporting.broker.wait([child], timedelta(seconds=60))
    assert decode_result(outcome.result) == "hello"
    (children,) = reporting.results(reporting.submit(f"{TASKS}:submit_children", (3,)))
    outcomes = reporting.broker.wait(children, timedelta(seconds=60))
    assert [decode_result(each.result) for each in outcomes] == ["0", "1", "2"]
    assert reporting.view(children[0]).priority == 3


def test_a_key_of_the_role_work_is_enough_for_a_child_job() -> None:
    admin, work = Key(Role.ADMIN, secrets.token_bytes(32)), Key(Role.WORK, secrets.token_bytes(32))
    with running_manager(keys=KeyRing([admin, work])) as running:
        worker = Worker(running.endpoint, options(1, tasks=(TASKS,)), key=work.secret)
        worker.start()
        try:
            with ManagerBroker(running.endpoint, admin.secret) as broker:
                client = Client(broker)
                (child,) = client.results(client.submit(f"{TASKS}:submit_child", ("by W",)))
                assert decode_result(broker.wait([child], timedelta(seconds=60))[0].result) == "by W"
            with ManagerBroker(running.endpoint, work.secret) as broker:
                chunks = [NewChunk(0, Terms("m:f"), [b"x"])]
                with pytest.raises(Forbidden):
                    broker.submit("stranger", chunks)
                with pytest.raises(LeaseLost):
                    broker.submit("stranger", chunks, under=12345)
        finally:
            worker.end()
