"""Everything that the stdlib's own BaseManager clients send is plain data, on every CPython there is."""

import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from svc.server.pickle_scan import loads_plain
from tests.support.pythons import interpreters
from tests.support.svc import first_line

KEY = b"not a secret"

SERVER = """
import queue
from multiprocessing.managers import BaseManager

queues = {"tasks": queue.Queue(), "results": queue.Queue()}
BaseManager.register("tasks", callable=lambda: queues["tasks"])
BaseManager.register("results", callable=lambda: queues["results"])
server = BaseManager(("127.0.0.1", 0), KEY).get_server()
print(server.address[1], flush=True)
server.serve_forever()
"""

CLIENT = """
import copy, multiprocessing, queue, sys, threading
from multiprocessing.managers import BaseManager

class Queues(BaseManager):
    pass

Queues.register("tasks")
Queues.register("results")
manager = Queues(("127.0.0.1", int(sys.argv[1])), KEY)
manager.connect()
tasks, results = manager.tasks(), manager.results()
items = [("m:f", (1, -2.5, "x"), {"a": None}), None, b"bytes" * 100, {"set": {1, 2}}, [1 << 70, True]]
items.append("s" * 100000)
for item in items:
    tasks.put(item)
tasks.put("more", block=True, timeout=2)
tasks.put_nowait("last")
assert tasks.qsize() == len(items) + 2 and not tasks.empty() and not tasks.full()
assert [tasks.get() for _ in items] == items
tasks.get(True, 1.5), tasks.get_nowait()
for _ in range(len(items) + 2):
    tasks.task_done()
tasks.join()
try:
    tasks.get(timeout=0.01)
except queue.Empty:
    pass
thread = threading.Thread(target=results.put, args=({"from": "a thread"},))
thread.start()
thread.join()
multiprocessing.current_process().authkey = KEY
again = copy.copy(results)
assert again.get() == {"from": "a thread"}
str(again), repr(again)
del again, tasks, results
print("done")
"""


class Recorder:
    """A relay between clients and a server that keeps every request of the clients."""

    def __init__(self, port: int) -> None:
        self.requests: list[bytes] = []
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._answers, args=(server, client), daemon=True).start()
                threading.Thread(target=self._requests, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, client.makefile("rb") as stream, suppress(OSError):
            for number in range(1_000_000):
                header = stream.read(4)
                if not header:
                    break
                message = stream.read(struct.unpack("!i", header)[0])
                if number > 2:  # the first three are the handshake: digest, challenge, welcome
                    self.requests.append(message)
                server.sendall(header + message)
            server.shutdown(socket.SHUT_RDWR)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while chunk := server.recv(65536):
                client.sendall(chunk)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    source = f"KEY = {KEY!r}\n{SERVER}"
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as server:
        recorder = Recorder(int(first_line(server)))
        yield recorder
        recorder.close()
        server.kill()


@pytest.mark.parametrize("python", interpreters())
def test_no_request_of_a_stock_client_carries_more_than_plain_data(python, recorder):
    """In particular none asks for `get_methods`, the one call that would carry an object (a Token)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    client = subprocess.run(
        [python, "-c", f"KEY = {KEY!r}\n{CLIENT}", str(recorder.port)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert client.stdout == "done\n", client.stderr
    methods = set()
    for message in recorder.requests:
        request = loads_plain(message)
        assert isinstance(request, tuple)
        assert request == pickle.loads(message)
        methods.add(request[1])
    assert methods == {
        "dummy", "create", "incref", "decref", "accept_connection", "__repr__",
        "put", "put_nowait", "get", "get_nowait", "task_done", "join", "qsize", "empty", "full",
    }  # fmt: skip
