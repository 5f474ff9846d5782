"""A job with `max_rss` is stopped before its container is full; one without it is killed by the kernel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container

from tests.e2e.readings import results
from tests.support.docker import Project, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow]
QUEUE = "memory"
CONSUMERS = 4
CONTAINER_MIB, LIMIT_MIB, TAKEN_MIB = 1536, 200, 2048
OTHERS = 100


@pytest.fixture(scope="module")
def worker(stack: Project, client: docker.DockerClient) -> Iterator[Container]:
    """A worker of 1.5 GiB, with 300 MiB of preloaded pages, that alone serves its queue."""
    own = stack.overridden(SVC_WORKER_MEMORY=f"{CONTAINER_MIB}m", SVC_TASKS="chores")
    flags = ("--queues", QUEUE, "--consumers", str(CONSUMERS), "--preload", "ballast", "--log-format", "json")
    name = own.compose("run", "--detach", "--no-deps", "worker", "worker", *flags).stdout.strip()
    found = client.containers.get(name)
    yield found
    found.remove(force=True)


def submitted(service: Project, lines: list[dict[str, object]]) -> list[str]:
    text = "\n".join(json.dumps({"queue": QUEUE, **line}) for line in lines)
    return service.svc("submit", "--from", "-", stdin=text).stdout.split()


def ended(service: Project, job: str) -> dict[str, object]:
    """Return the outcome of a job, once there is one."""
    told = service.compose("exec", "-T", "manager", "svc", "results", "--ndjson", job, check=False)
    outcome: dict[str, object] = json.loads(told.stdout)
    return outcome


def kills(worker: Container) -> int:
    """Return how many processes the kernel has killed because the container was full."""
    files = "/sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control"
    told = worker.exec_run(["sh", "-c", f"cat {files} 2>/dev/null"]).output
    assert isinstance(told, bytes)
    return int(re.findall(r"^oom_kill (\d+)$", told.decode(), re.MULTILINE)[0])


def attempts(worker: Container, ids: set[str]) -> list[str]:
    """Return the jobs among *ids*, once for each attempt that the worker's log has."""
    text = worker.logs(stderr=True)
    assert isinstance(text, bytes)
    lines = [json.loads(line) for line in text.decode().splitlines() if line[:1] == "{"]
    told = [line["job_id"] for line in lines if line.get("event") == "attempt_finished"]
    return sorted(job for job in told if job in ids)


@pytest.mark.parametrize("way", ["bytes", "shared", "child"])
def test_an_allocation_over_max_rss_ends_before_the_container_is_full_and_all_others_run_once(
    way: str, service: Project, worker: Container
) -> None:
    greedy = {"task": "chores:take", "args": [TAKEN_MIB, way], "max_rss": LIMIT_MIB << 20, "retries": 0}
    modest = {"task": "chores:nap", "max_rss": LIMIT_MIB << 20}
    lines = [{**modest, "args": [0.02, number]} for number in range(OTHERS)]
    job, *others = submitted(service, [greedy, *lines])

    assert results(service, others, 100) == list(range(OTHERS))
    outcome = ended(service, job)
    assert outcome["state"] == "dead"
    error = outcome["error"]
    assert isinstance(error, dict)
    assert error["type"] == "MemoryLimitExceeded", error
    peak = float(
        re.findall(r"it took ([\d.]+) MiB of memory, over its max_rss of 200.0 MiB", error["message"])[0]
    )
    assert LIMIT_MIB < peak < CONTAINER_MIB
    assert kills(worker) == 0
    wait_for(lambda: attempts(worker, set(others)) == sorted(others), 90, "each attempt to be in the log")
    views = service.svc("jobs", "show", *others, "--ndjson").stdout.splitlines()
    assert len(views) == OTHERS
    for view in map(json.loads, views):
        assert (view["failures"], view["crashes"], view["interruptions"]) == (0, 0, 0)


def test_the_same_allocation_without_max_rss_fills_the_container(service: Project, worker: Container) -> None:
    """So the test above could fail."""
    (job,) = submitted(service, [{"task": "chores:take", "args": [TAKEN_MIB, "bytes"], "retries": 0}])
    outcome = ended(service, job)
    error = outcome["error"]
    assert isinstance(error, dict)
    assert error["type"] == "ConsumerDied", error
    assert kills(worker) > 0
