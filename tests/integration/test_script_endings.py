"""Jobs that a program has submitted by an Executor are sent, in whichever way the program ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.workers import KEY, Manager

_ROOT = Path(__file__).parents[2]
JOBS = 1500
BEGIN = """
import atexit, sys
from svc import Executor
def submit(executor):
    for number in range({jobs}):
        future = executor.submit("m:f", number)
    print(future.job_id.rpartition("-")[0], flush=True)
"""
ENDINGS = {
    "by exit with a code": ("executor = Executor(); submit(executor); sys.exit(3)", 3),
    "by an exception": ("executor = Executor(); submit(executor); 1 / 0", 1),
    "without the executor": ("executor = Executor(); submit(executor); del executor", 0),
    "after a shutdown": ("executor = Executor(); submit(executor); executor.shutdown(wait=False)", 0),
    "without a place for errors": ("executor = Executor(); submit(executor); sys.stderr = None", 0),
    "with an unread map": ("e = Executor(); submit(e); results = e.map('m:f', range(9))", 0),
    "submitting in a later exit handler": (
        "executor = Executor(); executor.submit('m:f', 1); atexit.register(submit, executor)", 0
    ),
    "submitting in an earlier exit handler": (
        "atexit.register(lambda: submit(executor)); executor = Executor(); executor.submit('m:f', 1)", 0
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def manager() -> Iterator[Manager]:
    manager = Manager()
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture
def run(manager: Manager, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    key = tmp_path / "authkey"
    key.write_bytes(KEY)
    key.chmod(0o600)
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "SVC_MANAGER": "{}:{}".format(*manager.address),
        "SVC_AUTHKEY_FILE": str(key),
    }

    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", BEGIN.format(jobs=JOBS) + program],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("program", "code"), ENDINGS.values(), ids=ENDINGS)
def test_a_program_loses_nothing_however_it_ends(run, manager, program, code):
    done = run(program)

    assert done.returncode == code, done.stderr
    origin = done.stdout.strip()
    with manager.client() as client:
        for number in (0, JOBS // 2, JOBS - 1):
            assert client.view(f"{origin}-{number}").state == "ready"


def test_a_submit_after_the_threads_have_ended_is_refused(run):
    program = """
executor = Executor()
executor.submit("m:f", 1)
class Late:
    def __del__(self):
        try:
            executor.submit("m:f", 2)
        except RuntimeError as error:
            print(error, flush=True)
late = Late()
"""
    done = run(program)

    assert (done.returncode, done.stdout) == (0, "cannot schedule new futures after interpreter shutdown\n")
