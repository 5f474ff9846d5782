"""Floods, long messages, scarce descriptors and changed keys at a manager of its own process (T2, T7)."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from svc.addresses import parse_address
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.errors import AuthenticationFailed
from svc.server.connection_limits import Bounds
from svc.wire import HEADER, with_header
from tests.support.asking import chunk
from tests.support.processes import ROOT, Service
from tests.support.stranger import Stranger

FLOOD = 900


DRIPS = 40


@pytest.fixture
def descriptors():
    """Room for a flood of sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def service(tmp_path):
    running = Service(tmp_path, "svc.cli.demo_tasks")
    running.start_manager("--durability", "memory")
    yield running
    running.close()


def figures(pid: int) -> dict[str, int]:
    """Return a process's threads, descriptors and resident KiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "threads": int(status["Threads"]),
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "resident": int(status["VmRSS"].split()[0]),
    }


def settled(pid: int, before: dict[str, int], name: str) -> None:
    deadline = time.monotonic() + 30
    while figures(pid)[name] > before[name]:
        assert time.monotonic() < deadline, (before, figures(pid))
        time.sleep(0.05)


@pytest.mark.slow
def test_honest_clients_are_served_during_a_flood_and_nothing_of_it_stays(service, descriptors):
    """900 silent connections and 40 that drip, before and after they have a key, during load (T2)."""
    address = parse_address(service.listen)
    endpoint = (address.host, address.port)
    authkey = service.authkey_file.read_bytes()
    assert service.manager is not None
    pid = service.manager.pid
    with service.broker() as broker:
        broker.submit("warm", [chunk(count=1000)])
    before = figures(pid)
    stop = threading.Event()

    def drip(stranger: Stranger) -> None:
        message = iter(with_header(b"x" * 200) * 100)
        while not stop.wait(0.1):
            try:
                stranger.send(bytes([next(message)]))
            except OSError:
                return

    with ExitStack() as stack:
        drips = []
        for number in range(DRIPS):
            stranger = stack.enter_context(Stranger(endpoint))
            if number % 2:
                stranger.serve(authkey)
            drips.append(threading.Thread(target=drip, args=(stranger,)))
        for thread in drips:
            thread.start()
        silent = []
        for _ in range(FLOOD):
            silent.append(stack.enter_context(socket.create_connection(endpoint, timeout=20)))
            if len(silent) % 30 == 0:
                with ManagerBroker(endpoint, authkey, timeout=20) as honest:
                    assert not honest.submit(f"o{len(silent)}", [chunk(count=10)])
        during = figures(pid)
        stop.set()
        for thread in drips:
            thread.join()
    assert during["threads"] == before["threads"]
    assert during["descriptors"] <= before["descriptors"] + DRIPS + Bounds().half_open + 1
    assert during["resident"] <= before["resident"] + 20_000
    settled(pid, before, "descriptors")
    with service.broker() as broker:
        (queue,) = broker.stats().queues
        assert queue.ready == 1000 + 10 * (FLOOD // 30)


def test_a_long_message_takes_memory_only_as_it_comes(service):
    """A header that announces 64 MiB reserves nothing; the stdlib's server takes it all at once (A7)."""
    address = parse_address(service.listen)
    assert service.manager is not None
    with ExitStack() as stack:
        strangers = [stack.enter_context(Stranger((address.host, address.port))) for _ in range(20)]
        for each in strangers:
            each.serve(service.authkey_file.read_bytes())
        before = figures(service.manager.pid)
        for each in strangers:
            each.send(HEADER.pack(64 << 20) + b"x" * 10_000)
        with service.broker() as broker:
            broker.stats()
        assert figures(service.manager.pid)["resident"] <= before["resident"] + 10_000


def test_without_descriptors_the_manager_waits_and_does_not_spin(tmp_path):
    """The stdlib's accept loop takes a whole CPU then (A4)."""
    service = Service(tmp_path, "svc.cli.demo_tasks")
    command = [sys.executable, "-m", "svc", "manager", "--listen", service.listen, "--http", "off"]
    announced = tmp_path / "manager.json"
    own = ["--durability", "memory", "--announce", str(announced)]
    with (tmp_path / "log").open("wb") as log:
        manager = subprocess.Popen(
            ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *command, *own],
            env=service.environment, cwd=ROOT, stderr=log,
        )  # fmt: skip
    try:
        service._await_file(announced, manager)
        address = parse_address(service.listen)
        with ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(socket.create_connection((address.host, address.port), timeout=20))
            _logged(tmp_path / "log", "accept_paused")
            before = _cpu_seconds(manager.pid)
            time.sleep(1.0)  # the test measures an idle second
            assert _cpu_seconds(manager.pid) - before < 0.5
        with service.broker() as broker:
            assert broker.connect().version
    finally:
        manager.send_signal(signal.SIGTERM)
        assert manager.wait(20) == 0


def _logged(path: Path, event: str) -> None:
    deadline = time.monotonic() + 20
    while event not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.02)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_keys_are_changed_without_a_pause(tmp_path):
    """Rotation: both keys work, then only the new one, and who came with the old one is sent away."""
    keys = tmp_path / "keys"
    service = Service(tmp_path, "svc.cli.demo_tasks")
    assert service.run("auth", "generate", "--all", str(keys)).wait(30) == 0
    service.start_manager("--durability", "memory", "--role-keys", str(keys))
    manager = service.manager
    assert manager is not None
    try:
        old = (keys / "work.key").read_bytes().strip()
        new = b"n" * 40
        before = _broker(service, old)
        before.connect()
        assert not _is_let_in(service, new)
        _replace(keys / "work.key.next", new)
        _renewed(service, times=1)
        assert _is_let_in(service, new)
        assert before.call([c.Ping()])
        assert before.reconnects == 0
        (keys / "work.key.next").replace(keys / "work.key")
        _renewed(service, times=2)
        with pytest.raises(AuthenticationFailed):
            before.call([c.Ping()])
        assert _is_let_in(service, new)
        _replace(keys / "work.key", b"short")  # a slip of the operator's locks nobody out
        manager.send_signal(signal.SIGHUP)
        _logged(tmp_path / "manager.log", "keys_not_read")
        assert _is_let_in(service, new)
    finally:
        service.close()


def _broker(service: Service, key: bytes) -> ManagerBroker:
    address = parse_address(service.listen)
    return ManagerBroker((address.host, address.port), key, timeout=10)


def _is_let_in(service: Service, key: bytes) -> bool:
    with _broker(service, key) as broker:
        try:
            broker.connect()
        except AuthenticationFailed:
            return False
    return True


def _replace(path: Path, key: bytes) -> None:
    path.write_bytes(key)
    path.chmod(0o600)


def _renewed(service: Service, times: int) -> None:
    assert service.manager is not None
    service.manager.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while sum(record["event"] == "keys_read" for record in service.log("manager")) < times:
        assert time.monotonic() < deadline
        time.sleep(0.02)
