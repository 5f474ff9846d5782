"""What a campaign breaks: a manager, workers beside and behind a proxy, stock clients, and their records."""

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
from pathlib import Path

from service.broker.manager import ManagerBroker
from service.codec import PLAIN, encode_arguments
from service.domain import commands as c
from service.domain.job import NewBatch, Terms
from service.errors import ManagerUnreachable
from service.settings import parse_address, read_authkey
from tests.support.history import Recorder
from tests.support.processes import Service, descendants
from tests.support.proxy import Proxy
from tests.support.pythons import interpreters

TASKS = "tests.support.fault_tasks"
WORK = f"{TASKS}:work"
#: How long the jobs of producers take: some are read ahead, some not.
_WORK_SECONDS = (0.0, 0.0, 0.001, 0.005, 0.02)
#: Seconds of a lease, so that a frozen worker loses its own soon.
LEASE_SECONDS = 2.0
#: Seconds that a call of a producer may take beyond what it waits for.
CALL_SECONDS = 3.0
ACTOR = Path(__file__).parents[1] / "support" / "plain_actor.py"


class Site:
    """All processes of one campaign, in a folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.service = Service(folder, TASKS)
        address = parse_address(self.service.listen)
        target = (address.host, address.port)
        self.worker_proxy, self.client_proxy = Proxy(target), Proxy(target)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.actors: dict[str, subprocess.Popen[bytes]] = {}
        self.stock_pids: set[int] = set()
        self._roles: dict[str, tuple[str, str]] = {}
        self._names = itertools.count()
        self._pythons = interpreters()

    def start(self) -> None:
        self.start_manager()
        self.start_worker("direct")
        self.start_worker("proxied")
        for place in range(3):
            self.start_actor(
                "produce" if place == 0 else "consume", self._pythons[place % len(self._pythons)]
            )

    def start_manager(self, *, wait: bool = True) -> None:
        flags = ("--lease", f"{LEASE_SECONDS:g}", "--max-job-bytes", "1MiB", "--retain-count", "1000000000")
        self.service.start_manager(*flags, wait=wait)

    def start_worker(self, name: str) -> None:
        manager = self.worker_proxy.address if name == "proxied" else self.service.listen
        self.workers[name] = self.service.run(
            "worker", "--http", "off", "--tasks", TASKS, "--consumers", "3", "--name", name,
            "--queues", "default,poison", "--manager", manager,
        )  # fmt: skip

    def start_actor(self, role: str, python: str) -> None:
        """Start a stock client of another CPython; each has a name of its own, and with it own labels."""
        name = f"plain{next(self._names)}"
        host, _, port = self.service.listen.rpartition(":")
        key = self.service.authkey_file.read_bytes().hex()
        with (self.folder / "plain.log").open("ab") as log:
            self.actors[name] = subprocess.Popen(
                [python, str(ACTOR), role, host, port, key, name, str(self.folder), WORK],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.stock_pids.add(self.actors[name].pid)
        self._roles[name] = role, python

    def replace_actors(self) -> None:
        """Start stock clients anew that have ended: a stock client cannot reconnect."""
        for name, process in list(self.actors.items()):
            if process.poll() is not None:
                del self.actors[name]
                self.start_actor(*self._roles.pop(name))

    def actors_in(self, role: str) -> list[subprocess.Popen[bytes]]:
        return [process for name, process in self.actors.items() if self._roles[name][0] == role]

    def end_actors(self, role: str) -> frozenset[int]:
        """Kill the stock clients of one role for good; return their processes."""
        ended = self.actors_in(role)
        for process in ended:
            process.kill()
            process.wait()
        self.actors = {name: process for name, process in self.actors.items() if process not in ended}
        return frozenset(process.pid for process in ended)

    def tree(self, name: str) -> list[int]:
        """Return the processes of a worker, its supervisor first."""
        return [self.workers[name].pid, *descendants(self.workers[name].pid)]

    def send(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def broker(self, timeout: float = CALL_SECONDS, *, proxied: bool = False) -> ManagerBroker:
        address = parse_address(self.client_proxy.address if proxied else self.service.listen)
        return ManagerBroker(
            (address.host, address.port), read_authkey(self.service.authkey_file), timeout=timeout
        )

    def svc(self, *arguments: str, timeout: float) -> int:
        """Run a command of `svc` to its end; return its exit code."""
        with (self.folder / "commands.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "service", *arguments],
                env=self.service.environment, stdout=log, stderr=log, timeout=timeout, check=False,
            )  # fmt: skip
        return done.returncode

    def close(self) -> None:
        for process in (*self.actors.values(), *self.workers.values()):
            process.kill()
            process.wait()
        self.service.close()
        self.worker_proxy.close()
        self.client_proxy.close()


class Producer(threading.Thread):
    """Submits batches and follows them to their ends, one after the other, until told to stop.

    A submit whose outcome is not known is made again as it was, until it is known.
    """

    def __init__(self, site: Site, name: str, batch: int, *, proxied: bool) -> None:
        super().__init__(name=name, daemon=True)
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self._site = site
        self._batch = batch
        self._proxied = proxied
        self._seen = self._cursor = 0
        self._random = random.Random(f"{site.random.random()}{name}")

    def run(self) -> None:
        try:
            recorder = Recorder(self._site.folder, self.name)
            with self._site.broker(proxied=self._proxied) as broker:
                first = 0
                while not self.stopping.is_set():
                    submit(broker, recorder, NewBatch(first, Terms(WORK), self._bodies(first)))
                    first += self._batch
                    self._follow(broker, recorder, first)
        except BaseException as error:  # noqa: BLE001  # told by the campaign when it ends
            self.error = error

    def _bodies(self, first: int) -> list[bytes]:
        folder = str(self._site.folder)
        return [
            encode_arguments(PLAIN, (f"{self.name}-{number}", self._random.choice(_WORK_SECONDS), folder), {})
            for number in range(first, first + self._batch)
        ]

    def _follow(self, broker: ManagerBroker, recorder: Recorder, submitted: int) -> None:
        """Wait until few of the jobs are left; the next batch then meets no idle consumers."""
        while not self.stopping.is_set() and self._seen < submitted - self._batch // 2:
            ask = c.Feed(self.name, self._cursor, 1000, 1.0)
            page = recorder.call("feed", 0, 0, CALL_SECONDS + 1.0, functools.partial(broker.feed, ask))
            if page is not None:
                self._seen += len(page.outcomes)
                self._cursor = page.cursor


def submit(broker: ManagerBroker, recorder: Recorder, batch: NewBatch, patience: float = 60.0) -> None:
    """Submit *batch* under the recorder's name, again and again as it is, until it is known to be accepted.

    Raises:
        ManagerUnreachable: the manager was away for *patience* seconds.
    """
    end = time.monotonic() + patience
    ask = functools.partial(broker.submit, recorder.client, [batch])
    while (notes := recorder.call("submit", batch.first, len(batch.bodies), CALL_SECONDS, ask)) is None:
        if time.monotonic() >= end:
            raise ManagerUnreachable("the campaign has lost its manager")
    assert not notes, notes
