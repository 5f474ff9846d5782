"""The HTTP server over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs

from svc.errors import Conflict, ServiceError
from svc.telemetry import http as under_test
from svc.telemetry.http import HttpServer, Response, text


def ok() -> Response:
    return text(200, "ok")


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def server(release: threading.Event) -> Iterator[HttpServer]:
    def stuck() -> Response:
        release.wait(30)
        return ok()

    def broken() -> Response:
        raise ValueError("the secret is 42")

    def late() -> Response:
        raise TimeoutError

    routes = {"/ok": ok, "/stuck": stuck, "/broken": broken, "/late": late}
    running = HttpServer(("127.0.0.1", 0), routes)
    running.start()
    yield running
    running.stop()


def get(server: HttpServer, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def test_a_known_path_is_answered_and_the_query_ignored(server: HttpServer):
    assert get(server, "/ok")[0::2] == (200, b"ok\n")
    assert get(server, "/ok?verbose=1")[0] == 200


def test_an_unknown_path_is_told_which_there_are(server: HttpServer):
    status, _, body = get(server, "/")
    assert status == 404
    assert b"/ok" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "X"])
def test_nothing_but_get_is_allowed(server: HttpServer, method: str):
    assert get(server, "/ok", method)[0] == HTTPStatus.METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    "sent", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 70_000]
)
def test_what_is_no_http_gets_a_short_refusal(server: HttpServer, sent: bytes):
    with socket.create_connection(server.address, timeout=30) as stranger:
        stranger.sendall(sent)
        stranger.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: stranger.recv(4096), b""))
    assert b"<" not in answer
    assert b"ython" not in answer
    assert len(answer) < 300
    assert get(server, "/ok")[0] == 200


def test_a_stranger_is_not_told_what_serves(server: HttpServer):
    _, headers, _ = get(server, "/ok")
    assert "Server" not in headers


@pytest.mark.parametrize(
    ("path", "status", "event"), [("/broken", 500, "http_route_failed"), ("/late", 503, "http_route_late")]
)
def test_a_route_without_an_answer_is_logged_and_its_reason_kept_inside(
    server: HttpServer, path: str, status: int, event: str
):
    with capture_logs() as logs:
        answer = get(server, path)
    assert answer[0] == status
    assert b"42" not in answer[2]
    assert [(log["event"], log["path"]) for log in logs] == [(event, path)]


def test_at_the_bound_the_next_request_is_refused_at_once_and_later_ones_served(
    server: HttpServer, release: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(under_test, "REQUEST_SECONDS", 60.0)
    waiting = [socket.create_connection(server.address, timeout=30) for _ in range(under_test.REQUESTS_MAX)]
    for connection in waiting:
        connection.sendall(b"GET /stuck HTTP/1.0\r\n\r\n")
    assert get(server, "/ok")[0] == 503
    release.set()
    for connection in waiting:
        assert connection.recv(4096).startswith(b"HTTP/1.0 200")
        connection.close()
    assert eventually(lambda: get(server, "/ok")[0] == 200)


def eventually(claim: object, seconds: float = 30.0) -> bool:
    """Ask again until it holds: a slot is free a moment after its answer has arrived."""
    assert callable(claim)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("drip", [b"", b"G"])
def test_a_client_that_dawdles_is_cut_off(monkeypatch: pytest.MonkeyPatch, drip: bytes):
    """Silent or sending a byte now and then, it has as long as one request may take."""
    monkeypatch.setattr(under_test._Handler, "timeout", 600.0)
    monkeypatch.setattr(under_test, "REQUEST_SECONDS", 0.3)
    server = HttpServer(("127.0.0.1", 0), {"/ok": ok})
    server.start()
    began = time.monotonic()
    with socket.create_connection(server.address, timeout=0.05) as slow:
        while time.monotonic() - began < 60:
            try:
                slow.sendall(drip)
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    server.stop()
    assert 0.2 < time.monotonic() - began < 60


def test_stop_is_harmless_before_start_and_twice(server: HttpServer):
    HttpServer(("127.0.0.1", 0), {}).stop()
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address, timeout=1)


def test_a_port_in_use_is_one_clear_line(server: HttpServer):
    host, port = server.address
    with pytest.raises(Conflict, match=f"{host}:{port}.*in use.*--http") as caught:
        HttpServer((host, port), {}).start()
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("address", [("127.0.0.1", 99_999), ("192.0.2.1", 0), ("no.such.host.invalid", 0)])
def test_an_address_that_cannot_be_used_is_one_clear_line(address: tuple[str, int]):
    with pytest.raises(ServiceError, match="cannot serve HTTP on"):
        HttpServer(address, {}).start()


def test_ipv6_is_served():
    server = HttpServer(("::1", 0), {"/ok": ok})
    server.start()
    assert get(server, "/ok")[0] == 200
    server.stop()


# --- the names by which it is asked -------------------------------------------------------------------------

NAMES = ("queue.example", "Manager.Internal.")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9100", 200),
        ("10.9.8.7:80", 200),
        ("[::1]:9100", 200),
        ("[fd00::1]", 200),
        ("localhost", 200),
        ("manager:9100", 200),
        ("svc_manager-1", 200),
        ("queue.example:9100", 200),
        ("QUEUE.example.", 200),
        ("manager.internal", 200),
        (socket.gethostname(), 200),
        ("evil.example", 421),
        ("evil.example:9100", 421),
        ("queue.example.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("127.0.0.1@evil.example", 421),
        ("evil.example.", 421),
        ("ai.", 421),
        ("", 421),
        ("a b", 421),
        ("[::1].evil.example", 421),
        ("[evil]", 421),
        ("127.1", 421),
        ("é", 421),
    ],
)
def test_only_names_of_ours_are_answered(host: str, status: int):
    server = HttpServer(("127.0.0.1", 0), {"/ok": ok}, NAMES)
    server.start()
    try:
        assert answered(server, f"GET /ok HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n") == status
    finally:
        server.stop()


def test_a_request_without_a_host_or_with_two_is_refused_but_for_old_ones(server: HttpServer):
    assert answered(server, "GET /ok HTTP/1.1\r\nConnection: close\r\n\r\n") == 421
    twice = "GET /ok HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert answered(server, twice) == 421
    assert answered(server, "GET /ok HTTP/1.0\r\n\r\n") == 200
    assert answered(server, "GET /ok HTTP/1.0\r\nHost: evil.example\r\n\r\n") == 421


def test_any_name_is_answered_if_that_is_wanted():
    server = HttpServer(("127.0.0.1", 0), {"/ok": ok}, ["*"])
    server.start()
    try:
        assert answered(server, "GET /ok HTTP/1.0\r\nHost: evil.example\r\n\r\n") == 200
    finally:
        server.stop()


def answered(server: HttpServer, request: str) -> int:
    with socket.create_connection(server.address, 10) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split(b" ", 2)[1])
