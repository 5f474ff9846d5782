"""A real manager in this process and real workers in their own, for tests."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from svc.broker.base import Broker
from svc.broker.clock import ManagerClock
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.manager import ManagerBroker
from svc.codec import decode_result, encode_arguments
from svc.domain import commands as c
from svc.domain.job import NewChunk, Outcome, Terms, job_id
from svc.domain.job_view import JobView
from svc.domain.limits import Limits
from svc.server.manager import Server, listen
from svc.telemetry.logs import LogSettings
from svc.worker.options import WorkerOptions
from tests.support.memory_journals import reopened
from tests.support.pickle_keys import PICKLE_KEYS, sealed
from tests.support.ports import lasting_port

KEY = b"k" * 32
TASKS = "tests.support.worker_tasks"
#: Modules that the forkserver of a test's worker loads for all its consumers.
PRELOAD = ("svc.worker.subreaper", "svc.worker.entry", "tests.support.workers")
_ROOT = Path(__file__).parents[2]


def connect(address: tuple[str, int], key: bytes, hello: Callable[[], c.Hello]) -> Broker:
    """Make a connection of a worker; picklable once the first two arguments are bound."""
    return ManagerBroker(address, key, hello=hello, timeout=5.0)


def configure_logging(level: str, descriptor: int = 2) -> None:
    """Log as JSON on stderr."""
    LogSettings("json", level).configure(descriptor)


def options(consumers: int = 2, **changes: Any) -> WorkerOptions:
    """Return the options of a worker `w` with the tests' tasks."""
    defaults = {
        "name": "w",
        "host": "here",
        "tasks": (TASKS,),
        "preload": PRELOAD,
        "pickle_keys": PICKLE_KEYS,
    }
    return WorkerOptions(consumers=consumers, **{**defaults, **changes})


def until(condition: Callable[[], object], seconds: float = 100.0, what: str = "") -> None:
    """Wait for an event that no signal reports; a failure names it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.01)


@dataclass
class Manager:
    """A manager on a free port, which it keeps over restarts; its event loop is in a thread."""

    limits: Limits = field(default_factory=Limits)
    address: tuple[str, int] = field(default_factory=lambda: ("127.0.0.1", lasting_port()))
    journal: Any = field(default_factory=MemoryJournal)
    workers: dict[str, Worker] = field(default_factory=dict)
    clock: ManagerClock | None = None

    def start(self) -> None:
        listener = listen(*self.address)
        self.address = listener.getsockname()[:2]
        host = QueueHost(self.journal, clock=self.clock, limits=self.limits)
        self.server = Server(host, listener, KEY)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(45)
        assert not self.thread.is_alive()

    def restart(self) -> None:
        """Restart at the same address from the journal."""
        self.stop()
        self.journal = reopened(self.journal)
        self.start()

    @contextlib.contextmanager
    def client(self, queue: str = "default") -> Iterator[Client]:
        with ManagerBroker(self.address, KEY) as broker:
            yield Client(broker, queue)


@dataclass
class Client:
    """Submits jobs to one queue and asks for their outcomes; each client has an origin of its own."""

    broker: ManagerBroker
    queue: str = "default"
    origin: str = field(default_factory=lambda: f"tests{secrets.token_hex(4)}")
    number: int = 0

    def submit(self, task: str, *argses: tuple[Any, ...], codec: str = "plain", **terms: Any) -> list[str]:
        """Submit one chunk, a job for each tuple of arguments; return the ids."""
        bodies = [encode_arguments(codec, args, {}) for args in argses or [()]]
        first, self.number = self.number, self.number + len(bodies)
        name = task if ":" in task else f"{TASKS}:{task}"
        sent = Terms(name, self.queue, codec=codec, **terms)
        bodies = sealed(self.origin, first, sent, bodies)
        chunk = NewChunk(first, sent, bodies)
        assert not self.broker.submit(self.origin, [chunk])
        return [job_id(self.origin, first + place) for place in range(len(bodies))]

    def outcomes(self, ids: list[str], seconds: float = 120.0) -> list[Outcome]:
        """Return the outcomes of the jobs, once all have ended."""
        missing, cursor, found = set(ids), 0, dict[str, Outcome]()
        deadline = time.monotonic() + seconds
        while missing:
            left = deadline - time.monotonic()
            assert left > 0, f"{len(missing)} of {len(ids)} jobs have not ended within {seconds} s"
            reply = self.broker.feed(c.Feed(self.origin, cursor, 1000, left))
            cursor = reply.cursor
            found.update((outcome.id, outcome) for outcome in reply.outcomes if outcome.id in missing)
            missing -= found.keys()
        return [found[each] for each in ids]

    def results(self, ids: list[str], seconds: float = 120.0) -> list[Any]:
        outcomes = self.outcomes(ids, seconds)
        assert all(outcome.error is None for outcome in outcomes), [outcome.error for outcome in outcomes]
        return [decode_result(outcome.result) for outcome in outcomes]

    def view(self, job: str) -> JobView:
        (found,) = self.broker.get([job])
        return found

    def state(self, job: str) -> str:
        return self.view(job).state

    def has_begun(self, job: str) -> bool:
        """Tell if the job's task has written a checkpoint; a leased job may not have begun yet."""
        return self.view(job).checkpoint_at is not None


@dataclass
class Worker:
    """A worker process and its log."""

    address: tuple[str, int]
    options: WorkerOptions
    log_level: str = "info"
    key: bytes = KEY
    prefix: tuple[str, ...] = ()
    stdout: int | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        settings = asdict(self.options)
        del settings["life"]  # each process has its own
        document = json.dumps(
            {"address": self.address, "level": self.log_level, "key": self.key.hex(), **settings},
            default=lambda secret: base64.b64encode(secret).decode(),
        )
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "tests.support.worker_main", document],
            env={**os.environ, "PYTHONPATH": str(_ROOT), **self.environment},
            stdout=self.stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.text.append(line)
                with contextlib.suppress(ValueError):
                    self.lines.append(json.loads(line))

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == name]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60.0) -> int:
        code = self.process.wait(seconds)
        self.reader.join(20.0)
        return code

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(45)
        self.reader.join(5.0)


Start = Callable[..., Worker]


def warm_up(client: Client, jobs: int = 3000) -> None:
    """Let consumers learn that this task is short, so that they read ahead."""
    client.results(client.submit("sleep", *[(0,)] * jobs))


def descendants(pid: int) -> list[int]:
    """Return the processes below *pid*, but for multiprocessing's resource tracker, which cleans up."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:  # it has ended meanwhile
        return []
    found = [int(child) for child in children if b"resource_tracker" not in command_of(int(child))]
    return found + [each for child in found for each in descendants(child)]


def command_of(pid: int) -> bytes:
    """Return the command line of a process; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def one_consumer(tasks: str) -> Iterator[Manager]:
    """Run a manager, and a worker of one consumer with a module of tasks, which has to leave in order."""
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(1, tasks=(tasks,)), "warning")
    manager.workers["w"] = worker
    worker.start()
    try:
        yield manager
    finally:
        worker.signal(signal.SIGTERM)
        code = worker.wait()
        manager.stop()
    assert code == 0
