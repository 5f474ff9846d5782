"""Unmodified stdlib clients, of every CPython from 3.9 on that this machine has (promise 9)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.manager import running_manager
from tests.support.pythons import interpreters
from tests.support.svc import ended_late, first_line

PRELUDE = """
import json, os, sys, time, queue
from multiprocessing.managers import BaseManager
class Manager(BaseManager): pass
for name in ("tasks", "results", "jobs"): Manager.register(name)
def connect():
    manager = Manager((sys.argv[1], int(sys.argv[2])), authkey=bytes.fromhex(sys.argv[3]))
    manager.connect()
    return manager
"""


@pytest.fixture
def manager():
    with running_manager() as running:
        yield running


def start(python: str, manager, script: str) -> subprocess.Popen[str]:
    host, port = manager.endpoint
    return subprocess.Popen(
        [python, "-c", PRELUDE + textwrap.dedent(script), host, str(port), manager.authkey.hex()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    with ended_late(process):
        return process.communicate()


def run(python: str, manager, script: str) -> Any:
    process = start(python, manager, script)
    out, err = output_of(process)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).parts[-3])
def test_a_stock_client_produces_and_consumes(python, manager):
    seen = run(
        python,
        manager,
        """
        tasks, results = connect().tasks(), connect().results()
        item = {"a": 1, "b": (1, 2.5, None, b"x"), "c": [True, {3}]}
        tasks.put(item)
        sizes = [tasks.qsize(), tasks.empty(), tasks.full()]
        same = tasks.get() == item
        tasks.task_done()
        tasks.join()
        raised = []
        for call in (lambda: tasks.get(timeout=0.05), tasks.get_nowait, tasks.task_done):
            try: call()
            except Exception as error: raised.append(type(error).__name__)
        results.put([1, 2])
        tasks.put(None)
        print(json.dumps([sizes, same, raised, results.get(), results.qsize(), tasks.get()]))
        """,
    )

    assert seen == [[1, False, False], True, ["Empty", "Empty", "ValueError"], [1, 2], 0, None]


def test_killed_waiters_eat_no_job(manager):
    """Trap A1: the stdlib's own server loses one job for each waiter that is killed in `get()`."""
    waiter = """
        tasks, results = connect().tasks(), connect().results()
        print("waiting", flush=True)
        while True:
            item = tasks.get()
            results.put(item)
            tasks.task_done()
    """
    pythons = interpreters()
    waiters = [start(pythons[place % len(pythons)], manager, waiter) for place in range(10)]
    try:
        for process in waiters:
            assert first_line(process) == "waiting\n"
        manager.until(lambda: manager.waiting() == len(waiters))
        for process in waiters[:8]:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)

        arrived = run(
            sys.executable,
            manager,
            """
            tasks, results = connect().tasks(), connect().results()
            for number in range(20): tasks.put(number)
            tasks.join()
            print(json.dumps(sorted(results.get(timeout=30) for _ in range(20))))
            """,
        )
    finally:
        for process in waiters:
            process.kill()
            process.communicate()

    assert arrived == list(range(20))


def test_what_a_dead_consumer_held_goes_to_another(manager):
    python = sys.executable
    holder = start(
        python, manager, 'tasks = connect().tasks(); tasks.get(); print("held", flush=True); time.sleep(60)'
    )
    try:
        run(python, manager, 'connect().tasks().put("precious"); print(1)')
        assert first_line(holder) == "held\n"
    finally:
        holder.kill()
        holder.communicate()

    assert run(python, manager, "print(json.dumps(connect().tasks().get(timeout=30)))") == "precious"


def test_a_pill_that_was_put_goes_to_exactly_one_plain_consumer(manager):
    seen = run(
        sys.executable,
        manager,
        """
        tasks = connect().tasks()
        tasks.put("first"); tasks.put(None)
        print(json.dumps([tasks.get(), tasks.get(), tasks.empty()]))
        """,
    )

    assert seen == ["first", None, True]


@pytest.mark.parametrize(
    "call",
    [
        "manager.shutdown()",
        "tasks._callmethod('#GETVALUE')",
        "tasks._callmethod('__repr__')",
        "manager._debug_info()",
    ],
)
def test_the_dangerous_corners_of_the_stdlib_server_do_not_exist(manager, call):
    """Traps A14: any client could stop the server, print its objects, or pickle the whole queue out."""
    seen = run(
        sys.executable,
        manager,
        f"""
        manager = connect(); tasks = manager.tasks(); tasks.put(1)
        try: {call}; said = "served"
        except Exception as error: said = type(error).__name__
        print(json.dumps([said, connect().tasks().qsize()]))
        """,
    )

    assert seen[0] != "served"
    assert seen[1] == 1


def test_a_wrong_authkey_learns_nothing(manager):
    host, port = manager.endpoint
    script = PRELUDE + textwrap.dedent(
        """
        try: connect()
        except Exception as error: print(json.dumps([type(error).__name__, str(error)]))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, host, str(port), b"wrong".hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert json.loads(done.stdout) == ["AuthenticationError", "digest sent was rejected"]


def test_a_drain_hands_a_pill_to_every_plain_consumer_that_asks_and_takes_its_acknowledgement(manager):
    waiting = start(
        sys.executable,
        manager,
        """
        tasks = connect().tasks()
        print("waiting", flush=True)
        pill = tasks.get(); tasks.task_done()
        print(json.dumps([pill, tasks.get_nowait()]))
        """,
    )
    assert first_line(waiting) == "waiting\n"
    manager.until(lambda: manager.waiting() == 1)
    with manager.broker() as operator:
        operator.drain()
        out, err = output_of(waiting)
        assert json.loads(out) == [None, None], err
        operator.resume()

    served = run(
        sys.executable, manager, "tasks = connect().tasks(); tasks.put(7); print(tasks.get(timeout=30))"
    )
    assert served == 7
