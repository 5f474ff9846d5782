"""The measured systems: the service, and the standard library's alternatives.

Each does the same work with four processes. A system is a context manager; after entering it, its processes
are started and have run their first jobs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.managers import BaseManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, Self

from benchmarks import tasks
from benchmarks.processes import family
from svc import Client

#: What is added to the name of a service whose settings differ from the defaults in that alone.
LOGS_OFF = ", logs off"
#: Consumers, or processes of a pool.
PROCESSES = 4
_START_SECONDS = 30.0
_Function = Callable[[Any], Any]


class System(Protocol):
    """A system that runs functions in other processes."""

    name: str

    def all(self, function: _Function, arguments: Iterable[object]) -> Iterator[object]:
        """Run *function* for each of *arguments*; yield the results in any order."""

    def one(self, function: _Function, argument: object) -> object:
        """Run one call and return its result."""

    def pids(self) -> dict[str, list[int]]:
        """Return the process ids of the system by part, without the caller's own."""


@dataclass(frozen=True)
class Release:
    """The source tree of a manager or a worker.

    Attributes:
        package: its import name, which was `service` once.
        path: the folder that holds the package, and nothing else; None for the tree of this benchmark.
    """

    package: str = "svc"
    path: Path | None = None


#: The release whose tree this is.
THIS = Release()


class Service:
    """A manager and a worker with four consumers, as commands, and a client of them.

    All is as it is by default, but for the durability and what is named; the log goes into a file.
    """

    def __init__(
        self,
        durability: str,
        *manager_flags: str,
        consumers: int = PROCESSES,
        logs: bool = True,
        release: Release = THIS,
    ) -> None:
        """Prepare a service.

        Args:
            durability: of the journal.
            manager_flags: other flags of the manager.
            consumers: of the worker; 0 for no worker.
            logs: whether the log level is the default, `info`, at which each attempt is on record; otherwise
                it is `warning`, and the name says so.
            release: of the manager that is started first.
        """
        self.name = f"svc, {durability}{'' if logs else LOGS_OFF}"
        self._logs = logs
        self.durability = durability
        self._flags = manager_flags
        self._consumers = consumers
        self._release = release
        self._stack = ExitStack()
        #: The manager's address, which it has again when it is started again.
        self.address = "127.0.0.1:0"

    def __enter__(self) -> Self:
        """Start both on loopback, in a temporary folder, and wait until all consumers are connected."""
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="svc-benchmark-")))
        self.keyfile = self.folder / "authkey"
        self.keyfile.write_text(secrets.token_hex(32))
        self.keyfile.chmod(0o600)
        self.start_manager(self._release)
        self.worker = self.start_worker(self._consumers) if self._consumers else None
        self.client = self._stack.enter_context(Client(self.address, authkey_file=self.keyfile))
        self.wait_for_consumers(self._consumers)
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop both, the worker first."""
        self._stack.close()

    @property
    def authkey(self) -> bytes:
        """The secret, as a stock client passes it."""
        return self.keyfile.read_bytes().strip()

    @property
    def pid(self) -> int:
        """The manager's process."""
        return self.manager.pid

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port, as a stock client passes them."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def all(self, function: _Function, arguments: Iterable[object]) -> Iterator[object]:
        """Submit all jobs, then follow their results."""
        return self.client.map(task_name(function), arguments)

    def one(self, function: _Function, argument: object) -> object:
        """Submit one job and wait for its result."""
        return self.client.submit(task_name(function), argument).result()

    def submit(self, function: _Function, arguments: Iterable[object], queue_name: str) -> None:
        """Submit jobs to a queue, and do not wait for them."""
        submitter = self.client.options(queue=queue_name)
        submitter.submit_many(task_name(function), ((each,) for each in arguments))

    def pids(self) -> dict[str, list[int]]:
        """Return the manager's process, and the supervisor with its consumers."""
        worker = family(self.worker.pid) if self.worker is not None else []
        return {"manager": [self.manager.pid], "consumers": worker}

    def start_manager(self, release: Release = THIS) -> None:
        """Start a manager of *release* on the current journal, and wait until it serves."""
        announced = self.folder / "manager.json"
        announced.unlink(missing_ok=True)
        self.manager = self._child(
            ["manager", "--listen", self.address, "--http", "127.0.0.1:0", "--durability", self.durability,
             "--journal", str(self.folder / "journal"), "--announce", str(announced), *self._flags],
            release,
        )  # fmt: skip
        until(announced.exists)
        places = json.loads(announced.read_text())
        self.address, self.http = str(places["listen"]), str(places["http"])

    def replace_manager(self) -> float:
        """Kill the manager and start another one; return the seconds from its start to its first answer."""
        self.manager.kill()
        self.manager.wait()
        started = time.perf_counter()
        self.start_manager()
        with Client(self.address, authkey_file=self.keyfile) as client:
            client.stats()
        return time.perf_counter() - started

    def start_worker(
        self, consumers: int, *flags: str, manager: str | None = None, release: Release = THIS
    ) -> subprocess.Popen[bytes]:
        """Start a worker of *release*, which reaches the manager at another address if *manager* names one.

        It is stopped with the service, unless `end` stops it before.
        """
        place = manager or self.address
        command = ["worker", "--manager", place, "--tasks", "benchmarks.tasks", "--http", "off"]
        return self._child([*command, "--consumers", str(consumers), *flags], release)

    def wait_for_consumers(self, count: int) -> None:
        """Wait until *count* consumers are connected."""
        until(lambda: self.client.stats().consumers == count)

    def _child(self, arguments: list[str], release: Release) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", release.package, *arguments]
        command += ["--authkey-file", str(self.keyfile)]
        command += [] if self._logs else ["--log-level", "warning"]
        with (self.folder / "log").open("ab") as log:
            child = subprocess.Popen(command, env=environment(release), stdout=subprocess.DEVNULL, stderr=log)
        self._stack.callback(end, child)
        return child


