"""A trial: a thousand workers come back to a manager that was started again.

The workers are simulated by one process: each has the connections of a supervisor and of two consumers, which
connect as real ones do: each host from an address of its own, and with the pauses of a real one between its
attempts. All are connected and wait for jobs when the manager is killed. The time counts from its start until
each connection has had the answer to its hello. The new connections of each moment are counted, and so are
attempts that the manager cut off, so that a storm would be seen. One processor makes all these handshakes,
so the time is that of the busier of two processes.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from benchmarks.figures import Figures
from benchmarks.many_consumers import TASK
from benchmarks.processes import processor_clock
from benchmarks.systems import Service
from benchmarks.width import allow_files
from svc.broker.backoff import Backoff
from svc.domain.commands import AnyCommand, Extend, Hello, Lease
from svc.domain.limits import GRANT_JOBS
from svc.wire import HEADER, PROTOCOL_VERSION, decode_response, encode_request, response_frame
from svc.wire_handshake import CHALLENGE, WELCOME, answer, is_right, make_challenge

_OTHER_FILES = 500
_EXTEND_SECONDS = 1.0
_CONNECT_SECONDS = 20.0
_PATIENCE_SECONDS = 120.0
#: The width of a column of the plot, in seconds.
STEP = 0.25
_STEPS_MAX = 40
_REQUEST = Lease(GRANT_JOBS, wait=20.0, ahead=0.02, early=True)


@dataclass(frozen=True)
class Sizes:
    """The amounts of work: workers, and the consumers of each; seconds that the manager is away."""

    workers: int = 1_000
    consumers: int = 2
    away: float = 1.0


FULL = Sizes()
QUICK = Sizes(workers=300)
SMOKE = Sizes(workers=10, away=0.2)


def measure(durability: str, sizes: Sizes, figures: Figures) -> None:
    """Do one round."""
    count = sizes.workers * (1 + sizes.consumers)
    allow_files(2 * count + _OTHER_FILES)
    with Service(durability, consumers=0) as service:  # by default there is room for all
        seen = asyncio.run(_trial(service, sizes))
    times = seen.times
    name = f"{sizes.workers:,} workers, {count:,} connections"
    figures.note("restart: from start to the first connection", "s", name, min(times))
    figures.note("restart: from start until all are back", "s", name, max(times))
    figures.note("restart: from ready until all are back", "s", name, max(times) - seen.ready)
    figures.note("restart: CPU of manager until then", "s", name, seen.spent)
    figures.note("restart: handshakes that were cut off", "", name, seen.cut_off)
    per_step = Counter(int(each / STEP) for each in times)
    # From the start on, so that the steps of all rounds are in order; `_STEPS_MAX` if a run goes wrong.
    for step in range(min(max(per_step) + 1, _STEPS_MAX)):
        moment = f"{step * STEP:.2f} to {(step + 1) * STEP:.2f} s"
        figures.note("restart: connections a second", "1/s", moment, per_step[step] / STEP)


@dataclass(frozen=True)
class _Seen:
    """The findings of one restart.

    Attributes:
        times: seconds from the manager's start at which connections were back.
        ready: seconds from its start until it served.
        spent: its processor time until all were back.
        cut_off: handshakes that ended before they were complete.
    """

    times: list[float]
    ready: float
    spent: float
    cut_off: int


async def _trial(service: Service, sizes: Sizes) -> _Seen:
    """Kill the manager, start it again, and wait until all are back."""
    fleet = _Fleet(service.endpoint, service.authkey)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        members = [group.create_task(fleet.member(hello)) for hello in _hellos(sizes)]
        await fleet.all_connected(len(members))
        service.manager.send_signal(signal.SIGKILL)
        await loop.run_in_executor(None, service.manager.wait)
        await asyncio.sleep(sizes.away)
        fleet.connected.clear()
        fleet.cut_off = 0
        started = time.monotonic()
        starting = loop.run_in_executor(None, _start, service)
        await fleet.all_connected(len(members))
        ready = await starting - started
        spent = processor_clock(service.manager.pid)()
        for member in members:
            member.cancel()
    times = [each - started for each in fleet.connected.values()]
    return _Seen(times, ready, spent, fleet.cut_off)


def _start(service: Service) -> float:
    service.start_manager()
    return time.monotonic()


def _hellos(sizes: Sizes) -> Sequence[Hello]:
    found: list[Hello] = []
    for number in range(sizes.workers):
        worker = f"host-{number}"
        found.append(Hello(PROTOCOL_VERSION, "worker", worker, worker, worker))
        for consumer in range(sizes.consumers):
            name = f"{worker}-{consumer}"
            found.append(
                Hello(PROTOCOL_VERSION, "consumer", name, worker, worker, tasks=[TASK], queues=["default"])
            )
    return found


@dataclass
class _Fleet:
    """All connections.

    Attributes:
        connected: the time at which each of them had the answer to its last hello.
    """

    address: tuple[str, int]
    authkey: bytes
    connected: dict[str, float] = field(default_factory=dict)
    #: Connections that ended before their handshake did.
    cut_off: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def all_connected(self, count: int) -> None:
        """Wait until so many are connected.

        Raises:
            TimeoutError: they did not come.
        """
        async with asyncio.timeout(_PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: len(self.connected) >= count)

    async def _note(self, hello: Hello) -> None:
        self.connected[f"{hello.role} {hello.name}"] = time.monotonic()
        async with self.changed:
            self.changed.notify_all()

    async def member(self, hello: Hello) -> None:
        """Be connected, again and again, until cancelled."""
        backoff = Backoff()
        while True:
            with suppress(OSError, EOFError, TimeoutError):
                async with asyncio.timeout(_CONNECT_SECONDS):
                    place = (_address_of(hello.worker), 0)
                    reader, writer = await asyncio.open_connection(*self.address, local_addr=place)
                try:
                    await self._introduced(reader, writer, hello)
                    backoff.succeed()
                    await self._note(hello)
                    await _live(reader, writer, hello)
                finally:
                    writer.close()
            await asyncio.sleep(backoff.fail())

    async def _introduced(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello
    ) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await self._introduce(reader, writer, hello)
        except (OSError, EOFError, TimeoutError):
            self.cut_off += 1
            raise

    async def _introduce(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello
    ) -> None:
        """Prove the key, verify that the manager has it, and send the hello."""
        response = answer(self.authkey, await _message(reader))
        if response is None:
            raise EOFError
        _write(writer, response)
        if await _message(reader) != WELCOME:
            raise RuntimeError("the manager refused the authkey")
        challenge = make_challenge()
        _write(writer, CHALLENGE + challenge)
        if not is_right(self.authkey, challenge, await _message(reader)):
            raise RuntimeError("the manager does not know the authkey")
        _write(writer, WELCOME)
        _write(writer, pickle.dumps((None, "accept_connection", (hello.name,), {}), protocol=4))
        await _message(reader)
        await _ask(reader, writer, hello)


def _address_of(worker: str) -> str:
    """Return an address of loopback for each host, since a manager bounds the handshakes of one address."""
    number = int(worker.rpartition("-")[2])
    return f"127.{1 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"


async def _live(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: Hello) -> None:
    """Renew leases once a second, as a supervisor; or wait for jobs, as a consumer."""
    while True:
        if hello.role == "worker":
            await _ask(reader, writer, Extend(idle=2))
            await asyncio.sleep(_EXTEND_SECONDS)
        else:
            await _ask(reader, writer, _REQUEST)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: AnyCommand) -> None:
    writer.write(encode_request(1, [command]))
    frame = response_frame(await _message(reader))
    if frame is None:
        raise RuntimeError("the manager answered something that is not a frame")
    decode_response(frame)


def _write(writer: asyncio.StreamWriter, message: bytes) -> None:
    writer.write(HEADER.pack(len(message)) + message)


async def _message(reader: asyncio.StreamReader) -> bytes:
    (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    return await reader.readexactly(length)
