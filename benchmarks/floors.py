"""Lower bounds: the least time that some of the service's work can take on this machine.

Each measure does only the unavoidable part of that work, so that a figure of the service can be compared
with it:

- for one job at a time: messages between sleeping processes, and a sync;
- for stock clients: one thread that unpickles and answers;
- for large jobs: SQLite, which writes the bytes of arguments and results;
- for jobs of a kilobyte: also the transport through three processes and back.
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
import statistics
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw
import msgspec

#: Jobs in one event of the journal, if they are submitted in bulk.
_EVENT_JOBS = 1_000
#: Pages of the log at which it is checkpointed, as in the manager.
_CHECKPOINT_PAGES = 2_048
_CLIENTS = 8
_PATIENCE_SECONDS = 60.0


def hops_seconds(count: int) -> float:
    """Return the median time of a message that goes from here through two other processes and back.

    Those are the four messages that a single job needs: to the manager, to a consumer and both ways back.
    Each process sleeps until the message comes.
    """
    context = multiprocessing.get_context("forkserver")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relays = [context.Process(target=_relay, args=(listener.getsockname(), True), daemon=True)]
        relays[0].start()
        near = listener.accept()[0]
        port = int(near.recv(16))
        relays.append(context.Process(target=_relay, args=(("127.0.0.1", port), False), daemon=True))
        relays[1].start()
        near.recv(1)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        taken = _times(lambda: (near.send(b"x" * 100), near.recv(200)), count)
        near.close()
        for relay in relays:
            relay.join()
    return statistics.median(taken)


def sync_seconds(count: int) -> float:
    """Return the median time to overwrite a page of a file and sync it, on the disk of the journals."""
    with TemporaryDirectory(prefix="svc-benchmark-") as folder:
        descriptor = os.open(Path(folder) / "file", os.O_CREAT | os.O_RDWR)
        try:
            os.pwrite(descriptor, bytes(4096 * 64), 0)
            os.fsync(descriptor)
            places = iter(range(count))

            def write() -> None:
                os.pwrite(descriptor, os.urandom(4096), 4096 * (next(places) % 64))
                os.fdatasync(descriptor)

            return statistics.median(_times(write, count))
        finally:
            os.close(descriptor)


def journal_rate(jobs: int, job_bytes: int) -> float:
    """Return the jobs a second whose arguments and results, *job_bytes* each, SQLite alone can write.

    The work is that of the journal: a row and a synced commit for the arguments of 1,000 jobs (fewer if these
    exceed 1 MiB, but at least one), another for their results, and a checkpoint every 8 MiB.
    """
    together = max(1, min(_EVENT_JOBS, (1 << 20) // job_bytes))
    commits = 2 * max(1, jobs // together)
    body = os.urandom(together * job_bytes)
    with TemporaryDirectory(prefix="svc-benchmark-") as folder:
        connection = apsw.Connection(str(Path(folder) / "journal"))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")
        connection.set_wal_hook(_checkpoint)
        started = time.perf_counter()
        for _ in range(commits):
            connection.execute("INSERT INTO events (body) VALUES (?)", (body,))
        seconds = time.perf_counter() - started
        connection.close()
    return commits * together / 2 / seconds


def carry_seconds(jobs: int, job_bytes: int) -> float:
    """Return the processor time to send the arguments and result of a job, *job_bytes* each, over loopback.

    They are sent four times: to the manager, to a consumer, and both ways back. Each time two processes
    encode, send, receive and decode a thousand of them as one message; their times are added.
    """
    context = multiprocessing.get_context("forkserver")
    bodies = [os.urandom(job_bytes) for _ in range(_EVENT_JOBS)]
    messages = max(1, jobs // _EVENT_JOBS)
    with Listener(("127.0.0.1", 0)) as listener:
        reader = context.Process(target=_unpack, args=(listener.address, messages))
        reader.start()
        with listener.accept() as connection:
            connection.recv()
            before = time.process_time()
            for _ in range(messages):
                connection.send_bytes(msgspec.msgpack.encode(bodies))
            spent = time.process_time() - before
            spent += float(connection.recv())
        reader.join(_PATIENCE_SECONDS)
    return 4 * spent / (messages * _EVENT_JOBS)


def thread_rate(items: int) -> float:
    """Return the items a second that one thread passes on if it only unpickles, moves and pickles them.

    Four producers and four consumers make three calls for each item, in the form of stock clients.
    """
    context = multiprocessing.get_context("forkserver")
    with Listener(("127.0.0.1", 0)) as listener:
        each = 2 * items // _CLIENTS
        calls = [(_produce, each)] * (_CLIENTS // 2) + [(_consume, each)] * (_CLIENTS // 2)
        clients = [context.Process(target=work, args=(listener.address, count)) for work, count in calls]
        for client in clients:
            client.start()
        connections = [listener.accept() for _ in clients]
        for connected in connections:
            connected.send(None)
        started = time.perf_counter()
        _serve(connections)
        seconds = time.perf_counter() - started
        for client in clients:
            client.join(_PATIENCE_SECONDS)
    return items / seconds


def _serve(connections: list[Any]) -> None:
    """Answer `put`, `get` and `task_done` until all clients have disconnected; a `get` waits for an item."""
    selector = selectors.DefaultSelector()
    for opened in connections:
        selector.register(opened, selectors.EVENT_READ)
    items: deque[object] = deque()
    waiting: deque[Connection] = deque()
    while selector.get_map():
        for key, _ in selector.select(_PATIENCE_SECONDS):
            connection: Any = key.fileobj
            try:
                _, method, args, _ = connection.recv()
            except EOFError:
                selector.unregister(connection)
                continue
            if method == "get":
                waiting.append(connection)
            else:
                items.extend(args)
                connection.send(("#RETURN", None))
            while items and waiting:
                waiting.popleft().send(("#RETURN", items.popleft()))


def _produce(address: Any, count: int) -> None:
    with Client(address) as connection:
        connection.recv()
        for number in range(count):
            connection.send(("1", "put", (number,), {}))
            connection.recv()


def _consume(address: Any, count: int) -> None:
    with Client(address) as connection:
        connection.recv()
        for _ in range(count):
            for method in ("get", "task_done"):
                connection.send(("1", method, (), {}))
                connection.recv()


def _unpack(address: Any, messages: int) -> None:
    """Receive and decode *messages* messages, and send back the processor time that this took."""
    with Client(address) as connection:
        connection.send(None)
        before = time.process_time()
        for _ in range(messages):
            msgspec.msgpack.decode(connection.recv_bytes(), type=list[bytes])
        connection.send(time.process_time() - before)


def _relay(address: tuple[str, int], first: bool) -> None:
    """Pass on messages: the *first* relay to the second one, which sends them back."""
    with socket.create_connection(address) as near:
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not first:
            _echo(near)
            return
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near.send(b"%d" % listener.getsockname()[1])
            far = listener.accept()[0]
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near.send(b"r")
        while message := near.recv(200):
            far.send(message)
            near.send(far.recv(200))
        far.close()


def _echo(near: socket.socket) -> None:
    while message := near.recv(200):
        near.send(message)


def _checkpoint(connection: apsw.Connection, _database: str, pages: int) -> int:
    if pages > _CHECKPOINT_PAGES:
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    return apsw.SQLITE_OK


def _times(action: Callable[[], object], count: int) -> list[float]:
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return taken