class Pool:
    """`multiprocessing.Pool.imap_unordered`, one job at a time."""

    name = "multiprocessing.Pool"

    def __enter__(self) -> Self:
        """Start its processes."""
        context = multiprocessing.get_context("fork")
        self._pool = context.Pool(PROCESSES)
        self._pids = [child.pid for child in multiprocessing.active_children() if child.pid]
        self._pool.map(tasks.same, range(100), 1)
        return self

    def __exit__(self, *exception: object) -> None:
        """End them."""
        self._pool.terminate()
        self._pool.join()

    def all(self, function: _Function, arguments: Iterable[object]) -> Iterator[object]:
        """Yield results as they come."""
        return self._pool.imap_unordered(function, arguments, chunksize=1)

    def one(self, function: _Function, argument: object) -> object:
        """Run one call."""
        return self._pool.apply(function, (argument,))

    def pids(self) -> dict[str, list[int]]:
        """Return the processes of the pool."""
        return {"consumers": self._pids}


class Executor:
    """`concurrent.futures.ProcessPoolExecutor.submit`."""

    name = "ProcessPoolExecutor"

    def __init__(self, processes: int = PROCESSES) -> None:
        """Prepare so many processes."""
        self._processes = processes

    def __enter__(self) -> Self:
        """Start its processes."""
        before = {child.pid for child in multiprocessing.active_children()}
        self.pool = ProcessPoolExecutor(self._processes, multiprocessing.get_context("fork"))
        list(self.pool.map(tasks.same, range(100)))
        after = {child.pid for child in multiprocessing.active_children()}
        self._pids = [pid for pid in after - before if pid]
        return self

    def __exit__(self, *exception: object) -> None:
        """End them."""
        self.pool.shutdown()

    def all(self, function: _Function, arguments: Iterable[object]) -> Iterator[object]:
        """Submit all, then yield the results in order."""
        futures = [self.pool.submit(function, argument) for argument in arguments]
        return (future.result() for future in futures)

    def one(self, function: _Function, argument: object) -> object:
        """Run one call."""
        return self.pool.submit(function, argument).result()

    def pids(self) -> dict[str, list[int]]:
        """Return the processes of the pool."""
        return {"consumers": self._pids}


class StockServer:
    """The standard library's own way to share a queue over TCP: a BaseManager with a `queue.Queue`."""

    name = "stdlib BaseManager"

    def __enter__(self) -> Self:
        """Start its server in a process."""
        self.authkey = secrets.token_hex(32).encode()
        context = multiprocessing.get_context("fork")
        before = {child.pid for child in multiprocessing.active_children()}
        self._manager = _Stock(("127.0.0.1", 0), self.authkey, ctx=context)
        self._manager.start()
        self.endpoint = self._manager.address
        (self.pid,) = {child.pid or 0 for child in multiprocessing.active_children()} - before
        return self

    def __exit__(self, *exception: object) -> None:
        """End it."""
        self._manager.shutdown()


class _Stock(BaseManager):
    """A manager of one queue."""


_shared: queue.Queue[object] = queue.Queue()


def _shared_queue() -> queue.Queue[object]:
    return _shared


_Stock.register("tasks", _shared_queue)


def task_name(function: Callable[..., Any]) -> str:
    """Return the name by which a worker knows *function*."""
    return f"{function.__module__}:{function.__qualname__}"


def environment(release: Release = THIS) -> dict[str, str]:
    """Return the environment of all commands: no settings, a source tree, and bytecode as if installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SVC_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    folders = [release.path] if release.path is not None else []
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, [*folders, Path(__file__).parents[1]]))}


def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds.

    Raises:
        TimeoutError: it does not hold within the time that a start may take.
    """
    end = time.monotonic() + _START_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"the service did not start within {_START_SECONDS:g} s")
        time.sleep(0.01)


def end(child: subprocess.Popen[bytes]) -> None:
    """Stop a process, and wait until it has ended."""
    child.terminate()
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
