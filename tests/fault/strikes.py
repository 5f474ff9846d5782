"""The faults that affect a process, a connection or a poison job; and their records."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from svc.codec import PLAIN, encode_arguments
from svc.domain.job import NewChunk, Terms
from tests.fault.site import LEASE_SECONDS, TASKS, Site, submit
from tests.support.fail_points import order
from tests.support.history import Drain, Fault, Recorder, StreamRead
from tests.support.processes import descendants
from tests.support.proxy import Proxy
from tests.support.resources import usage

DRAIN_SECONDS = 90.0
#: The time that a poison job may take until its end, with all its attempts.
_POISON_PATIENCE = timedelta(seconds=60)
#: Tasks that end badly, by the kind of fault for which a job of them stands.
POISONS = {
    "F1 kill between done and ack": "die_after_done",
    "F16 job takes all memory": "devour",
    "F16 job meets its address limit": "overreach",
    "F17 job segfaults": "segfault",
    "F17 job exits": "leave",
    "F17 job never ends": "loop",
    "F17 result too large": "too_large",
    "F17 result not encodable": "unspeakable",
}


class Strikes:
    """Injects faults into a site; each method is a fault, and notes the affected processes in `faults`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.random: random.Random = site.random
        self.faults: list[Fault] = []
        self.drains: list[Drain] = []
        self.streams: list[StreamRead] = []
        self.violations: list[str] = []
        self._names = itertools.count()

    def note(
        self, kind: str, at: float, pids: frozenset[int] | None = frozenset(), *, fatal: bool = False
    ) -> None:
        """Record a fault that began at *at* and is over."""
        self.faults.append(Fault(kind, at, time.monotonic(), pids, fatal=fatal))

    def name(self, kind: str) -> str:
        """Return a name for a client that nobody else has."""
        return f"{kind}{next(self._names)}"

    def until(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait for an event that no signal reports; return whether it came in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        return True

    def kill_consumer(self, kind: str) -> None:
        """Kill a process below a supervisor: a consumer, or the forkserver, with which its consumers die."""
        victims = self.site.tree(self.random.choice(sorted(self.site.workers)))[1:]
        if victims:
            pid = self.random.choice(victims)
            self.kill([pid], kind, also=descendants(pid))

    def fail_point(self, kind: str) -> None:
        """Let a consumer kill itself at the point in *kind*; the consumer records that itself."""
        path = order(self.site.folder, kind.removeprefix("F1 kill "), kind)
        self.until(lambda: not path.exists(), 60.0)
        path.unlink(missing_ok=True)

    def kill_worker(self, kind: str) -> None:
        name = self.random.choice(sorted(self.site.workers))
        self.kill(self.site.tree(name), kind)
        self.site.workers[name].wait()

    def freeze_worker(self, kind: str) -> None:
        name = self.random.choice(sorted(self.site.workers))
        at = time.monotonic()
        pids: list[int] = []
        # A forkserver may fork while the other processes are being stopped.
        while new := [pid for pid in self.site.tree(name) if pid not in pids]:
            self.site.send(new, signal.SIGSTOP)
            pids += new
        time.sleep(LEASE_SECONDS + self.random.uniform(0.5, 2.0))
        self.site.send(pids, signal.SIGCONT)
        self.note(kind, at, frozenset(pids))

    def kill_manager(self, kind: str) -> None:
        at = time.monotonic()
        self.site.service.kill_manager()
        self.note(kind, at, None)
        self.site.start_manager()

    def kill_manager_in_recovery(self, kind: str) -> None:
        at = time.monotonic()
        self.site.service.kill_manager()
        self.site.start_manager(wait=False)
        time.sleep(self.random.uniform(0.0, 1.5))
        self.site.service.kill_manager()
        self.note(kind, at, None)
        self.site.start_manager()

    def freeze_manager(self, kind: str) -> None:
        assert self.site.service.manager is not None
        at = time.monotonic()
        self.site.service.manager.send_signal(signal.SIGSTOP)
        time.sleep(self.random.triangular(1.0, 5.0, 1.5))
        self.site.service.manager.send_signal(signal.SIGCONT)
        self.note(kind, at, None)

    def reset_worker(self, kind: str) -> None:
        self._on_network(kind, worker=True, act=lambda: self._reset(worker=True))

    def reset_clients(self, kind: str) -> None:
        self._on_network(kind, worker=False, act=lambda: self._reset(worker=False))

    def silence_worker(self, kind: str) -> None:
        self._on_network(kind, worker=True, act=lambda: self._silence(worker=True))

    def silence_clients(self, kind: str) -> None:
        self._on_network(kind, worker=False, act=lambda: self._silence(worker=False))

    def cut_worker(self, kind: str) -> None:
        self._on_network(kind, worker=True, act=lambda: self._cut(worker=True))

    def cut_clients(self, kind: str) -> None:
        self._on_network(kind, worker=False, act=lambda: self._cut(worker=False))

    def slow_network(self, kind: str) -> None:
        self._on_network(kind, worker=True, act=self._slow)

    def poison(self, kind: str) -> None:
        """Submit a job of the task for this *kind* of poison, and wait for its end."""
        at = time.monotonic()
        recorder = Recorder(self.site.folder, self.name("poison"))
        task = POISONS[kind]
        seconds = self.random.choice((0.0, 0.001, 0.003))
        arguments = (f"{recorder.client}-0", seconds, str(self.site.folder))
        chunk = NewChunk(0, Terms(f"{TASKS}:{task}", "poison"), [encode_arguments(PLAIN, arguments, {})])
        with self.site.broker() as broker:
            submit(broker, recorder, chunk)
            broker.wait([f"{recorder.client}-0"], _POISON_PATIENCE)
        self.note(kind, at)

    def drain(self, kind: str) -> None:
        """Drain while a process is killed; resume; start the workers that have left."""
        asked = time.monotonic()
        code = self.site.svc("drain", "--no-wait", timeout=90)
        time.sleep(self.random.uniform(0.0, 0.2))
        victim = self.random.choice(("consumer", "manager", "nothing"))
        if victim == "consumer":
            self.kill_consumer("F18 kill a consumer in a drain")
        elif victim == "manager":
            self.kill_manager("F18 kill the manager in a drain")
        code = code or self.site.svc("drain", "--timeout", f"{DRAIN_SECONDS:g}", timeout=DRAIN_SECONDS + 20)
        still = time.monotonic() if code == 0 else None
        time.sleep(0.3)
        workers = list(self.site.workers.values())
        with contextlib.suppress(TimeoutError):
            self._await_workers()
        codes = tuple(-1 if process.poll() is None else process.returncode for process in workers)
        resumed = time.monotonic()
        stock = frozenset(self.site.stock_pids)
        self.drains.append(Drain(asked, still, resumed, code, codes, stock))
        with self.site.service.client() as client:
            client.resume()
        self.note(kind, asked)

    def kill_plain_consumer(self, kind: str) -> None:
        self.kill([self.random.choice(self.site.actors_in("consume")).pid], kind)

    def kill_plain_producer(self, kind: str) -> None:
        self.kill([self.random.choice(self.site.actors_in("produce")).pid], kind)

    # --- helpers --------------------------------------------------------------------------------------

    def kill(self, pids: list[int], kind: str, also: Sequence[int] = ()) -> None:
        at = time.monotonic()
        self.site.send(pids, signal.SIGKILL)
        # The consumers of a dead forkserver may run a few more jobs before they end, too.
        self.until(lambda: not any(usage(pid) for pid in also), 60.0)
        self.note(kind, at, frozenset((*pids, *also)), fatal=True)

    def _await_workers(self) -> None:
        end = time.monotonic() + 60.0
        while any(process.poll() is None for process in self.site.workers.values()):
            if time.monotonic() >= end:
                raise TimeoutError
            time.sleep(0.05)

    def _on_network(self, kind: str, *, worker: bool, act: Callable[[], None]) -> None:
        """Affect the connections of the proxied worker, or of clients, which hold no leases."""
        at = time.monotonic()
        act()
        pids = frozenset(self.site.tree("proxied")) if worker else frozenset[int]()
        self.note(kind, at, pids)

    def _proxy(self, *, worker: bool) -> Proxy:
        return self.site.worker_proxy if worker else self.site.client_proxy

    def _reset(self, *, worker: bool) -> None:
        for link in self._proxy(worker=worker).links():
            link.reset()

    def _silence(self, *, worker: bool) -> None:
        """Transmit nothing for a while, then reset: a half-open connection."""
        links = [link for link in self._proxy(worker=worker).links() if self.random.random() < 0.7]
        seconds = self.random.uniform(0.5, 3.0)
        for link in links:
            link.silent_until = time.monotonic() + 3600.0
        time.sleep(seconds)
        for link in links:
            link.reset()

    def _cut(self, *, worker: bool) -> None:
        """Let a few bytes of the next reply through on each connection, then reset it."""
        for _ in range(3):
            for link in self._proxy(worker=worker).links():
                link.cut = self.random.choice((0, 1, 4, 20, 60))
            time.sleep(0.3)

    def _slow(self) -> None:
        proxies = (self.site.worker_proxy, self.site.client_proxy)
        for proxy in proxies:
            proxy.delay = self.random.uniform(0.05, 0.4)
        time.sleep(2.0)
        for proxy in proxies:
            proxy.delay = 0.0
