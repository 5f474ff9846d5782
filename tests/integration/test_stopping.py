"""Whatever a task does, it ends soon after its timeout or its cancel, and no other job notices."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.stoppable_tasks import STUBBORN
from tests.support.workers import Client, Manager, Worker, descendants, options, until

TASKS = "tests.support.stoppable_tasks"
POISON = "tests.support.poison_tasks"
#: Sleep, a loop of NumPy, a loop in C, a catastrophic regular expression, a wait for a socket.
KINDS = ("sleeps", "computes", "stays_in_c", "matches", "waits_for_a_socket")
CONSUMERS = 3
OTHERS = 60
#: Seconds of the timeout, and of the grace.
LIMIT = 0.6
#: Seconds beyond them: 0.5 is the rule, and the machine of a test has other work.
SPARE = 0.5 + 2.5


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[Client, Worker]]:
    """A worker of three consumers, and a client."""
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(CONSUMERS, tasks=(TASKS, POISON, "tests.support.worker_tasks")))
    worker.start()
    with manager.client() as client:
        yield client, worker
    worker.end()
    manager.stop()


def consumers(client: Client, worker: Worker) -> set[int]:
    """Return the processes of all consumers, once each has one that has called the manager."""
    until(lambda: client.broker.stats().consumers == CONSUMERS, what="all consumers are there")
    found: set[int] = set()

    def all_have_run() -> bool:
        found.update(client.results(client.submit("sleep", *[(0.05,)] * CONSUMERS * 4)))
        return len(found) >= CONSUMERS

    until(all_have_run, what="each consumer has run a job")
    assert found <= set(descendants(worker.process.pid))
    return found


def others_run_once(client: Client, marks: Path, ids: list[str]) -> None:
    """See that each of the other jobs has run once, and in consumers that ran on."""
    client.results(ids)
    counts = Counter(line.split()[0] for line in marks.read_text().splitlines())
    assert counts == {"begin": OTHERS, "end": OTHERS}
    views = client.broker.get(ids)
    assert {(view.state, view.failures + view.crashes + view.interruptions) for view in views} == {
        ("succeeded", 0)
    }


def one_was_replaced(client: Client, worker: Worker, before: set[int]) -> None:
    after = consumers(client, worker)
    assert len(before & after) == CONSUMERS - 1, (before, after)


@pytest.mark.parametrize("task", KINDS)
def test_an_attempt_ends_soon_after_its_timeout_and_only_its_consumer_is_replaced(
    task: str, service: tuple[Client, Worker], tmp_path: Path
) -> None:
    client, worker = service
    before, marks = consumers(client, worker), tmp_path / "marks"
    (job,) = client.submit(f"{TASKS}:{task}", timeout=LIMIT, retries=0)
    others = client.submit("mark", *[(str(marks), 0.02)] * OTHERS)
    error = client.outcomes([job])[0].error
    assert error is not None
    assert error.type == "TimedOut"
    assert f"in {task}" in error.traceback
    (attempt,) = client.view(job).attempts
    assert LIMIT <= attempt.seconds < LIMIT + SPARE
    others_run_once(client, marks, others)
    one_was_replaced(client, worker, before)


@pytest.mark.parametrize("task", [*KINDS, "takes_and_forgets"])
def test_a_cancelled_job_ends_within_its_grace_and_only_its_consumer_is_replaced(
    task: str, service: tuple[Client, Worker], tmp_path: Path
) -> None:
    client, worker = service
    before, marks = consumers(client, worker), tmp_path / "marks"
    (job,) = client.submit(f"{TASKS}:{task}")
    until(lambda: client.state(job) == "leased", what="the job runs")
    # Before that, its checkpoint may be refused: the attempt would fail by itself.
    until(lambda: task not in STUBBORN or client.has_begun(job), what="its task has begun")
    others = client.submit("mark", *[(str(marks), 0.02)] * OTHERS)
    began = time.monotonic()
    assert client.broker.cancel([job], running=True, grace=LIMIT) == 1
    until(lambda: told(worker, job), LIMIT + SPARE + 1.0, "the attempt has ended")
    assert time.monotonic() - began < LIMIT + SPARE + 0.4  # until the supervisor asks the manager
    assert told(worker, job) == ["cancelled"]
    assert client.state(job) == "cancelled"
    others_run_once(client, marks, others)
    one_was_replaced(client, worker, before)
    assert [each.how for each in client.view(job).attempts] == ["cancelled"]


@pytest.mark.parametrize(
    ("task", "args", "limits", "event"),
    [
        (f"{TASKS}:sleeps", (), {"timeout": LIMIT}, "consumer_killed"),
        (f"{POISON}:signal_worker", (signal.SIGTERM,), {}, "stop_signal_refused"),
        ("kill_self", (), {}, "consumer_died"),
    ],
)
def test_the_log_names_the_job_for_which_a_consumer_ended(
    task: str, args: tuple[int, ...], limits: dict[str, Any], event: str, service: tuple[Client, Worker]
) -> None:
    client, worker = service
    seen = len(worker.events(event))
    (job,) = client.submit(task, args, retries=0, **limits)
    until(lambda: len(worker.events(event)) > seen, what=f"the log has {event}")
    line = worker.events(event)[seen]
    assert (line["job_id"], line["task"]) == (job, client.view(job).task)
    client.outcomes([job])


def told(worker: Worker, job: str) -> list[str]:
    """Return the outcomes of the attempts at a job, as the worker's log has them."""
    return [each["outcome"] for each in worker.events("attempt_finished") if each["job_id"] == job]
