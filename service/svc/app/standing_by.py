"""The service of a manager that stands by: it turns peers away, and tells its health and metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from svc.addresses import Address
from svc.app.key_comparison import KeyComparison
from svc.app.manager_http import ManagerHttp, standby_answers
from svc.app.notify_socket import NotifySocket
from svc.app.process import announce, logger
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
    http: ManagerHttp,
) -> bool:
    """Turn peers away until this manager has the lead, or is told to stop; return whether it has.

    Its answers over HTTP stay.

    Raises:
        Conflict: the leader has other keys.
    """
    from svc.server.standby import StandbyListener

    log, address = logger(), Address(*listener.getsockname()[:2])
    standby = StandbyListener(listener, lambda: lead.leader, _context(settings))
    comparison = KeyComparison(settings, lambda: _others(lead), lead.stop_waiting)
    standby.start()
    try:
        with signals.passed_to(lead.stop_waiting, lambda: _renew(settings, standby)):
            shown_at = http.show(standby_answers(lead, metrics))
            announce(settings.announce, listen=address, http=shown_at)
            log.info("standing_by", listen=str(address), http=str(shown_at or "off"))
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
