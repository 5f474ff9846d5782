"""Clients of the HTTP server that are slow to ask, or to read the answer."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing import connection

import pytest

from svc.telemetry import http as under_test
from svc.telemetry.http import HttpServer, Response, text

Connect = Callable[[HttpServer], socket.socket]
#: Bytes that no buffer of a socket takes.
LONG = 16 * 1024 * 1024


def _long() -> Response:
    return Response(200, "text/plain", bytes(LONG))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    # A busy machine takes more than five seconds for 16 clients: they are to be cut off for room alone.
    monkeypatch.setattr(under_test, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(under_test._Handler, "timeout", 60.0)
    running = HttpServer(("127.0.0.1", 0), {"/ok": lambda: text(200, "ok"), "/long": _long})
    running.start()
    yield running
    running.stop()


def slow_client(server: HttpServer) -> socket.socket:
    client = socket.create_connection(server.address, timeout=20)
    client.sendall(b"GET /o")
    return client


def status(server: HttpServer) -> int:
    connection = http.client.HTTPConnection(*server.address, timeout=20)
    try:
        connection.request("GET", "/ok")
        return connection.getresponse().status
    finally:
        connection.close()


def waited_for(server: HttpServer) -> int:
    return 0 if server._server is None else len(server._server.waiting)


def slow_reader(server: HttpServer) -> socket.socket:
    """Return a client that has asked, and reads no more than the beginning of the answer."""
    client = socket.create_connection(server.address, timeout=20)
    client.sendall(b"GET /long HTTP/1.0\r\n\r\n")
    assert client.recv(15) == b"HTTP/1.0 200 OK"
    return client


def slow_reader_of_two(server: HttpServer) -> socket.socket:
    """Return one that has sent a second request after the first, without a pause."""
    client = socket.create_connection(server.address, timeout=20)
    client.sendall(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
    assert client.recv(15) == b"HTTP/1.0 200 OK"
    return client


def fill(
    server: HttpServer, connect: Callable[[HttpServer], socket.socket] = slow_client
) -> list[socket.socket]:
    """Take all places with requests that do not come, or whose answers do not go."""
    clients = [connect(server) for _ in range(under_test.REQUESTS_MAX)]
    deadline = time.monotonic() + 20
    while waited_for(server) < len(clients):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return clients


def test_slow_requests_keep_no_other_out(server, monkeypatch):
    """16 connections without a request made each probe of liveness fail for five seconds, again and again."""
    monkeypatch.setattr(under_test, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(under_test, "_ROOM_SECONDS", 20.0)
    clients = fill(server)
    assert status(server) == 200
    cut_off, *_ = connection.wait(clients, 20)  # the one whose thread began first
    assert isinstance(cut_off, socket.socket)
    assert cut_off.recv(1) == b""
    for each in clients:
        each.close()


def test_a_request_that_has_just_begun_to_come_is_not_cut_off(server, monkeypatch):
    monkeypatch.setattr(under_test, "SLOW_SECONDS", 60.0)
    clients = fill(server)
    assert status(server) == 503
    clients[0].sendall(b"k HTTP/1.0\r\n\r\n")
    assert clients[0].recv(15) == b"HTTP/1.0 200 OK"
    for each in clients:
        each.close()


@pytest.mark.parametrize("connect", [slow_client, slow_reader, slow_reader_of_two])
def test_clients_that_read_no_answer_keep_no_other_out_either(server, monkeypatch, connect):
    """So did 16 that asked for metrics of some MB, as of queues with long names, and read none of it."""
    monkeypatch.setattr(under_test, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(under_test, "_ROOM_SECONDS", 20.0)
    clients = fill(server, connect)
    for _ in range(2 * len(clients)):
        assert status(server) == 200
        clients.append(connect(server))
    for each in clients:
        each.close()


def test_a_client_that_reads_its_answer_has_all_of_it(server):
    client = slow_reader(server)
    size = 0
    while data := client.recv(1 << 20):
        size += len(data)
    assert size > LONG
    client.close()


def test_a_client_that_has_just_begun_to_read_is_not_cut_off(server, monkeypatch):
    monkeypatch.setattr(under_test, "SLOW_SECONDS", 60.0)
    clients = fill(server, slow_reader)
    assert status(server) == 503
    for each in clients:
        each.close()
