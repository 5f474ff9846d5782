"""CPython's own tests of a manager's queue, over `tasks` or `results`: run by any CPython that ships them.

`python stdlib_queue_tests.py OBJECT` reads a list of managers from standard input, each as `[host, port, key
in hex, bound]`. The exit code `NONE_SHIPPED` says that this interpreter ships no such tests. The program uses
only the standard library.

Each test gets the queue of another manager, so that it is empty. A process keeps its connection until it is
joined, since a stock client that ends without `task_done()` gives its jobs back. The tests join a process
after their last look at the queue.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import sys
import unittest
from multiprocessing.managers import BaseManager
from typing import Any

NONE_SHIPPED = 2
#: The bound that `test_put` asks for.
MAXSIZE = 6
_fork: Any = multiprocessing.get_context("fork")


class Service(BaseManager):
    """A stock client of svc."""


for each in ("tasks", "results"):
    Service.register(each)


class Process(_fork.Process):  # type: ignore[misc]  # its class depends on the context
    """A process that ends when it is joined."""

    def start(self) -> None:
        """Start it, with a pipe that tells it to end."""
        self._told, self._tell = multiprocessing.Pipe(duplex=False)
        super().start()

    def run(self) -> None:
        """Run the target, and wait for the end."""
        super().run()
        self._told.poll(60)

    def join(self, timeout: float | None = None) -> None:
        """Let it end, and wait for that."""
        # A byte, and not the end of the pipe: processes that were forked later hold copies of it.
        self._tell.send_bytes(b"end")
        super().join(timeout)


class Queues:
    """The queues of managers, each of which is handed out once."""

    def __init__(self, name: str, managers: list[tuple[str, int, str, int]]) -> None:
        """Hand out the shared object *name* of *managers*."""
        self._name = name
        self._managers = managers

    def make(self, maxsize: int = 0) -> Any:
        """Return an empty queue with the bound *maxsize*, or with one that no test reaches."""
        fitting = next(each for each in self._managers if each[3] == maxsize)
        self._managers.remove(fitting)
        host, port, key, _ = fitting
        service = Service((host, port), authkey=bytes.fromhex(key))
        service.connect()
        return getattr(service, self._name)()


def flavour(queues: Queues, shipped: Any) -> type[unittest.TestCase]:
    """Return the tests of the manager flavour, with *queues* in place of those of the standard library."""
    helpers = _fork.Manager()
    make = staticmethod(queues.make)
    members = {"TYPE": "manager", "Process": Process, "Event": staticmethod(helpers.Event)}
    bases = (shipped._TestQueue, unittest.TestCase)
    return type("WithServiceTestQueue", bases, {**members, "Queue": make, "JoinableQueue": make})


def main(name: str) -> int:
    """Run the tests; return the exit code."""
    try:
        shipped = importlib.import_module("test._test_multiprocessing")
    except (ImportError, unittest.SkipTest) as error:
        sys.stdout.write(f"not shipped: {error}\n")
        return NONE_SHIPPED
    case = flavour(Queues(name, json.load(sys.stdin)), shipped)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
    skipped = [test.id().rpartition(".")[2] for test, _ in result.skipped]
    failed = len(result.failures) + len(result.errors)
    sys.stdout.write(f"skipped: {' '.join(sorted(skipped))}\n")
    sys.stdout.write(f"passed: {result.testsRun - len(skipped) - failed}\n")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
