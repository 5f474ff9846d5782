"""Logs and counts what an operator may want to know of peers: refusals, and workers that come and go."""

from __future__ import annotations

import structlog

from svc.domain.observer import Observer
from svc.domain.queue_state import Notice
from svc.server.connection import Connection

_REFUSALS = "svc_manager_refusals_total"


class PeerLog:
    """Counts events with an observer, and logs those that an operator may need."""

    def __init__(self, observer: Observer) -> None:
        """Count with *observer*."""
        self._observer = observer
        self._log = structlog.get_logger("svc.manager")

    def refused_call(self, connection: Connection, kind: str, method: str) -> None:
        """Count and log a refused request."""
        role = _role(connection)
        self._observer.counted(_REFUSALS, kind, role)
        self._log.warning("call_refused", peer=connection.peer, role=role, kind=kind, method=method)

    def forbidden(self, connection: Connection, right: str) -> str:
        """Count and log a request for which the peer's key lacks *right*; return the error message."""
        self.refused_call(connection, "forbidden", right)
        return (
            f"a key for {_role(connection)!r} may not {right!r}; use a key whose role may "
            "(docs/security.md has the tables)"
        )

    def refused_connection(self, peer: str, reason: str, role: str = "none") -> None:
        """Count and log a peer for which there is no place."""
        self._observer.counted(_REFUSALS, "no_place", role)
        self._log.warning("connection_refused", peer=peer, reason=reason)

    def refused_stranger(self, peer: str, reason: str) -> None:
        """Count and log a peer that has not proved a key."""
        self._observer.counted("svc_manager_auth_failures_total")
        self._log.warning("connection_refused", peer=peer, reason=reason)

    def refused_message(self, connection: Connection) -> None:
        """Count a message over the limit, which ends its connection."""
        self._observer.counted(_REFUSALS, "too_large", _role(connection))

    def noticed(self, notice: Notice) -> None:
        """Log that a worker came or went, or that a drain began or ended."""
        match notice.what:
            case "joined":
                self._log.info("worker_joined", worker=notice.name)
            case "left":
                self._log.info("worker_left", worker=notice.name)
            case "lost":
                self._log.warning("worker_lost", worker=notice.name)
            case "drained":
                self._log.info("drain_started", worker=notice.name or "all")
            case "resumed":
                self._log.info("drain_resumed", worker=notice.name or "all")


def _role(connection: Connection) -> str:
    return str(connection.role or "none")
