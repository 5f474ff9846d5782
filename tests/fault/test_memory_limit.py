"""A manager near the limit of its control group refuses new jobs in time, and restarts after a kill."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from svc.addresses import parse_address
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.server.scarcity import REFUSE_SHARE
from tests.support.cgroups import Cgroup
from tests.support.privileges import obtained
from tests.support.svc import DEADLINE, Host, end, until

LIMIT = 256 << 20
FRAME = 1000
ROUNDS = 3
ACKS = 5000
ANYWHERE = "127.0.0.1:0"
#: With this, written data survives the death of the process; no other loss happens here.
QUICK = ("--durability", "os")


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.log.close()


@pytest.fixture
def group(host):
    group = obtained(lambda: Cgroup("memory-limit"))
    host.prefix = group.prefix
    yield group
    group.close()


def broker(host: Host, role: str = "client", name: str = "") -> ManagerBroker:
    """Connect as a client, or as a member of worker `w`."""
    said = None if role == "client" else c.Hello(1, role, name, "w", tasks=["m:f"])
    at = parse_address(host.env["SVC_MANAGER"])
    key = Path(host.env["SVC_AUTHKEY_FILE"]).read_text().strip().encode()
    connected = ManagerBroker(
        (at.host, at.port), key, hello=(lambda: said) if said else None, timeout=DEADLINE
    )
    connected.connect()
    return connected


def fill(host: Host, first: int) -> tuple[int, str]:
    """Submit jobs with keys until one is refused; return the number after the last, and the reason."""
    with broker(host) as client:
        while True:
            chunks = [
                NewChunk(first + n, Terms("m:f"), [b"x" * 100], 0.0, f"k-{first + n}") for n in range(FRAME)
            ]
            notes = client.submit("o", chunks)
            first += FRAME
            if notes:
                return first, notes[0].code


def work(host: Host, count: int) -> int:
    """Take jobs and report results for them, and renew the leases; return their number."""
    done, renew_at = 0, 0.0
    with broker(host, "worker", "w") as supervisor, broker(host, "consumer", "w/1") as consumer:
        while done < count:
            if time.monotonic() >= renew_at:
                supervisor.call([c.Extend()])
                renew_at = time.monotonic() + 1.0
            grant = consumer.lease(limit=256, wait=timedelta(seconds=DEADLINE)).grant
            acks = [
                c.Ack(each.token, each.first, [b"r" * 100] * len(each.bodies), [0.0] * len(each.bodies))
                for each in grant.deliveries
            ]
            consumer.call(acks)
            done += sum(len(each.bodies) for each in grant.deliveries)
    return done


def gauge(host: Host, name: str) -> float:
    with urlopen(f"http://{host.env['MANAGER_HTTP']}/metrics", timeout=DEADLINE) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_full_manager_that_is_killed_comes_back_below_its_limit_and_takes_results(
    host, group, record_property
):
    group.limit_memory(LIMIT)
    first, succeeded = 0, 0
    with contextlib.ExitStack() as stack:
        for _ in range(ROUNDS):
            manager = host.start_manager(ANYWHERE, *QUICK)
            stack.callback(end, manager)
            first, code = fill(host, first)
            assert code == "queue_full"
            assert gauge(host, "svc_manager_memory_refusing") == 1
            assert REFUSE_SHARE * LIMIT * 0.9 < group.memory() < LIMIT
            manager.kill()
            manager.wait()
            manager = host.start_manager(ANYWHERE, *QUICK)
            stack.callback(end, manager)
            succeeded += work(host, ACKS)
            assert manager.poll() is None
            manager.kill()
            manager.wait()
        manager = host.start_manager(ANYWHERE, *QUICK)
        stack.callback(end, manager)
        with broker(host) as client:
            (queue,) = client.stats().queues
        assert queue.succeeded == succeeded
        assert group.kills() == 0
    record_property("a full memory, and kill -9", ROUNDS)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_takes_jobs_again_once_those_it_had_have_ended_and_are_forgotten(host, group):
    group.limit_memory(LIMIT * 3 // 4)
    manager = host.start_manager(ANYWHERE, "--retention", "1", *QUICK)
    try:
        first, _ = fill(host, 0)
        with broker(host) as client:
            accepted = client.stats().queues[0].submitted
        assert work(host, accepted) == accepted
        until(lambda: gauge(host, "svc_manager_memory_refusing") == 0, "it takes jobs again")
        again, code = fill(host, first)
        assert code == "queue_full"
        assert again - first > FRAME
        assert group.kills() == 0
    finally:
        end(manager)


def test_a_submitter_is_told_of_the_limit_and_the_log_too(host):
    manager = host.start_manager(ANYWHERE, "--memory-limit", "1MiB", "--log-format", "json")
    try:
        until(lambda: "manager_memory" in (host.folder / "log").read_text(), "the limit is noticed")
        ended = host.svc("submit", "m:f", "1")
        assert ended.returncode == 9
        assert "memory limit" in ended.stderr
        assert host.svc("status").returncode == 0
        assert gauge(host, "svc_manager_memory_refusing") == 1
        assert gauge(host, "svc_manager_memory_limit_bytes") == 1 << 20
    finally:
        end(manager)


def test_a_manager_without_a_limit_refuses_nothing(host):
    manager = host.start_manager(ANYWHERE, "--memory-limit", "off")
    try:
        assert host.svc("submit", "m:f", "1").returncode == 0
        assert gauge(host, "svc_manager_memory_limit_bytes") == 0
    finally:
        end(manager)
