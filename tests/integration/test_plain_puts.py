"""Puts of stock clients into a full queue, over real sockets: they wait, and count once or not at all."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import pytest

from svc.domain.limits import Limits
from tests.support.inside import waiting_puts
from tests.support.manager import RunningManager, running_manager
from tests.support.svc import Host, end, until

PUTTER = """
import sys
from multiprocessing.managers import BaseManager
class Manager(BaseManager): pass
Manager.register("tasks")
manager = Manager((sys.argv[1], int(sys.argv[2])), authkey=bytes.fromhex(sys.argv[3]))
manager.connect()
manager.tasks().put(sys.argv[4])
print("put")
"""
KEYED = {"task": "m:f", "queue": "q", "key": "once"}


class Stock(BaseManager):
    """A stock client."""


for each in ("tasks", "results", "jobs"):
    Stock.register(each)


def connect(host: str, port: int, key: bytes) -> Any:
    stock = Stock((host, port), authkey=key)
    stock.connect()
    return stock


def waiting(manager: RunningManager) -> int:
    count: int = manager.server.ask(lambda: waiting_puts(manager.host)[0]).result(30)
    return count


def test_killed_putters_leave_nothing_and_the_others_are_served_in_their_order():
    with running_manager(limits=Limits(max_queue_jobs=1)) as manager:
        tasks = connect(*manager.endpoint, manager.authkey).tasks()
        tasks.put("first")
        putters: list[subprocess.Popen[str]] = []
        try:
            for name in range(6):
                arguments = [*map(str, manager.endpoint), manager.authkey.hex(), str(name)]
                putters.append(
                    subprocess.Popen(
                        [sys.executable, "-c", textwrap.dedent(PUTTER), *arguments],
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                manager.until(lambda: waiting(manager) == len(putters), 30)
            for process in putters[:4]:
                process.send_signal(signal.SIGKILL)
                process.wait(30)
            manager.until(lambda: waiting(manager) == 2)

            assert [tasks.get(timeout=30) for _ in range(3)] == ["first", "4", "5"]
            with pytest.raises(queue.Empty):
                tasks.get_nowait()
            assert [process.communicate(timeout=30)[0] for process in putters[4:]] == ["put\n"] * 2
        finally:
            for process in putters:
                process.kill()
                process.communicate()


def test_a_put_raises_full_after_its_timeout_and_then_the_connection_serves_on():
    with running_manager(limits=Limits(max_queue_jobs=1)) as manager:
        tasks = connect(*manager.endpoint, manager.authkey).tasks()
        tasks.put(1)
        for arguments in ((True, 0.05), (False,)):
            with pytest.raises(queue.Full):
                tasks.put(2, *arguments)

        assert (tasks.full(), tasks.get(timeout=30), tasks.full()) == (True, 1, False)


def test_a_keyed_put_that_is_repeated_after_a_kill_of_the_manager_is_one_job(tmp_path: Path):
    host = Host(tmp_path)
    flags = ("--journal", str(tmp_path / "journal"), "--max-queue", "1")
    manager = host.start_manager("127.0.0.1:0", *flags)
    name, _, port = host.env["SVC_MANAGER"].rpartition(":")
    key = (tmp_path / "authkey").read_bytes().strip()
    try:
        connect(name, int(port), key).tasks().put({"task": "m:f", "queue": "q"})
        before = _calls(host)
        raised: list[BaseException] = []

        def put() -> None:
            try:
                connect(name, int(port), key).tasks().put(KEYED)
            except (OSError, EOFError) as error:
                raised.append(error)

        putter = threading.Thread(target=put, daemon=True)
        putter.start()
        until(lambda: _calls(host) > before, "the put has come")
        manager.kill()
        manager.wait(30)
        putter.join(30)
        assert len(raised) == 1

        manager = host.start_manager(f"{name}:{port}", *flags[:2])
        tasks = connect(name, int(port), key).tasks()
        for _ in range(2):
            tasks.put(KEYED)
        assert connect(name, int(port), key).jobs().show("put2-0")["state"] == "ready"
        with pytest.raises(KeyError):
            connect(name, int(port), key).jobs().show("put2-1")
    finally:
        end(manager)
        host.log.close()


def _calls(host: Host) -> float:
    """Return how many calls of plain clients the manager has taken in."""
    with urllib.request.urlopen(f"http://{host.env['MANAGER_HTTP']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    served = 'svc_manager_calls_total{method="plain",result="ok"} '
    return sum(float(each.removeprefix(served)) for each in lines if each.startswith(served))
