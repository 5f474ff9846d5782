"""CPython's own tests of `concurrent.futures` executors, run over ours with a real manager and worker.

They are read at run time from the `test` package of the interpreter that runs this. If it has none,
`test_executor.py` beside this file and the unit tests must do. Two sets are not loaded: `FutureTests` (a
Future is inherited unchanged), and the tests of how a ProcessPoolExecutor breaks as a whole, which ours must
not do.
"""

from __future__ import annotations

import importlib
import unittest
from collections.abc import Iterator
from typing import Any

import pytest

from svc.broker.manager import ManagerBroker
from svc.client.executor import BrokerExecutor
from tests.support.pickle_keys import PICKLE_KEYS
from tests.support.workers import KEY, Manager, Worker, options

pytestmark = pytest.mark.slow

#: Mixins by the module that has them, if the tests are a package.
_MIXINS = {
    "executor": "ExecutorTest",
    "test_wait": "WaitTests",
    "test_as_completed": "AsCompletedTests",
    "test_shutdown": "ExecutorShutdownTest",
}
_BY_NAME = "it starts a program that imports an executor of the standard library by its name"
_SKIPPED = {
    "test_max_workers_negative": "how many consumers there are is for workers to say, not for an executor",
    "test_max_workers_too_large": "as above",
    "test_interpreter_shutdown": f"{_BY_NAME}; ours does nothing at exit, the jobs are durable",
    "test_submit_after_interpreter_shutdown": _BY_NAME,
    "test_hang_gh83386": _BY_NAME,
}
CONSUMERS = 5


def _mixins() -> dict[str, type]:
    """Return the mixins that this interpreter ships, by name."""
    try:
        package = importlib.import_module("test.test_concurrent_futures")
    except ImportError:
        return {}
    found: dict[str, type] = {}
    for module, name in _MIXINS.items():
        # One module until CPython 3.11, a package since.
        is_package = hasattr(package, "__path__")
        home = importlib.import_module(f"{package.__name__}.{module}") if is_package else package
        if hasattr(home, name):
            found[name] = getattr(home, name)
    return found


class Case(unittest.TestCase):
    """Makes an executor for each test, as the mixins expect to find it."""

    worker_count = CONSUMERS

    @pytest.fixture(autouse=True)
    def _find_service(self, service: Manager) -> None:
        self.address = service.address

    def setUp(self) -> None:
        self.executor = self.executor_type(max_workers=self.worker_count)

    def tearDown(self) -> None:
        self.executor.shutdown(wait=True)

    def executor_type(self, max_workers: int) -> BrokerExecutor:
        return BrokerExecutor(
            lambda: ManagerBroker(self.address, KEY), codec="pickle", pickle_keys=PICKLE_KEYS
        )


@pytest.fixture(scope="module")
def service() -> Iterator[Manager]:
    """A manager, and a worker that runs any callable."""
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(CONSUMERS, tasks=(), accept=("plain", "pickle")), "warning")
    worker.start()
    yield manager
    worker.end()
    manager.stop()


def _case(name: str, mixin: type) -> type:
    skips: dict[str, Any] = {
        test: unittest.skip(reason)(getattr(mixin, test))
        for test, reason in _SKIPPED.items()
        if hasattr(mixin, test)
    }
    return type(f"Service{name}", (mixin, Case), {**skips, "__module__": __name__})


_found = _mixins()
if not _found:
    pytest.skip(
        "this interpreter ships no test.test_concurrent_futures (on Debian: libpython3-testsuite)",
        allow_module_level=True,
    )
globals().update({f"Service{name}": _case(name, mixin) for name, mixin in _found.items()})
