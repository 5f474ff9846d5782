"""A campaign: load on a whole service, one fault after the other from a seeded deck, and the verdict.

The seed fixes which faults come in which order, with which pauses, victims and lengths; what each meets is
up to the machine. Each round deals every fault once. To add one, write a method and name it in `FAULTS`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from service.broker.manager import ManagerBroker
from service.codec import PLAIN, encode_arguments
from service.domain.job import NewBatch, Terms
from tests.fault.site import LEASE_SECONDS, TASKS, Producer, Site, submit
from tests.support.checker import Checker, Expectation, Verdict, parse_counts, read_journal
from tests.support.fault_tasks import LOOP_ATTEMPTS
from tests.support.history import Drain, Fault, History, Recorder, read_calls, read_executions, read_faults
from tests.support.processes import descendants
from tests.support.proxy import Proxy

#: How jobs end whose task is at fault, and after how many attempts.
EXPECTED = {
    f"{TASKS}:segfault": Expectation("dead", 3),
    f"{TASKS}:leave": Expectation("dead", 3),
    f"{TASKS}:loop": Expectation("dead", LOOP_ATTEMPTS),
    f"{TASKS}:too_large": Expectation("dead", 1),
    f"{TASKS}:unspeakable": Expectation("dead", 1),
}
_DRAIN_SECONDS = 40.0
_SETTLE_SECONDS = 120.0


class Campaign:
    """One run of the fault suite in *folder*; *seed* deals the faults."""

    def __init__(self, folder: Path, seed: int, *, progress: bool = False) -> None:
        self.site = Site(folder, seed)
        self._random = self.site.random
        self._progress = progress
        self._faults: list[Fault] = []
        self._drains: list[Drain] = []
        self._poisons = 0
        self._counted: dict[tuple[str, str], int] = {}

    def run(self, seconds: float) -> Verdict:
        """Break things for *seconds*, at least one round of all faults; let all settle; judge."""
        try:
            self.site.start()
            producers = [
                Producer(self.site, "batches", 400, proxied=False),
                Producer(self.site, "behind", 250, proxied=True),
                Producer(self.site, "singles", 1, proxied=False),
            ]
            for producer in producers:
                producer.start()
            self._break_things(time.monotonic() + seconds)
            self._settle(producers)
        finally:
            self.site.close()
        return self._verdict()

    # --- the course -----------------------------------------------------------------------------------

    def _break_things(self, end: float) -> None:
        time.sleep(2.0)
        rounds = 0
        while not rounds or time.monotonic() < end:
            rounds += 1
            deck = sorted(FAULTS)
            self._random.shuffle(deck)
            for name in deck:
                if rounds > 1 and time.monotonic() >= end:
                    return
                time.sleep(self._random.uniform(0.1, 1.0))
                self._tell(name)
                FAULTS[name](self, name)
                self._mend()

    def _mend(self) -> None:
        """Start again what an operator's supervisor would: workers and stock clients that have ended."""
        self.site.replace_actors()
        for name, process in list(self.site.workers.items()):
            if process.poll() is not None:
                self.site.start_worker(name)

    def _settle(self, producers: list[Producer]) -> None:
        """Stop the load, and see every job end; then read what the manager counts."""
        for producer in producers:
            producer.stopping.set()
        for producer in producers:
            producer.join(90)
            if producer.error is not None:
                raise producer.error
        self.site.end_actors("produce")
        with self.site.broker(10.0) as broker:
            end = time.monotonic() + _SETTLE_SECONDS
            while time.monotonic() < end and self._unfinished(broker):
                self._mend()
                time.sleep(0.2)
        pids = self.site.end_actors("consume")
        now = time.monotonic()
        self._faults.append(Fault("end of the stock clients", now, now, pids, injected=False, fatal=True))
        with self.site.service.client() as client:
            # The metrics show what is left to do or to look at; what ended well is in the totals alone.
            for queue in client.stats().queues:
                for state in ("ready", "scheduled", "leased", "succeeded", "dead", "cancelled"):
                    self._counted[queue.name, state] = getattr(queue, state)
            self._counted |= parse_counts(client.metrics())

    def _unfinished(self, broker: ManagerBroker) -> int:
        queues = broker.stats().queues
        return sum(queue.ready + queue.scheduled + queue.leased for queue in queues)

    def _verdict(self) -> Verdict:
        folder = self.site.folder
        history = History(
            read_calls(folder),
            read_executions(folder),
            [*self._faults, *read_faults(folder)],
            self._drains,
        )
        books = read_journal(self.site.service.journal)
        books.counted = self._counted
        return Checker(history, books, EXPECTED).check()

    def _note(
        self, kind: str, at: float, pids: frozenset[int] | None = frozenset(), *, fatal: bool = False
    ) -> None:
        self._faults.append(Fault(kind, at, time.monotonic(), pids, fatal=fatal))

    def _tell(self, name: str) -> None:
        if self._progress:
            sys.stderr.write(f"{len(self._faults):5d}  {name}\n")

    # --- faults ---------------------------------------------------------------------------------------

    def kill_consumer(self, kind: str) -> None:
        """Kill a process below a supervisor: a consumer, or the forkserver, with which its consumers die."""
        victims = self.site.tree(self._random.choice(sorted(self.site.workers)))[1:]
        if victims:
            pid = self._random.choice(victims)
            self._kill([pid], kind, also=descendants(pid))

    def kill_worker(self, kind: str) -> None:
        name = self._random.choice(sorted(self.site.workers))
        self._kill(self.site.tree(name), kind)
        self.site.workers[name].wait()

    def freeze_worker(self, kind: str) -> None:
        name = self._random.choice(sorted(self.site.workers))
        at = time.monotonic()
        pids: list[int] = []
        # A forkserver may fork while the others are being stopped.
        while new := [pid for pid in self.site.tree(name) if pid not in pids]:
            self.site.send(new, signal.SIGSTOP)
            pids += new
        time.sleep(LEASE_SECONDS + self._random.uniform(0.5, 2.0))
        self.site.send(pids, signal.SIGCONT)
        self._note(kind, at, frozenset(pids))

    def kill_manager(self, kind: str) -> None:
        at = time.monotonic()
        self.site.service.kill_manager()
        self._note(kind, at, None)
        self.site.start_manager()

    def kill_manager_in_recovery(self, kind: str) -> None:
        at = time.monotonic()
        self.site.service.kill_manager()
        self.site.start_manager(wait=False)
        time.sleep(self._random.uniform(0.0, 1.5))
        self.site.service.kill_manager()
        self._note(kind, at, None)
        self.site.start_manager()

    def freeze_manager(self, kind: str) -> None:
        assert self.site.service.manager is not None
        at = time.monotonic()
        self.site.service.manager.send_signal(signal.SIGSTOP)
        time.sleep(self._random.uniform(1.0, 5.0))
        self.site.service.manager.send_signal(signal.SIGCONT)
        self._note(kind, at, None)

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
        """Submit jobs of the task that *kind* ends in."""
        at = time.monotonic()
        recorder = Recorder(self.site.folder, f"poison{self._poisons}")
        self._poisons += 1
        task = _POISONS[kind]
        seconds = self._random.choice((0.0, 0.001, 0.003))
        arguments = (f"{recorder.client}-0", seconds, str(self.site.folder))
        batch = NewBatch(0, Terms(f"{TASKS}:{task}", "poison"), [encode_arguments(PLAIN, arguments, {})])
        with self.site.broker() as broker:
            submit(broker, recorder, batch)
        self._note(kind, at)

    def drain(self, kind: str) -> None:
        """Drain while something is killed; resume; start the workers that have left."""
        asked = time.monotonic()
        code = self.site.svc("drain", "--no-wait", timeout=30)
        time.sleep(self._random.uniform(0.0, 0.2))
        victim = self._random.choice(("consumer", "manager", "nothing"))
        if victim == "consumer":
            self.kill_consumer("kill a consumer in a drain")
        elif victim == "manager":
            self.kill_manager("kill the manager in a drain")
        code = code or self.site.svc("drain", "--timeout", f"{_DRAIN_SECONDS:g}", timeout=_DRAIN_SECONDS + 20)
        still = time.monotonic() if code == 0 else None
        time.sleep(0.3)
        workers = list(self.site.workers.values())
        with contextlib.suppress(TimeoutError):
            self._await_workers()
        codes = tuple(-1 if process.poll() is None else process.returncode for process in workers)
        resumed = time.monotonic()
        stock = frozenset(self.site.stock_pids)
        self._drains.append(Drain(asked, still, resumed, code, codes, stock))
        with self.site.service.client() as client:
            client.resume()
        self._note(kind, asked)

    def kill_plain_consumer(self, kind: str) -> None:
        self._kill([self._random.choice(self.site.actors_in("consume")).pid], kind)

    def kill_plain_producer(self, kind: str) -> None:
        self._kill([self._random.choice(self.site.actors_in("produce")).pid], kind)

    # --- means ----------------------------------------------------------------------------------------

    def _kill(self, pids: list[int], kind: str, also: Sequence[int] = ()) -> None:
        at = time.monotonic()
        self.site.send(pids, signal.SIGKILL)
        self._note(kind, at, frozenset((*pids, *also)), fatal=True)

    def _await_workers(self) -> None:
        end = time.monotonic() + 10.0
        while any(process.poll() is None for process in self.site.workers.values()):
            if time.monotonic() >= end:
                raise TimeoutError
            time.sleep(0.05)

    def _on_network(self, kind: str, *, worker: bool, act: Callable[[], None]) -> None:
        """Strike the connections of the worker behind the proxy, or of clients, who hold no leases."""
        at = time.monotonic()
        act()
        pids = frozenset(self.site.tree("proxied")) if worker else frozenset[int]()
        self._note(kind, at, pids)

    def _proxy(self, *, worker: bool) -> Proxy:
        return self.site.worker_proxy if worker else self.site.client_proxy

    def _reset(self, *, worker: bool) -> None:
        for link in self._proxy(worker=worker).links():
            link.reset()

    def _silence(self, *, worker: bool) -> None:
        """Carry nothing for a while without a word, then reset: a half-open connection."""
        links = [link for link in self._proxy(worker=worker).links() if self._random.random() < 0.7]
        seconds = self._random.uniform(1.0, 4.0)
        for link in links:
            link.silent_until = time.monotonic() + 3600.0
        time.sleep(seconds)
        for link in links:
            link.reset()

    def _cut(self, *, worker: bool) -> None:
        """Let a few bytes of the next reply through on each connection, then reset it."""
        for _ in range(3):
            for link in self._proxy(worker=worker).links():
                link.cut = self._random.choice((0, 1, 4, 20, 60))
            time.sleep(0.3)

    def _slow(self) -> None:
        proxies = (self.site.worker_proxy, self.site.client_proxy)
        for proxy in proxies:
            proxy.delay = self._random.uniform(0.05, 0.4)
        time.sleep(2.0)
        for proxy in proxies:
            proxy.delay = 0.0


