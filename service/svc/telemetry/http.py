"""A small bounded HTTP server for metrics and health: GET only, one thread for each request, plain answers.

It is meant for scrapers and probes on a private network. Any client can hold only a bounded number of threads
for a few seconds, and learns nothing about the server software.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple

import structlog

from svc.errors import ConfigurationError, Conflict

#: Seconds after which a request is cut off, while it is read or answered.
REQUEST_SECONDS = 5.0
#: Requests served at the same time; the next one gets status 503 if none of these ends at once.
REQUESTS_MAX = 16
#: If there is no room for another one, the oldest is cut off that has not come, or whose answer has not gone,
#: after so many seconds; and so long is waited for its room. An honest request comes in one packet.
SLOW_SECONDS = 0.5
_ROOM_SECONDS = 0.1

#: Seconds after which a client that got status 503 may ask again.
RETRY_SECONDS = 1
_FULL = (
    f"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: {RETRY_SECONDS}\r\n\r\n".encode()
)
_STOP_POLL_SECONDS = 0.1
_MISDIRECTED = (
    "this server is not known by the name in your Host header; ask for its address, or name it in "
    "--http-hosts (SVC_HTTP_HOSTS)"
)

#: In a list of names: answer requests for any name.
ANY_HOST = "*"
_HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::\d{1,5})?")

log = structlog.get_logger()


class Response(NamedTuple):
    """The answer of a path: HTTP status, content type, body."""

    status: int
    content_type: str
    body: bytes


Route = Callable[[], Response]


class NoAnswerNow(Exception):
    """A route has no answer for a known reason, which the client is told; it is not logged."""


def text(status: int, message: str) -> Response:
    """Return a plain-text answer."""
    return Response(status, "text/plain; charset=utf-8", f"{message}\n".encode())


class KnownHosts:
    """The accepted values of `Host`: addresses, names without a dot, this host's name, and given names.

    So no web page reaches the server by DNS rebinding: the owner of a web page may let its own host name
    point to an address of this network, so that the page can read the answers from there. The browser still
    sends the page's name in `Host`. Such a name has a dot, is no address, and is none of ours.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        """Accept *names* too; `ANY_HOST` among them accepts all names."""
        self._any = ANY_HOST in names
        self._names = {name.lower().rstrip(".") for name in (*names, socket.gethostname())}

    def knows(self, said: str) -> bool:
        """Return whether to answer a request whose `Host` is *said*."""
        if self._any:
            return True
        match = _HOST.fullmatch(said.strip())
        if match is None:
            return False
        if match["v6"]:
            return _is_address(match["v6"])
        name = match["name"].lower()
        return "." not in name or name.rstrip(".") in self._names or _is_address(name)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class HttpServer:
    """Serves *routes* (path -> function that answers it) at *address*; port 0 takes a free one.

    A route is called in a thread of its own and should return well within `REQUEST_SECONDS`. If it raises
    `NoAnswerNow`, the client gets status 503 and its message. Other exceptions are logged; the client gets
    503 for a `TimeoutError`, else 500.
    """

    def __init__(
        self, address: tuple[str, int], routes: Mapping[str, Route], hosts: Collection[str] = ()
    ) -> None:
        """Answer requests for *hosts* too, in addition to the names of `KnownHosts`."""
        self._wanted = address
        self._routes = dict(routes)
        self._hosts = KnownHosts((*hosts, address[0]))
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; the actual port once the server is started."""
        if self._server is None:
            return self._wanted
        return self._wanted[0], self._server.server_address[1]

    def start(self) -> None:
        """Listen, and serve from a daemon thread. Harmless if it does already.

        Raises:
            Conflict: the address is in use, or is not one of this host.
            ConfigurationError: there is no such port.
        """
        if self._thread is not None:
            return
        self._server = _listen(self._wanted, self._routes, self._hosts)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_STOP_POLL_SECONDS,), name="svc-http", daemon=True
        )
        self._thread.start()

    def change(self, routes: Mapping[str, Route]) -> None:
        """Answer by *routes* from the next request on."""
        self._routes = dict(routes)
        if self._server is not None:
            self._server.routes = self._routes

    def stop(self) -> None:
        """Stop listening, without waiting for running requests. May be called before `start`, and again."""
        thread, self._thread = self._thread, None
        if self._server is None or thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        thread.join()


def _listen(address: tuple[str, int], routes: Mapping[str, Route], hosts: KnownHosts) -> _Server:
    host, port = address
    try:
        return _Server(address, routes, hosts)
    except OSError as error:
        reason = "the address is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise Conflict(
            f"cannot serve HTTP on {host}:{port}: {reason}; choose another `--http` address, with port 0 for "
            "any free one, or `--http off`"
        ) from None
    except OverflowError:
        raise ConfigurationError(f"cannot serve HTTP on {host}:{port}: there is no such port") from None


class _Server(ThreadingMixIn, TCPServer):
    """The listening socket. It is no `HTTPServer`, as that looks up its name in the DNS before it listens."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], routes: Mapping[str, Route], hosts: KnownHosts) -> None:
        self.hosts = hosts
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.routes = routes
        self._slots = threading.BoundedSemaphore(REQUESTS_MAX)
        #: The requests that have not come yet, or whose answers have not gone yet, and since when the clients
        #: are waited for, oldest first.
        self.waiting: dict[_Handler, float] = {}
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._find_room():
            try:
                super().process_request(request, client_address)
            except RuntimeError:  # no more threads can be started
                self._slots.release()
                raise
            return
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(_FULL)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def _find_room(self) -> bool:
        """Return whether there is room for one more request; the oldest whose client is slow makes some."""
        if self._slots.acquire(blocking=False):
            return True
        before = time.monotonic() - SLOW_SECONDS
        slow = [each for each, since in list(self.waiting.items()) if since <= before]
        if not slow:
            return False
        slow[0].cut_off()
        return self._slots.acquire(timeout=_ROOM_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that disconnects or is cut off is no event of the service."""

    def answer(self, path: str) -> Response:
        routes = self.routes
        route = routes.get(path)
        if route is None:
            return text(HTTPStatus.NOT_FOUND, "there is: " + " ".join(routes))
        try:
            return route()
        except NoAnswerNow as error:
            return text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except TimeoutError:
            log.warning("http_route_late", path=path)
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "no answer in time; try again")
        except Exception as error:
            log.exception("http_route_failed", path=path, error=str(error))
            return text(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error; the log has it")


class _Handler(BaseHTTPRequestHandler):
    """One request on one connection."""

    server: _Server
    timeout = REQUEST_SECONDS

    def handle(self) -> None:
        # The timeout is for each read; the timer also ends a client that sends a byte every few seconds.
        deadline = threading.Timer(REQUEST_SECONDS, self.cut_off)
        deadline.daemon = True
        deadline.start()
        self._wait_for_client()
        try:
            super().handle()
        finally:
            self.server.waiting.pop(self, None)
            deadline.cancel()

    def _wait_for_client(self) -> None:
        """Note that from now on the client is waited for, and no route."""
        self.server.waiting[self] = time.monotonic()

    def cut_off(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:  # the name that the base class calls
        self.server.waiting.pop(self, None)
        if self._is_meant_for_us():
            self._send(self.server.answer(self.path.partition("?")[0]))
        else:
            self._send(text(HTTPStatus.MISDIRECTED_REQUEST, _MISDIRECTED))

    def _is_meant_for_us(self) -> bool:
        said = self.headers.get_all("Host") or []
        if not said:
            return self.request_version in ("HTTP/0.9", "HTTP/1.0")  # no browser speaks these
        return len(said) == 1 and self.server.hosts.knows(said[0])

    def send_error(self, code: int, *_wording: str | None, **_more: str | None) -> None:
        """Answer an invalid request or another method, without the base class's page and banner."""
        known = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(text(known, known.phrase))

    def _send(self, response: Response) -> None:
        self._wait_for_client()
        self.send_response_only(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-store")
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", str(RETRY_SECONDS))
        self.end_headers()
        self.wfile.write(response.body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Do not log each request."""
