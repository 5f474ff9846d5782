"""The HTTP server of a manager: one from its start to its end, with other answers once it leads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from svc.addresses import Address
from svc.app.process import READY_SECONDS, is_ready
from svc.errors import BrokerError, ManagerUnreachable, ServiceError
from svc.settings import ManagerSettings
from svc.wire_tls import ANY_NAME

if TYPE_CHECKING:
    from svc.app.leading import Lead
    from svc.broker.host import QueueHost
    from svc.domain.commands import Command
    from svc.domain.replies import Reply
    from svc.server.manager import Server
    from svc.telemetry.http import HttpServer, Route
    from svc.telemetry.metrics import ManagerMetrics

R = TypeVar("R", bound="Reply")
#: Addresses to listen on are no addresses to connect to.
_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104  # mapped away from


class ManagerHttp:
    """Serves metrics and health at one address for as long as the process lives.

    A standby's answers stay until the leader's take their place: a takeover may last, and whoever asks
    meanwhile must not take the process for dead.
    """

    def __init__(self, settings: ManagerSettings) -> None:
        """Prepare the server that *settings* name; there may be none."""
        self._settings = settings
        self._server: HttpServer | None = None
        self._routes: Mapping[str, Route] | None = None

    def show(self, routes: Mapping[str, Route]) -> Address | None:
        """Answer by *routes* from now on; return the address, or None if no HTTP is served.

        Raises:
            Conflict: the address is in use.
        """
        from svc.telemetry.http import HttpServer
        from svc.telemetry.routes import shared

        http = self._settings.http
        if http is None:
            return None
        self._routes = routes
        if self._server is None:
            server = HttpServer((http.host, http.port), shared(routes), self._settings.http_hosts)
            server.start()
            self._server = server
        else:
            self._server.change(shared(routes))
        return Address(*self._server.address)

    @contextmanager
    def showing(self, routes: Mapping[str, Route]) -> Iterator[Address | None]:
        """Answer by *routes* while the block runs, and then as before it, if there were any answers."""
        before = self._routes
        address = self.show(routes)
        try:
            yield address
        finally:
            if before is None:
                self.close()
            else:
                self.show(before)

    def close(self) -> None:
        """Serve no more; harmless if it does not."""
        server, self._server, self._routes = self._server, None, None
        if server is not None:
            server.stop()


def standby_answers(lead: Lead, metrics: ManagerMetrics) -> dict[str, Route]:
    """Return the routes of a manager that does not serve: it lives, and is not ready."""
    from svc.domain.replies import Totals
    from svc.telemetry.routes import standby_routes

    nothing = Totals([])  # it has no queues
    return standby_routes(
        exposition=lambda: "".join(metrics.collect(nothing)).encode(),
        said=lead.said,
        lists_nothing=lambda: lead.lists_nothing,
    )


def serving_answers(
    settings: ManagerSettings, server: Server, host: QueueHost, metrics: ManagerMetrics
) -> dict[str, Route]:
    """Return the routes of a manager that serves: metrics, health and discovery."""
    from svc.domain.commands import Exposition, Ping, Stats
    from svc.domain.replies import Done, Refused, Text, Totals
    from svc.telemetry.http import NoAnswerNow
    from svc.telemetry.routes import manager_routes, scale_figures

    host_name, port = server.endpoint
    own = Address(_ANY.get(host_name, host_name), port)
    # The manager connects to itself, by an address that its certificate need not have.
    own_tls = replace(settings.tls, name=ANY_NAME) if settings.tls else None

    def ask(function: Callable[[], Any]) -> Any:
        return server.ask(function).result(READY_SECONDS)

    def answer(command: Command, kind: type[R]) -> R:
        replies: Future[list[Reply]] = Future()
        ask(lambda: host.ask([command], replies.set_result))
        (reply,) = replies.result(READY_SECONDS)
        if isinstance(reply, kind):
            return reply
        if isinstance(reply, Refused) and reply.code == ManagerUnreachable.code:
            raise NoAnswerNow(reply.message)
        raise BrokerError(str(reply))

    def exposition() -> bytes:
        return answer(Exposition(), Text).text.encode()

    def ready() -> tuple[bool, str]:
        # If many have come at once, a connection of our own would wait behind all of them.
        with suppress(TimeoutError, ServiceError):
            if ask(lambda: server.pacing):
                answer(Ping(), Done)
                return True, "ok"
        # The authkey may have changed since the start.
        return is_ready(own, settings.read_authkey(), own_tls)

    return manager_routes(
        exposition=exposition,
        ready=ready,
        workers=lambda: ask(host.workers),
        scale=lambda: scale_figures(answer(Stats(), Totals), metrics.mean_run_seconds()),
    )
