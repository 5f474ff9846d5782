"""CPython's own tests of a manager's queue, run over ours by each CPython of this machine that ships them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.domain.limits import Limits
from tests.support import stdlib_queue_tests
from tests.support.manager import running_manager
from tests.support.pythons import interpreters

_PROGRAM = Path(stdlib_queue_tests.__file__)
#: Tests about the thread of a `multiprocessing.Queue`; CPython skips them for the queues of a manager.
_OF_OTHER_QUEUES = {"test_queue_feeder_donot_stop_onexc", "test_queue_feeder_on_queue_feeder_error"}
#: CPython 3.9 has nine tests of a queue, with those.
_PASSED_MIN = 7


#: Managers for one run: each test of a queue takes another one.
_MANAGERS = 14


@pytest.fixture
def managers() -> Iterator[list[tuple[str, int, str, int]]]:
    """Managers with the bound of CPython's test of a full queue, as the program reads them."""
    bound = stdlib_queue_tests.MAXSIZE
    with contextlib.ExitStack() as stack:
        yield [
            (*each.endpoint[:2], each.authkey.hex(), maxsize)
            for maxsize in [bound] + [0] * _MANAGERS
            for each in [stack.enter_context(running_manager(limits=_limits(maxsize)))]
        ]


def _limits(maxsize: int) -> Limits:
    return Limits(max_queue_jobs=maxsize) if maxsize else Limits()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tasks", "results"])
@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).parts[-3])
def test_the_stdlibs_own_tests_of_a_queue_pass(python, name, managers, tmp_path):
    done = subprocess.run(
        [python, str(_PROGRAM), name],
        input=json.dumps(managers),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == stdlib_queue_tests.NONE_SHIPPED and not _must_ship(python):
        pytest.skip(f"{python} ships no test._test_multiprocessing: {done.stdout.strip()}")

    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-2:]
    assert int(last[1].removeprefix("passed: ")) >= _PASSED_MIN, done.stdout
    assert set(last[0].split()[1:]) == _OF_OTHER_QUEUES


def _must_ship(python: str) -> bool:
    """Return whether missing tests are a failure: in CI for this interpreter, unless it is a distribution's.

    Distributions have them in a package of its own; an interpreter that was built from its source has them.
    """
    own = python == str(Path(sys.executable))
    return bool(os.environ.get("CI")) and own and Path(sys.base_prefix) != Path("/usr")
