"""The connection to a NATS cluster: it finds a server that answers, and never waits on one that is gone.

A request whose connection is lost fails at once, and not when its time is over: nats-py alone would wait.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from svc.chance import CHANCE
from svc.errors import AuthenticationFailed, ConfigurationError, Forbidden, JournalUnreachable, ServiceError
from svc.journal_address import NatsUser, StreamAddress
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.loop_thread import end_tasks
from svc.wire_tls import ANY_NAME, TlsFiles

try:
    import nats.errors
    from nats.aio.client import Client as NatsClient
    from nats.aio.client import Server

    from svc.server.journal.jetstream.tls_transport import TlsTransport
except ImportError:  # pragma: no cover - the extra is not installed
    raise ConfigurationError(
        "a journal on NATS needs the package nats-py: `pip install 'svc-queue[jetstream]'`"
    ) from None

if TYPE_CHECKING:
    import ssl

    from nats.aio.msg import Msg

#: A server that answers no ping for so many seconds, times so many, is left for another one.
_PING_SECONDS: Final = 1
_PINGS: Final = 3
_CONNECT_SECONDS: Final = 2
_RETRY_SECONDS: Final = 0.2
#: A server that does not answer has so many seconds at the end, in which it takes the last bytes.
_CLOSE_SECONDS: Final = 1.0
#: After so many seconds in which the stream took nothing, another server is asked: this one may be cut off
#: from the others, and would not say so.
_AWAY_SECONDS: Final = 3.0
#: In the error of a server that does not let a user in.
_REFUSED: Final = "authorization violation"
#: What nats-py raises, or lets through, if a request has no answer.
SILENCE: Final = (nats.errors.Error, TimeoutError, OSError)


class NatsConnection:
    """A connection that goes to another server when its own is gone. Used by one asyncio loop.

    Attributes:
        release: the release of the server that it is connected to.
        max_payload: the largest message in bytes that this server takes.
    """

    def __init__(
        self,
        address: StreamAddress,
        user: NatsUser | None,
        tls: TlsFiles | None,
        *,
        dial_seconds: int = _CONNECT_SECONDS,
    ) -> None:
        """Prepare a connection; `open` makes it. A server has *dial_seconds* to answer a dial."""
        self._address = address
        self._dial_seconds = dial_seconds
        self._user = user or NatsUser()
        self._tls = tls
        self._client: NatsClient | None = None
        self._redial: asyncio.Task[None] | None = None
        self._waits: set[asyncio.Timeout] = set()
        self._attempts = 0
        self._refused_since: float | None = None
        self._last_error = ""
        #: How many errors there were so far; the same one may come again and again.
        self._errors = 0
        self._closed = False

    @property
    def release(self) -> str:
        """The release of the server."""
        return str(self.client._server_info.get("version", ""))  # noqa: SLF001 - nats-py's own form drops parts

    @property
    def max_payload(self) -> int:
        """The largest message in bytes."""
        return self.client.max_payload

    @property
    def has_jetstream(self) -> bool:
        """Whether the server has it."""
        return bool(self.client._server_info.get("jetstream"))  # noqa: SLF001 - nats-py does not tell

    @property
    def client(self) -> NatsClient:
        """The client of nats-py.

        Raises:
            Unanswered: there is no connection now.
        """
        client = self._client
        if client is None or client.is_closed:
            self._dial_anew()
            raise Unanswered(f"there is no connection to a NATS server ({self._last_error})")
        if not client.is_connected:
            raise Unanswered(f"the connection to the NATS server is lost ({self._last_error})")
        return client

    async def open(self, seconds: float) -> None:
        """Connect to one of the servers.

        Raises:
            JournalUnreachable: none has answered within *seconds*.
            AuthenticationFailed: the user is refused.
            ConfigurationError: the TLS files cannot be used.
        """
        try:
            async with asyncio.timeout(seconds):
                self._client = await self._dial()
        except TimeoutError:
            raise JournalUnreachable(
                f"no NATS server of {self._address} has let us in within {seconds:g} s "
                f"({self._last_error or 'silence'}); see that they run, and that their addresses are right"
            ) from None

    async def close(self) -> None:
        """Close the connection; may be called twice."""
        self._closed = True
        if self._redial is not None:
            self._redial.cancel()
        if self._client is not None:
            await _drop(self._client)

    async def leave_server(self) -> None:
        """Go to another server: this one has not answered, though the connection stands."""
        with suppress(Unanswered):
            await self.client.force_reconnect()

    async def request(
        self, subject: str, data: bytes, seconds: float, headers: dict[str, str] | None = None
    ) -> Msg:
        """Send a request, and return its answer.

        Raises:
            Unanswered: there is none in time, nobody listens, or the connection is lost.
        """
        client, errors = self.client, self._errors
        try:
            with self._waiting(seconds) as wait:
                async with wait:
                    return await client.request(subject, data, timeout=seconds + 1, headers=headers)
        except nats.errors.MaxPayloadError:
            raise ConfigurationError(
                f"a message of {len(data)} bytes is over the server's max_payload; has it been lowered?"
            ) from None
        except SILENCE as error:
            told = self._last_error if self._errors > errors else str(error)
            raise Unanswered(f"{subject}: {told or 'no answer in time'}") from None

    def note_taken(self) -> None:
        """Note that a stream took a write by this connection."""
        self._refused_since = None

    async def note_not_taken(self) -> None:
        """Note that a stream gave no answer to a write; if that goes on, connect to another server."""
        now = asyncio.get_running_loop().time()
        if self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > _AWAY_SECONDS and self._client is not None:
            self._refused_since = None
            await self._client.force_reconnect()

    async def ask_all(self, subject: str, data: bytes, seconds: float) -> AsyncGenerator[bytes]:
        """Yield the answers of all who answer within *seconds*; none if nobody listens, or we may not ask."""
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self.client.new_inbox()
        try:
            subscription = await self.client.subscribe(inbox, cb=arrived.put)
        except SILENCE:
            return
        try:
            await self.client.publish(subject, data, reply=inbox)
            end = asyncio.get_running_loop().time() + seconds
            while (left := end - asyncio.get_running_loop().time()) > 0:
                answer: Msg = await self.answer(arrived.get, left)
                if answer.headers and "Status" in answer.headers:
                    return  # nobody listens
                yield answer.data
        except (Unanswered, *SILENCE):
            return
        finally:
            with suppress(*SILENCE):
                await subscription.unsubscribe()

    async def ask(self, verb: str, body: Mapping[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Return the answer of JetStream's API to `$JS.API.`*verb*; an `error` in it is the caller's to read.

        Raises:
            Unanswered: there is none, or the answer says that there is no leader now.
            Forbidden: the user may not ask that.
        """
        errors = self._errors
        try:
            answer = await self.request(
                f"$JS.API.{verb}", json.dumps(body).encode() if body else b"", seconds
            )
        except Unanswered:
            if self._errors > errors and "permissions violation" in self._last_error:
                raise Forbidden(
                    f"the NATS user may not ask for {verb} ({self._last_error}); give it the permission"
                ) from None
            raise
        found: dict[str, Any] = json.loads(answer.data)
        if found.get("error", {}).get("code") == 503:
            raise Unanswered(f"{verb}: {found['error'].get('description', 'not available')}")
        return found

    @contextmanager
    def _waiting(self, seconds: float) -> Iterator[asyncio.Timeout]:
        """Make a deadline that comes at once if the connection is lost."""
        wait = asyncio.timeout(seconds)
        self._waits.add(wait)
        try:
            yield wait
        finally:
            self._waits.discard(wait)

    async def answer(self, receive: Callable[[], Any], seconds: float) -> Any:
        """Return what *receive* awaits.

        Raises:
            Unanswered: the time is over, or the connection is lost.
        """
        try:
            with self._waiting(seconds) as wait:
                async with wait:
                    return await receive()
        except SILENCE as error:
            raise Unanswered(str(error) or "no answer in time") from None

    async def _dial(self) -> NatsClient:
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        client = _PromptClient(self._tls)

        async def noted(error: Exception) -> None:
            if not client.is_connected:
                _close_socket(client)
            self._last_error, self._errors = str(error) or type(error).__name__, self._errors + 1
            if _REFUSED in self._last_error.lower() and not refused.done():
                refused.set_exception(
                    AuthenticationFailed("the NATS servers refuse the user or its password; see to its file")
                )

        dial = asyncio.ensure_future(client.connect(error_cb=noted, **self._options()))
        try:
            both: set[asyncio.Future[Any]] = {dial, refused}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not dial.done():
                refused.result()
            await dial
        except BaseException:
            await end_tasks(dial)
            await _drop(client)
            raise
        finally:
            refused.cancel()
        return client

    def _options(self) -> dict[str, Any]:
        return {
            # Shuffled here and then in turn, so that the server that was left comes last.
            "servers": CHANCE.sample(self._address.urls(), len(self._address.servers)),
            "dont_randomize": True,
            "name": "svc",
            "disconnected_cb": self._lost,
            "closed_cb": self._lost,
            "reconnected_cb": self._reconnected,
            "max_reconnect_attempts": -1,
            "reconnect_to_server_handler": self._next_server,
            "reconnect_time_wait": _RETRY_SECONDS,
            "connect_timeout": self._dial_seconds,
            "ping_interval": _PING_SECONDS,
            "max_outstanding_pings": _PINGS,
            "pending_size": 0,  # nothing is sent later than its caller waits for it
            "user": self._user.name or None,
            "password": self._user.password or None,
            "token": self._user.token or None,
            **self._tls_options(),
        }

    def _tls_options(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        name = self._tls.name
        context = self._tls.client_context()
        return {"tls": context, **({"tls_hostname": name} if name not in ("", ANY_NAME) else {})}

    def _dial_anew(self) -> None:
        """Connect again if nats-py has given up for good, as it does if a server reports an odd error."""
        if not self._closed and (self._redial is None or self._redial.done()):
            self._redial = asyncio.get_running_loop().create_task(self._dial_until_open())

    async def _dial_until_open(self) -> None:
        try:
            self._client = await self._dial()
        except (AuthenticationFailed, ConfigurationError, *SILENCE) as error:
            self._last_error = str(error)
            await asyncio.sleep(_RETRY_SECONDS)

    def _next_server(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """Return the server to try next, and the pause before: each in turn, the lost one last."""
        current = self._client and self._client._current_server  # noqa: SLF001 - nats-py does not tell
        last = current.uri.netloc if current else ""
        ordered = sorted(servers, key=lambda server: server.uri.netloc)
        following = [server for server in ordered if server.uri.netloc > last]
        self._attempts += 1
        return (following or ordered)[0], 0.0 if self._attempts == 1 else _RETRY_SECONDS

    async def _reconnected(self) -> None:
        self._attempts = 0

    async def _lost(self) -> None:
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            with suppress(RuntimeError):  # it has ended this very moment
                wait.reschedule(now)


class _PromptClient(NatsClient):
    """A client of nats-py that leaves a silent server at once, and whose connections end without a warning.

    nats-py waits until the old connection is closed. With TLS, asyncio gives the server 30 s to say that it
    closes it, too; without, it waits until the server has taken all bytes that are under way.

    Each connection has the certificates that are in the files then: a manager outlives those of its start.
    """

    def __init__(self, tls: TlsFiles | None) -> None:
        """Use the certificates in *tls*."""
        super().__init__()
        self._tls = tls

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The TLS context of the next connection; the last one if the files cannot be used now."""
        if self._tls is not None:
            with suppress(ServiceError):
                self.options["tls"] = self._tls.client_context()
        return super().ssl_context

    async def _connect_to_server(self, s: Any) -> None:
        self._transport = self._transport or TlsTransport()
        await super()._connect_to_server(s)

    async def _attempt_reconnect(self) -> None:
        _abort(self)
        await super()._attempt_reconnect()


async def _drop(client: NatsClient) -> None:
    """Close a client, also one that has not connected."""
    closing = asyncio.ensure_future(client.close())
    await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)  # it may end as cancelled with the attempt
    _abort(client)
    await asyncio.wait({closing})
    _close_socket(client)
    await asyncio.sleep(0)


def _abort(client: NatsClient) -> None:
    """Drop the connection of a client, with all bytes that are under way."""
    transport: Any = client._transport  # noqa: SLF001 - nats-py does not abort it
    writers = [getattr(transport, name, None) for name in ("_io_writer", "_bare_io_writer")]
    for dropped in {writer.transport for writer in writers if writer is not None}:
        dropped.abort()
        # Behind the end of the connection, which `abort` has put there.
        asyncio.get_running_loop().call_soon(_unlink, dropped)


def _unlink(transport: Any) -> None:
    """Break the cycle in which asyncio leaves a transport: a frozen one is never collected.

    See `svc.server.collector`. A manager lives through thousands of lost connections.
    """
    if hasattr(transport, "_read_ready_cb"):
        transport._read_ready_cb = None  # noqa: SLF001 - a method of its own, which is called no more


def _close_socket(client: NatsClient) -> None:
    """Close the socket of an attempt that has failed: nats-py forgets it."""
    transport: Any = client._transport  # noqa: SLF001 - nats-py does not close it
    if transport is not None:
        transport.close()
