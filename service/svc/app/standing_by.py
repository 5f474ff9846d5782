"""The service of a manager that stands by: it turns peers away, and tells its health and metrics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from svc.addresses import Address
from svc.app.key_comparison import KeyComparison
from svc.app.notify_socket import NotifySocket
from svc.app.process import announce, logger, serving
from svc.app.stop_signals import StopSignals
from svc.settings import ManagerSettings

if TYPE_CHECKING:
    import socket

    from svc.app.leading import Lead
    from svc.server.standby import StandbyListener
    from svc.telemetry.metrics import ManagerMetrics


def stand_by(
    settings: ManagerSettings,
    lead: Lead,
    listener: socket.socket,
    signals: StopSignals,
    metrics: ManagerMetrics,
) -> bool:
    """Turn peers away until this manager has the lead, or is told to stop; return whether it has.

    Raises:
        Conflict: the leader has other keys.
    """
    from svc.server.standby import StandbyListener

    log, address = logger(), Address(*listener.getsockname()[:2])
    standby = StandbyListener(listener, lambda: lead.leader, _context(settings))
    comparison = KeyComparison(settings, lambda: _others(lead), lead.stop_waiting)
    standby.start()
    try:
        with (
            signals.passed_to(lead.stop_waiting, lambda: _renew(settings, standby)),
            _http(settings, lead, metrics) as http,
        ):
            announce(settings.announce, listen=address, http=http)
            log.info("standing_by", listen=str(address), http=str(http or "off"))
            NotifySocket(os.environ).ready()
            comparison.start()
            leads = lead.wait()
            comparison.end()
            return leads
    finally:
        # Clients that come now wait in the kernel's queue.
        standby.stop()


def _others(lead: Lead) -> tuple[str, ...]:
    """Return the addresses of the leader, unless it is a predecessor of this manager at its own address."""
    return () if str(lead.address) in lead.leader else lead.leader


def _context(settings: ManagerSettings) -> Any:
    return settings.tls.server_context() if settings.tls else None


def _renew(settings: ManagerSettings, standby: StandbyListener) -> None:
    standby.tls = _context(settings)


@contextmanager
def _http(settings: ManagerSettings, lead: Lead, metrics: ManagerMetrics) -> Iterator[Address | None]:
    """Serve metrics and health of a standby: it lives, and is not ready."""
    from svc.domain.replies import Totals
    from svc.telemetry.http import HttpServer
    from svc.telemetry.routes import shared, standby_routes

    if settings.http is None:
        yield None
        return
    nothing = Totals([])  # it has no queues
    routes = shared(
        standby_routes(exposition=lambda: "".join(metrics.collect(nothing)).encode(), said=lead.said)
    )
    with serving(
        HttpServer((settings.http.host, settings.http.port), routes, settings.http_hosts)
    ) as address:
        yield address