_POISONS = {
    "F1 kill between done and ack": "die_after_done",
    "F17 job segfaults": "segfault",
    "F17 job exits": "leave",
    "F17 job never ends": "loop",
    "F17 result too large": "too_large",
    "F17 result not encodable": "unspeakable",
}

#: What is dealt in each round. The names begin with the row of the fault matrix that they belong to.
FAULTS: dict[str, Callable[[Campaign, str], None]] = {
    "F1 kill -9 a consumer": Campaign.kill_consumer,
    "F2 kill -9 a whole worker": Campaign.kill_worker,
    "F3 freeze a worker beyond its lease": Campaign.freeze_worker,
    "F4 kill -9 the manager": Campaign.kill_manager,
    "F4 kill -9 the manager in recovery": Campaign.kill_manager_in_recovery,
    "F5 freeze the manager 1–5 s": Campaign.freeze_manager,
    "F11 reset a worker's connections": Campaign.reset_worker,
    "F11 reset clients' connections": Campaign.reset_clients,
    "F11 half-open: a worker": Campaign.silence_worker,
    "F11 half-open: clients": Campaign.silence_clients,
    "F12 cut replies to a worker": Campaign.cut_worker,
    "F12 cut replies to clients": Campaign.cut_clients,
    "F12 slow network": Campaign.slow_network,
    "F18 drain, with kills, and resume": Campaign.drain,
    "F19 kill -9 a stock consumer": Campaign.kill_plain_consumer,
    "F19 kill -9 a stock producer": Campaign.kill_plain_producer,
    **dict.fromkeys(_POISONS, Campaign.poison),
}
