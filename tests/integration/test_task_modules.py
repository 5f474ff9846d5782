"""Task modules that crash, hang or end the process that imports them, and the report of a crash."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.workers import Manager, Worker, options, until


def start(manager: Manager, folder: Path, source: str, **changes: float) -> Worker:
    """Start a worker whose only task module has this source."""
    (folder / "module_of_tasks.py").write_text(source)
    path = f"{Path(__file__).parents[2]}:{folder}"
    served = options(2, tasks=("module_of_tasks",), **changes)
    worker = Worker(manager.address, served, environment={"PYTHONPATH": path})
    worker.start()
    return worker


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import os\nos._exit(0)", "exit code 0"),
        ("import os\nos._exit(7)", "exit code 7"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("def fall():\n    import ctypes\n    ctypes.string_at(0)\nfall()", "SIGSEGV"),
        ("import os\nos.abort()", "SIGABRT"),
    ],
)
def test_a_module_that_ends_its_process_ends_the_worker_with_true_words(
    source: str, told: str, manager: Manager, tmp_path: Path
):
    worker = start(manager, tmp_path, source)
    assert worker.wait(60) == 2
    said = "".join(worker.text)
    assert "module_of_tasks" in said
    assert told in said
    assert "no connection" not in said
    if told in ("SIGSEGV", "SIGABRT"):
        assert 'module_of_tasks.py", line' in said


def test_a_module_that_hangs_ends_the_worker(manager: Manager, tmp_path: Path):
    worker = start(manager, tmp_path, "import time\ntime.sleep(600)", import_timeout=0.5)
    assert worker.wait(60) == 2
    assert "it took longer than 0.5 s" in "".join(worker.text)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def f():\n    raise ValueError('bad')\nf()", "ValueError: bad"),
        ("import sys\nsys.exit('enough')", "SystemExit: enough"),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
    ],
)
def test_a_module_that_raises_is_told_with_file_and_line(
    source: str, told: str, manager: Manager, tmp_path: Path
):
    worker = start(manager, tmp_path, source)
    assert worker.wait(60) == 2
    said = "".join(worker.text)
    assert told in said
    assert f'File "{tmp_path}/module_of_tasks.py", line' in said
    assert "importlib" not in said


# --- the record of attempts that end their consumer -------------------------------------------------


@pytest.mark.parametrize(
    ("call", "terms", "outcome", "told"),
    [
        ("os._exit(3)", {}, "crashed", "exit code 3"),
        ("ctypes.string_at(0)", {}, "crashed", "SIGSEGV"),
        ("time.sleep(60)", {"timeout": 0.3}, "timed_out", "timeout of 0.3 s"),
    ],
)
def test_an_attempt_that_ends_its_consumer_is_on_record_with_its_job_and_task(
    call: str, terms: dict[str, Any], outcome: str, told: str, manager: Manager, tmp_path: Path
):
    source = f"import ctypes, os, time\ndef end():\n    {call}\ndef ok():\n    return 1\n"
    worker = start(manager, tmp_path, source)
    with manager.client() as client:
        (job,) = client.submit("module_of_tasks:end", retries=0, **terms)
        until(lambda: worker.events("attempt_finished"))
        line = worker.events("attempt_finished")[0]
        assert (line["job_id"], line["task"], line["queue"]) == (job, "module_of_tasks:end", "default")
        assert (line["outcome"], line["attempt"]) == (outcome, 1)
        assert told in line["error"]
        assert 0.0 < line["run_s"] < 50.0
        (ended,) = client.outcomes([job])
        assert ended.error is not None
        if "SIGSEGV" in told:
            assert 'module_of_tasks.py", line 3 in end' in ended.error.traceback
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
