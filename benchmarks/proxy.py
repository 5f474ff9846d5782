"""A link between hosts, on one host: a TCP proxy that holds all bytes for a time, in each direction.

    python -m benchmarks.proxy --delay 0.01 127.0.0.1:7077

It prints one line with the addresses at which it listens, one for each target, and forwards connections
until its stdin ends. Bytes keep their order and are sent as they came; nothing limits their rate. A
connection opens as over a network: the caller's first bytes leave after a round trip, and its target sees
it when they are half way. A target that refuses resets the connection.

Cheaper ways were looked for. The kernels of this project's machines have no `netem`; `tbf` and `htb`, which
they have, limit rates and hold nothing for a time, so a pair of `veth` gives no delay, and `fq` and `etf`
are missing as well. NFQUEUE and TUN hand each packet to a program, acknowledgements too, which is more work
than a proxy has. socat cannot delay, and Debian has no toxiproxy. asyncio and uvloop add a transport, a
protocol and a timer to each chunk; here one queue is enough for all, since all wait equally long.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

_ROOT = Path(__file__).parents[1]
_CHUNK = 2**18
#: The bytes that are on the way in one direction of one connection, at most; then reading waits.
_ON_THE_WAY_MAX = 2**26
_BACKLOG = 4096
_EVENTS = 512
#: In the place of data: nothing more comes, and the connection is broken.
_END, _BROKEN = b"", None
_AT_ONCE = struct.pack("ii", 1, 0)
_WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_FAILED = select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP
Address = tuple[str, int]


@dataclass(eq=False, slots=True)
class _Side:
    """One side of a connection: that of the caller, or that of the target."""

    socket: socket.socket
    other: _Side | None = None
    #: Bytes that were read here, and that the other side has not sent yet.
    on_the_way: int = 0
    #: Data that is due here, and that the socket did not take yet.
    late: deque[bytes] = field(default_factory=deque)
    #: Whether the socket is connected and may be used.
    open: bool = False
    #: Whether the end of the bytes was read here; whether it was passed on here.
    ended: bool = False
    shut: bool = False


class Proxy:
    """Listens at one address for each target."""

    def __init__(self, targets: Sequence[Address], delay: float) -> None:
        """Listen on loopback, for connections that wait *delay* seconds in each direction."""
        self._delay = delay
        self._poll = select.epoll()
        self._sides: dict[int, _Side] = {}
        self._listeners: dict[int, tuple[socket.socket, Address]] = {}
        #: Data by the time at which it is due. All wait equally long, so it comes in order.
        self._due: deque[tuple[float, _Side, bytes | None]] = deque()
        #: Connections that begin, by the times at which their callers and their targets see them.
        self._near: deque[tuple[float, _Side, Address]] = deque()
        self._far: deque[tuple[float, _Side, Address]] = deque()
        for target in targets:
            listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
            listener.setblocking(False)
            self._listeners[listener.fileno()] = (listener, target)
            self._poll.register(listener, select.EPOLLIN)

    @property
    def addresses(self) -> list[str]:
        """The addresses at which it listens, in the order of the targets."""
        return [f"127.0.0.1:{listener.getsockname()[1]}" for listener, _ in self._listeners.values()]

    def run(self, until: int) -> None:
        """Forward until the file *until* can be read."""
        self._poll.register(until, select.EPOLLIN)
        while True:
            self._wait()
            ready = self._poll.poll(0, _EVENTS)
            now = time.monotonic()
            for number, events in ready:
                side = self._sides.get(number)
                if side is not None:
                    self._serve(side, events, now)
                elif number in self._listeners:
                    self._accept(now, *self._listeners[number])
                elif number == until:
                    return
            self._begin(time.monotonic())
            self._deliver(time.monotonic())

    def _wait(self) -> None:
        """Wait for an event, or for the time at which something is due."""
        times = [line[0][0] for line in (self._due, self._near, self._far) if line]
        # `epoll` counts whole milliseconds. `select` counts microseconds, and can wait for an epoll.
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        if timeout != 0.0:
            select.select([self._poll], [], [], timeout)

    def _accept(self, now: float, listener: socket.socket, target: Address) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                near = self._side(listener.accept()[0])
                self._near.append((now + 2 * self._delay, near, target))

    def _side(self, raw: socket.socket) -> _Side:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Side(raw)

    def _begin(self, now: float) -> None:
        """Let callers be read whose handshake is over, and targets see connections that have reached them."""
        while self._near and self._near[0][0] <= now:
            due, near, target = self._near.popleft()
            far = self._side(socket.socket())
            near.other, far.other = far, near
            self._far.append((due + self._delay, far, target))
            near.open = True
            self._watch(near)
        while self._far and self._far[0][0] <= now:
            _, far, target = self._far.popleft()
            if far.socket.connect_ex(target) in (0, errno.EINPROGRESS):
                self._watch(far)
            else:
                self._break(far, now)

    def _watch(self, side: _Side) -> None:
        self._sides[side.socket.fileno()] = side
        self._poll.register(side.socket, _WATCHED)

    def _serve(self, side: _Side, events: int, now: float) -> None:
        if events & select.EPOLLOUT and not (side.open and not side.late):
            side.open = True
            self._send_late(side, now)
        if events & ~select.EPOLLOUT:
            self._receive(side, now, to_end=bool(events & _FAILED))

    def _receive(self, side: _Side, now: float, *, to_end: bool) -> None:
        """Read all that is there. An event comes once, so a failed or ended connection is read to its end."""
        other = side.other
        while other is not None and not side.ended and side.on_the_way < _ON_THE_WAY_MAX:
            try:
                data = side.socket.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self._break(side, now)
                return
            side.ended = not data
            side.on_the_way += len(data)
            self._due.append((now + self._delay, other, data))
            if len(data) < _CHUNK and not to_end:
                return

    def _deliver(self, now: float) -> None:
        due = self._due
        while due and due[0][0] <= now:
            _, side, data = due.popleft()
            if side.socket.fileno() < 0:
                continue
            if data is _BROKEN:
                side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                self._close(side)
                continue
            waiting = bool(side.late)
            side.late.append(data)
            if side.open and not waiting:
                self._send_late(side, now)

    def _send_late(self, side: _Side, now: float) -> None:
        """Send as much as the socket takes. An event comes when it takes more."""
        late = side.late
        while late:
            data = late[0]
            if data == _END:
                late.clear()
                self._shut(side)
                break
            try:
                sent = side.socket.send(data)
            except BlockingIOError:
                break
            except OSError:
                self._break(side, now)
                return
            late.popleft()
            if sent < len(data):
                late.appendleft(data[sent:])
            self._passed_on(side, sent, now)
        if side.ended and side.shut:
            self._close(side)

    def _passed_on(self, side: _Side, count: int, now: float) -> None:
        origin = side.other
        if origin is None:
            return
        was_full = origin.on_the_way >= _ON_THE_WAY_MAX
        origin.on_the_way -= count
        if was_full and origin.on_the_way < _ON_THE_WAY_MAX and origin.socket.fileno() >= 0:
            self._receive(origin, now, to_end=True)

    def _shut(self, side: _Side) -> None:
        side.shut = True
        with contextlib.suppress(OSError):
            side.socket.shutdown(socket.SHUT_WR)

    def _break(self, side: _Side, now: float) -> None:
        """Close a side that failed; the other one is reset when the news has reached it."""
        if side.other is not None:
            self._due.append((now + self._delay, side.other, _BROKEN))
        self._close(side)

    def _close(self, side: _Side) -> None:
        self._sides.pop(side.socket.fileno(), None)
        side.socket.close()
        side.late.clear()


class Link:
    """A process that runs a proxy."""

    def __init__(self, targets: Sequence[str], delay: float) -> None:
        """Prepare a link to *targets* that takes *delay* seconds in each direction."""
        self._command = [sys.executable, "-m", "benchmarks.proxy", "--delay", str(delay), *targets]

    def __enter__(self) -> Self:
        """Start it."""
        self._child = subprocess.Popen(
            self._command,
            env=os.environ | {"PYTHONPATH": str(_ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        #: The addresses that stand for the targets.
        self.addresses = _pipe(self._child.stdout).readline().split()
        if not self.addresses:
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *exception: object) -> None:
        """Let it end."""
        _pipe(self._child.stdin).close()
        self._child.wait(20)
        _pipe(self._child.stdout).close()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._child.pid


def _pipe(stream: IO[Any] | None) -> IO[Any]:
    if stream is None:
        raise RuntimeError("the child was started without pipes")
    return stream


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main(arguments: list[str]) -> None:
    """Run a proxy until stdin ends."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--delay", type=float, required=True, metavar="SECONDS", help="in each direction")
    parser.add_argument("targets", type=_address, nargs="+", metavar="HOST:PORT")
    options = parser.parse_args(arguments)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(OSError):
        # Otherwise the kernel lets a wait end up to 50 us late.
        Path("/proc/self/timerslack_ns").write_text("1")
    proxy = Proxy(options.targets, options.delay)
    print(*proxy.addresses, flush=True)
    gc.disable()
    proxy.run(sys.stdin.fileno())


if __name__ == "__main__":
    main(sys.argv[1:])
