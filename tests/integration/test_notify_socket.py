"""A unit with `Type=notify`: manager and worker say when their start is done, and nothing else does."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.svc import DEADLINE, SVC, Host, end


@pytest.fixture
def host(tmp_path) -> Iterator[Host]:
    found = Host(tmp_path)
    yield found
    found.log.close()


@contextmanager
def systemd(host: Host, name: str) -> Iterator[socket.socket]:
    """Take the place of systemd behind a socket of this *name*; all that is started meanwhile gets it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        receiver.settimeout(DEADLINE)
        host.env["NOTIFY_SOCKET"] = name
        yield receiver
        del host.env["NOTIFY_SOCKET"]


def silent(receiver: socket.socket) -> bool:
    receiver.setblocking(False)
    try:
        return not receiver.recv(100)
    except BlockingIOError:
        return True


@pytest.mark.parametrize("abstract", [False, True], ids=["a file", "an abstract name"])
def test_manager_and_worker_say_once_that_they_are_ready(host, abstract):
    """And the job that runs afterwards finds no socket to speak at."""
    name = f"@svc-{host.folder.name}" if abstract else str(host.folder / "notify")
    with systemd(host, name) as receiver:
        manager = host.start_manager()
        assert receiver.recv(100) == b"READY=1"
        assert host.svc("status", "--timeout", "10").returncode == 0
        worker = host.start_worker("--shell")
        try:
            assert receiver.recv(100) == b"READY=1"
            shown = host.svc("run", "--wait", "env", NOTIFY_SOCKET="")
            assert shown.returncode == 0
            assert "SVC_AUTHKEY_FILE=" in shown.stdout
            assert "NOTIFY_SOCKET" not in shown.stdout
        finally:
            end(worker, manager)
        assert silent(receiver)


def test_a_worker_is_ready_while_the_manager_is_away(host):
    """Hosts boot in any order: a unit that waits for another host would be killed as hung."""
    with systemd(host, str(host.folder / "notify")) as receiver:
        worker = host.start_worker("--manager", "127.0.0.1:1")
        try:
            assert receiver.recv(100) == b"READY=1"
        finally:
            end(worker)


def test_a_worker_whose_tasks_cannot_be_loaded_is_never_ready(host):
    (host.folder / "broken.py").write_text("raise RuntimeError('on purpose')")
    with systemd(host, str(host.folder / "notify")) as receiver:
        done = subprocess.run(
            [*SVC, "worker", "--http", "off", "--tasks", "broken", "--manager", "127.0.0.1:1"],
            cwd=host.folder, env=host.env, capture_output=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert silent(receiver)


def test_a_socket_that_is_not_there_stops_nobody(host):
    host.env["NOTIFY_SOCKET"] = str(host.folder / "missing")
    manager = host.start_manager()
    try:
        assert host.svc("status").returncode == 0
    finally:
        end(manager)
