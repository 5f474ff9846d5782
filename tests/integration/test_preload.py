"""`--preload`: modules that consumers share, and modules that fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.resources import strays
from tests.support.workers import Manager, Worker, options, until

MIB = 1024 * 1024
TASKS = """
import os, sys
def table():
    import lookup
    memory = dict(line.split(":") for line in open("/proc/self/smaps_rollup") if line.count(":") == 1)
    return [lookup.PID, os.getppid(), int(memory["Shared_Dirty"].split()[0]), "_SVC_PRELOAD" in os.environ]
"""


@pytest.fixture
def launch(manager: Manager, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def launch(source: str, consumers: int = 1, **changes: Any) -> Worker:
        (tmp_path / "lookup.py").write_text(source)
        (tmp_path / "with_table.py").write_text(TASKS)
        path = f"{Path(__file__).parents[2]}:{tmp_path}"
        served = options(consumers, tasks=("with_table",), user_preload=("lookup",), **changes)
        workers.append(Worker(manager.address, served, environment={"PYTHONPATH": path}))
        workers[-1].start()
        return workers[-1]

    yield launch
    for worker in workers:
        worker.end()


def test_consumers_share_the_memory_of_a_preloaded_module(launch, manager: Manager):
    worker = launch(f"import os\nPID = os.getpid()\nTABLE = b'x' * {64 * MIB}\n")
    with manager.client() as client:
        ((loaded_by, parent, shared_kib, announced),) = client.results(client.submit("with_table:table"))
    assert loaded_by == parent
    assert shared_kib >= 64 * 1024
    assert not announced
    assert not worker.events("preload_started_threads")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise ValueError('no table')\n", "'lookup' of --preload cannot be imported: ValueError: no table"),
        ("import no_such_module_here\n", "No module named 'no_such_module_here'"),
        ("import sys\nsys.exit('enough')\n", "SystemExit: enough"),
        ("import os\nos._exit(7)\n", "--preload (lookup) ended: exit code 7"),
        ("import os\nos.abort()\n", "SIGABRT"),
    ],
)
def test_a_preloaded_module_that_fails_ends_the_worker_with_its_name(source: str, told: str, launch):
    worker = launch(source)
    assert worker.wait(60) == 2
    assert told in "".join(worker.text)


def test_a_preloaded_module_that_hangs_ends_the_worker_and_leaves_no_process(launch, tmp_path: Path):
    worker = launch("import time\ntime.sleep(600)\n", import_timeout=0.5)
    assert worker.wait(60) == 2
    assert "--preload (lookup) took longer than 0.5 s" in "".join(worker.text)
    until(lambda: not strays(str(tmp_path), ()), what="all its processes end")


def test_a_worker_that_is_stopped_while_it_preloads_ends_at_once(launch, tmp_path: Path):
    worker = launch(
        "import time, pathlib\npathlib.Path(__file__).with_name('begun').touch()\ntime.sleep(600)\n"
    )
    until((tmp_path / "begun").exists)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_threads_of_a_preloaded_module_are_warned_of_once(launch, manager: Manager):
    source = (
        "import os, threading, time\n"
        "PID = os.getpid()\n"
        "threading.Thread(target=time.sleep, args=(600,), name='pump', daemon=True).start()\n"
    )
    worker = launch(source, 2)
    with manager.client() as client:
        client.results(client.submit("with_table:table"))
    until(lambda: worker.events("preload_started_threads"))
    assert [line["threads"] for line in worker.events("preload_started_threads")] == ["pump"]


def test_a_new_forkserver_preloads_again(launch, manager: Manager):
    launch("import os\nPID = os.getpid()\n")
    with manager.client() as client:
        ((first, *_),) = client.results(client.submit("with_table:table"))
        os.kill(first, signal.SIGKILL)
        # It ends as a zombie, which is gone as soon as there is a new one.
        until(lambda: not Path(f"/proc/{first}").exists())
        ((second, parent, *_),) = client.results(client.submit("with_table:table"))
    assert first != second == parent
