"""The processes of a campaign: a manager, direct and proxied workers, stock clients, and their records."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from svc.addresses import parse_manager
from svc.app import connect
from svc.broker.manager import ManagerBroker
from svc.codec import PLAIN, encode_arguments
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.errors import ManagerUnreachable
from svc.key_files import read_authkey
from tests.support.cgroups import Cgroup, WriteLimit
from tests.support.faketime import Clock
from tests.support.history import Recorder
from tests.support.namespaces import Namespace
from tests.support.processes import Service, children, descendants
from tests.support.pythons import interpreters
from tests.support.resources import Usage, sockets, usage
from tests.support.small_disk import mounted_memory

TASKS = "tests.support.fault_tasks"
WORK = f"{TASKS}:work"
#: Run times of the producers' jobs: some are read ahead, some are not.
_WORK_SECONDS = (0.0, 0.0, 0.001, 0.005, 0.02)
#: Seconds of a lease; short, so that a frozen worker loses its lease soon.
LEASE_SECONDS = 2.0
#: Seconds that a call of a producer may take beyond the time that it waits for jobs.
CALL_SECONDS = 3.0
#: Memory of a worker with all its consumers, above which the kernel kills one of them.
WORKER_BYTES = 512 << 20
#: Consumers of a worker; other children of its supervisor (a forkserver and a resource tracker).
CONSUMERS, HELPERS = 3, 2
#: Threads of the campaign that submit jobs, each over a connection of its own.
PRODUCERS = 5
#: Flags of every manager. Nothing is ever forgotten: the checker reads all of it.
MANAGER_FLAGS = (
    "--lease", f"{LEASE_SECONDS:g}", "--max-job-bytes", "1MiB",
    "--retain-count", "1000000000", "--retention", "1000000000", "--dead-retention", "1000000000",
)  # fmt: skip
ACTOR = Path(__file__).parents[1] / "support" / "plain_actor.py"


class Site:
    """All processes of one campaign, in a folder.

    Attributes:
        missing: features that this machine lacks, by the name of their attribute, with the reason.
    """

    def __init__(self, folder: Path, seed: int, kind: type[Service] = Service) -> None:
        """Prepare the processes; the managers are a service of this *kind*."""
        self.folder = folder
        self.random = random.Random(seed)
        self.missing: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        self._obtain()
        host = "127.0.0.1" if "network" in self.missing else self.network.host
        self.service = kind(folder, TASKS, host=host)
        self.worker_proxy, self.client_proxy = self.service.proxy(), self.service.proxy()
        #: Sockets of a manager without peers.
        self._own_sockets = 1
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.actors: dict[str, subprocess.Popen[bytes]] = {}
        self.stock_pids: set[int] = set()
        self._roles: dict[str, tuple[str, str]] = {}
        self._names = itertools.count()
        self._pythons = interpreters()

    def _obtain(self) -> None:
        """Set up the parts that need root or a tool; those that fail are missing."""
        with self._or_missing("network"):
            self.network = self._stack.enter_context(contextlib.closing(Namespace()))
        with self._or_missing("groups"):
            self.groups = {name: self._group(name) for name in ("manager", "direct", "proxied")}
            for name in ("direct", "proxied"):
                self.groups[name].limit_memory(WORKER_BYTES)
        with self._or_missing("mounts"), mounted_memory(self.folder / "mounted", 64):
            pass
        with self._or_missing("slow_disks"), WriteLimit(self.folder, 1):
            pass
        with self._or_missing("clock"):
            self.clock = Clock(self.folder / "time_of_day")

    @contextlib.contextmanager
    def _or_missing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.missing[what] = str(error)

    def _group(self, name: str) -> Cgroup:
        return self._stack.enter_context(contextlib.closing(Cgroup(name)))

    def _prefix(self, name: str) -> tuple[str, ...]:
        """Return the words before the command of a manager or worker, which make it run in its place."""
        prefix = () if "groups" in self.missing else self.groups[name].prefix
        if name == "direct" and "network" not in self.missing:
            prefix += self.network.prefix
        return prefix

    def start(self) -> None:
        self.start_manager()
        assert self.service.manager is not None
        self._own_sockets = sockets(self.service.manager.pid)
        self.start_worker("direct")
        self.start_worker("proxied")
        for place in range(3):
            self.start_actor(
                "produce" if place == 0 else "consume", self._pythons[place % len(self._pythons)]
            )

    def start_manager(
        self,
        *,
        wait: bool = True,
        environment: Mapping[str, str] | None = None,
        module: tuple[str, ...] = ("svc",),
        flags: tuple[str, ...] = (),
    ) -> None:
        prefix, flags = self._prefix("manager"), (*MANAGER_FLAGS, *flags)
        self.service.start_manager(*flags, wait=wait, prefix=prefix, environment=environment, module=module)

    def start_worker(self, name: str) -> None:
        manager = self.worker_proxy.address if name == "proxied" else self.service.listen
        self.workers[name] = self.service.run(
            "worker", "--http", "off", "--tasks", TASKS, "--consumers", str(CONSUMERS), "--name", name,
            "--queues", "default,poison", "--manager", manager, prefix=self._prefix(name),
            module=("tests.support.fail_points", str(self.folder)),
        )  # fmt: skip

    def replace_workers(self) -> list[str]:
        """Start workers anew that have ended, as an operator's supervisor would; say how each had ended."""
        ended = {name: each.returncode for name, each in self.workers.items() if each.poll() is not None}
        for name in ended:
            self.start_worker(name)
        return [f"worker {name} had ended with exit code {code}" for name, code in ended.items()]

    def start_actor(self, role: str, python: str) -> None:
        """Start a stock client of another CPython; each has its own name, and so its own labels."""
        name = f"plain{next(self._names)}"
        host, _, port = self.service.serves_at.rpartition(":")
        key = self.service.authkey_file.read_bytes().hex()
        with (self.folder / "plain.log").open("ab") as log:
            self.actors[name] = subprocess.Popen(
                [python, str(ACTOR), role, host, port, key, name, str(self.folder), WORK],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.stock_pids.add(self.actors[name].pid)
        self._roles[name] = role, python

    def replace_actors(self) -> None:
        """Replace stock clients that have ended: a stock client cannot reconnect."""
        for name, process in list(self.actors.items()):
            if process.poll() is not None:
                del self.actors[name]
                self.start_actor(*self._roles.pop(name))

    def actors_in(self, role: str) -> list[subprocess.Popen[bytes]]:
        return [process for name, process in self.actors.items() if self._roles[name][0] == role]

    def end_actors(self, role: str) -> frozenset[int]:
        """End the stock clients of one role for good; return their processes."""
        ended = self.actors_in(role)
        for process in ended:
            process.kill()
            process.wait()
        self.actors = {name: process for name, process in self.actors.items() if process not in ended}
        return frozenset(process.pid for process in ended)

    def tree(self, name: str) -> list[int]:
        """Return the processes of a worker, its supervisor first."""
        return [self.workers[name].pid, *descendants(self.workers[name].pid)]

    @property
    def mark(self) -> str:
        """Text in the environment of every `svc` process of this site, and of no other process."""
        return f"SVC_AUTHKEY_FILE={self.service.authkey_file}"

    def processes(self) -> set[int]:
        """Return the managers' processes and those of the workers."""
        managers = [each for each in (self.service.manager, *self.service.standbys) if each]
        return {pid for name in self.workers for pid in self.tree(name)} | {each.pid for each in managers}

    def usage(self) -> dict[str, Usage | None]:
        """Return the resources of managers and supervisors, the latter with their number of descendants."""
        assert self.service.manager is not None
        held = {"the manager": usage(self.service.manager.pid)}
        for standby in self.service.standbys:
            held["the standby"] = usage(standby.pid)
        for name in self.workers:
            supervisor, *below = self.tree(name)
            held[f"worker {name}"] = usage(supervisor, 1 + len(below))
        return held

    def complete(self) -> bool:
        """Whether each worker has all its processes, and all members are connected."""
        assert self.service.manager is not None
        whole = 1 + HELPERS + CONSUMERS
        connected = sockets(self.service.manager.pid) - self._own_sockets
        members = len(self.workers) * (1 + CONSUMERS) + len(self.actors) + PRODUCERS
        return connected >= members and all(len(self.tree(name)) == whole for name in self.workers)

    def log_of(self, command: str) -> Callable[[], str]:
        """Return a function that reads the log of `svc COMMAND` from now on."""
        path = self.folder / f"{command}.log"
        begin = path.stat().st_size

        def read() -> str:
            with path.open("rb") as file:
                file.seek(begin)
                return file.read().decode(errors="replace")

        return read

    def consumers(self, name: str) -> list[int]:
        """Return the consumers of a worker: the children of its forkserver."""
        supervisor, *below = self.tree(name)
        return [pid for pid in below if pid not in children(supervisor)]

    def send(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def broker(
        self, timeout: float = CALL_SECONDS, *, proxied: bool = False, listen: str = ""
    ) -> ManagerBroker:
        managers = parse_manager(listen or (self.client_proxy.address if proxied else self.service.listen))
        return connect(managers, read_authkey(self.service.authkey_file), timeout)

    def svc(self, *arguments: str, timeout: float) -> int:
        """Run a command of `svc` to its end; return its exit code."""
        with (self.folder / "commands.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "svc", *arguments],
                env=self.service.environment, stdout=log, stderr=log, timeout=timeout, check=False,
            )  # fmt: skip
        return done.returncode

    def stop(self) -> None:
        """End all processes; only the servers of the journal go on, to be read."""
        for process in (*self.actors.values(), *self.workers.values()):
            process.kill()
            process.wait()
        self.service.stop()

    def close(self) -> None:
        self.stop()
        self.service.close()
        self.worker_proxy.close()
        self.client_proxy.close()
        self._stack.close()


class Producer(threading.Thread):
    """Submits chunks and follows them to their ends, one after the other, until told to stop.

    A submit whose outcome is not known is repeated unchanged until it is known.
    """

    def __init__(self, site: Site, name: str, chunk: int, task: str = WORK, *, proxied: bool) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        #: The number of jobs that it has submitted.
        self.submitted = 0
        self._site = site
        self._chunk = chunk
        self._task = task
        self._proxied = proxied
        self._seen = self._cursor = 0
        self._random = random.Random(f"{site.random.random()}{name}")

    def run(self) -> None:
        try:
            recorder = Recorder(self._site.folder, self.name)
            with self._site.broker(proxied=self._proxied) as broker:
                first = 0
                while not self.stopping.is_set():
                    submit(broker, recorder, NewChunk(first, Terms(self._task), self._bodies(first)))
                    self.submitted = first = first + self._chunk
                    self._follow(broker, recorder, first)
        except BaseException as error:  # noqa: BLE001  # the campaign raises it at its end
            self.error = error

    def _bodies(self, first: int) -> list[bytes]:
        folder = str(self._site.folder)
        return [
            encode_arguments(PLAIN, (f"{self.name}-{number}", self._random.choice(_WORK_SECONDS), folder), {})
            for number in range(first, first + self._chunk)
        ]

    def _follow(self, broker: ManagerBroker, recorder: Recorder, submitted: int) -> None:
        """Wait until few of the jobs are left, so that the next chunk finds no idle consumers."""
        while not self.stopping.is_set() and self._seen < submitted - self._chunk // 2:
            ask = c.Feed(self.name, self._cursor, 1000, 1.0)
            page = recorder.call("feed", 0, 0, CALL_SECONDS + 1.0, functools.partial(broker.feed, ask))
            if page is not None:
                self._seen += len(page.outcomes)
                self._cursor = page.cursor


def submit(broker: ManagerBroker, recorder: Recorder, chunk: NewChunk, patience: float = 60.0) -> None:
    """Submit *chunk* under the recorder's name; repeat it unchanged until it is known to be accepted.

    Raises:
        ManagerUnreachable: the manager was away for *patience* seconds.
    """
    end = time.monotonic() + patience
    ask = functools.partial(broker.submit, recorder.client, [chunk])
    while (notes := recorder.call("submit", chunk.first, len(chunk.bodies), CALL_SECONDS, ask)) is None:
        if time.monotonic() >= end:
            raise ManagerUnreachable("the campaign has lost its manager")
    assert not notes, notes
