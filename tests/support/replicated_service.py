"""Two managers on one stream of three real NATS servers, which tests kill, freeze and cut off.

Each manager reaches each server through a proxy of its own.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from svc.addresses import parse_manager
from svc.domain.events import AnyEvent
from svc.errors import Deposed, JournalError
from svc.server.journal.jetstream.frames import FrameOrigin, parse_part
from svc.server.journal.jetstream.log import Log, LogMessage
from svc.server.journal.jetstream.replica import Replica
from tests.support.memory_journals import MemoryMirror
from tests.support.nats_logs import run_on
from tests.support.nats_servers import NatsOptions, started_nats
from tests.support.ports import lasting_ports
from tests.support.processes import Service
from tests.support.proxy import LeaderProxy, Proxy

#: The name of the journal.
JOURNAL = "faults"
#: Seconds in which one of the managers has to lead, and a process that is told to has to end: an election of
#: the stream and one of the bucket take 9 s each, a takeover 4 s, and the machine is busy.
LEAD_SECONDS, END_SECONDS = 90.0, 60.0
_MANAGERS = 2


class ReplicatedService(Service):
    """Two `svc manager` on one stream; `manager` is the one that leads.

    Attributes:
        nats: the servers of the stream.
        managers: the processes of the managers, None for one that was not started yet.
        leader: the number of the manager that leads, or was the last one that did.
        links: for each manager, its proxies before the servers.
    """

    def __init__(
        self,
        folder: Path,
        tasks: str,
        consumers: int = 4,
        worker_flags: tuple[str, ...] = (),
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(folder, tasks, consumers, worker_flags, host)
        self.nats = started_nats(folder / "nats", 3, NatsOptions(partitions=True))
        self.links = [
            [Proxy(("127.0.0.1", node.client_port)) for node in self.nats.nodes] for _ in range(_MANAGERS)
        ]
        self.addresses = [self.listen, *(f"{host}:{port}" for port in lasting_ports(_MANAGERS - 1, host))]
        self.listen = ",".join(self.addresses)
        self.environment["SVC_MANAGER"] = self.listen
        self.managers: list[subprocess.Popen[bytes] | None] = [None] * _MANAGERS
        self.leader = 0
        self._served, self._read_to = (-1, ""), 0
        self._started_at = [0] * _MANAGERS
        self._start_of: list[tuple[tuple[str, ...], tuple[str, ...], Mapping[str, str] | None]]
        self._start_of = [((), (), None)] * _MANAGERS
        self._wrongs: list[str] = []

    # --- managers -----------------------------------------------------------------------------------

    def start_manager(
        self,
        *flags: str,
        wait: bool = True,
        prefix: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        module: tuple[str, ...] = ("svc",),
    ) -> None:
        """Start the managers that do not run; return once one of them serves. See `Service`."""
        assert module == ("svc",), "these managers are the real ones"
        for number, process in enumerate(self.managers):
            if process is None or process.poll() is not None:
                self._start_of[number] = (flags, prefix, environment)
                self.start_again(number)
        if wait:
            self.await_leader()

    def start_again(self, number: int) -> None:
        """Start a manager that has ended, as it was started before."""
        flags, prefix, environment = self._start_of[number]
        with (self.folder / "manager.log").open("ab") as log:
            self._started_at[number] = log.tell()
        servers = ",".join(proxy.address for proxy in self.links[number])
        self.managers[number] = self.run(
            *("manager", "--listen", self.addresses[number], "--http", "off"),
            *("--journal", f"nats://{servers}/{JOURNAL}", "--journal-replicas", "3"),
            *("--mirror", str(self.folder / f"mirror{number}"), *flags),
            prefix=prefix,
            environment=environment,
        )
        if self.manager is None:
            self.manager = self.managers[number]

    def await_leader(self, besides: int | None = None, seconds: float = LEAD_SECONDS) -> int:
        """Return the number of the manager that leads, once one other than *besides* does.

        Raises:
            TimeoutError: none does in time.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for number in range(_MANAGERS):
                if number != besides and self.leads(number):
                    self._lead_by(number)
                    return number
            self.replace_managers()
            time.sleep(0.05)
        raise TimeoutError(f"no manager leads; see {self.folder}/manager.log")

    def leads(self, number: int) -> bool:
        """Return whether a manager runs and was the last one that began to serve, as the log tells."""
        process = self.managers[number]
        if process is None or process.poll() is not None:
            return False
        self._read_log()
        at, address = self._served
        return address == self.addresses[number] and at >= self._started_at[number]

    def _read_log(self) -> None:
        """Find the last manager that began to serve: its place in the log, and its address."""
        with (self.folder / "manager.log").open("rb") as log:
            log.seek(self._read_to)
            while (line := log.readline()).endswith(b"\n"):
                if b'"manager_started"' in line:
                    self._served = self._read_to, json.loads(line)["listen"]
                self._read_to += len(line)

    def replace_managers(self) -> list[str]:
        """Start managers anew that were deposed, and see who leads; say how each had ended."""
        ended = []
        for number, process in enumerate(self.managers):
            if process is not None and process.poll() == Deposed.exit_code:
                ended.append(f"manager {number} had been deposed")
                self.start_again(number)
        if self.manager not in self.managers or not self.leads(self.leader):
            for number in range(_MANAGERS):
                if self.leads(number):
                    self._lead_by(number)
        return ended

    def _lead_by(self, number: int) -> None:
        self.leader, self.manager = number, self.managers[number]

    @property
    def standby(self) -> int:
        """The number of the manager that does not lead."""
        return 1 - self.leader

    @property
    def standbys(self) -> list[subprocess.Popen[bytes]]:
        """The managers that do not serve."""
        return [each for each in self.managers if each is not None and each is not self.manager]

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a manager."""
        process = self.managers[number]
        assert process is not None
        process.send_signal(what)

    def await_end(self, number: int, seconds: float = END_SECONDS) -> int | None:
        """Return the exit code of a manager that has to end; None if it does not in time."""
        process = self.managers[number]
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            return process.wait(seconds)
        return None

    def kill_manager(self) -> None:
        """Kill the manager that leads, or all of them if none does."""
        self.replace_managers()
        leading = [number for number in range(_MANAGERS) if self.leads(number)]
        for number in leading or range(_MANAGERS):
            self.signal(number, signal.SIGKILL)
            self.await_end(number)

    def stop_manager(self) -> None:
        """Stop all managers, the standby first, so that nobody takes over."""
        for number in (self.standby, self.leader):
            self.signal(number, signal.SIGTERM)
            self.await_end(number)

    def cut_off(self, numbers: Sequence[int]) -> None:
        """Cut managers off from all servers, but not from clients and workers."""
        for proxy in itertools.chain.from_iterable(self.links[number] for number in numbers):
            proxy.silence()

    def lose_answers(self, number: int) -> None:
        """Let nothing more come from the servers to a manager; what it sends arrives."""
        for proxy in self.links[number]:
            proxy.mute()

    def join(self) -> None:
        """End `cut_off` and `lose_answers`."""
        for proxy in itertools.chain.from_iterable(self.links):
            proxy.resume()

    # --- see `Service` ------------------------------------------------------------------------------

    @property
    def serves_at(self) -> str:
        """The address of the manager that leads."""
        return self.addresses[self.leader]

    def proxy(self) -> Proxy:
        """Return a new proxy before the managers, which finds the leader."""
        return LeaderProxy(parse_manager(self.listen).pairs())

    def own_records(self) -> Iterator[AnyEvent]:
        """Yield all events of the journal, read anew from the stream by a mirror of our own."""
        reader = run_on(self.nats, _read, name=JOURNAL, replicas=3)
        self._wrongs = [*reader.wrongs, *wrong_terms(reader.origins)]
        for _, event in reader.mirror.replay():
            yield event

    def contradictions(self) -> list[str]:
        """Return all frames that a leader wrote after its successor's term had begun, and all errors."""
        return self._wrongs

    def close(self) -> None:
        """End everything that still runs."""
        super().close()
        self.nats.close()
        for proxy in itertools.chain.from_iterable(self.links):
            proxy.close()


def wrong_terms(origins: Sequence[FrameOrigin]) -> list[str]:
    """Return all places where an older term follows a newer one, or one term has two writers."""
    writers: dict[int, int] = {}
    for origin in origins:
        writers.setdefault(origin.term, origin.writer)
    return [
        f"I20: a message of term {after.term} follows one of term {before.term}"
        for before, after in itertools.pairwise(origins)
        if after.term < before.term
    ] + [
        f"I20: term {origin.term} has two writers"
        for origin in origins
        if writers[origin.term] != origin.writer
    ]


class _Reader(Replica):
    """A replica that notes who wrote each message, and why it could not read on."""

    def __init__(self, log: Log) -> None:
        super().__init__(log, MemoryMirror)
        self.origins: list[FrameOrigin] = []
        self.wrongs: list[str] = []

    def take(self, messages: Sequence[LogMessage]) -> None:
        self.origins += [parse_part(message.data).origin for message in messages]
        super().take(messages)


async def _read(log: Log) -> _Reader:
    reader = _Reader(log)
    reader.start()
    try:
        await reader.catch_up()
    except JournalError as error:
        reader.wrongs.append(f"I20: the stream cannot be read to its end: {error}")
    await reader.stop()
    return reader
