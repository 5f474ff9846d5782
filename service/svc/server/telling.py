"""Logs and counts events of the loop and of its peers: long turns, refusals, workers that come and go."""

from __future__ import annotations

import time

import structlog

from svc.domain.observer import Observer
from svc.domain.queue_state import Notice
from svc.server.connection import Connection

#: A turn of more seconds is logged.
LONG_TURN_SECONDS = 0.05
#: Parts of a turn that take fewer seconds need not be noted as the possible cause of a long turn.
NOTED_SECONDS = 0.001
_REFUSALS = "svc_manager_refusals_total"


class Telling:
    """Counts events, and logs those that an operator may need; of turns, only those of more than 50 ms."""

    def __init__(self, observer: Observer) -> None:
        """Count with *observer*."""
        self._observer = observer
        self._log = structlog.get_logger("svc.manager")
        #: The most seconds of processor time that a turn has taken.
        self._longest = 0.0
        self._processor = time.thread_time()
        #: The longest part of this turn: its seconds, its name and the role of the key that it was for.
        self._part = (0.0, "other", "none")

    def worked(self, part: str, role: str, seconds: float) -> None:
        """Note the name, role and *seconds* of a part of this turn; not needed below `NOTED_SECONDS`."""
        if seconds > self._part[0]:
            self._part = seconds, part, role

    def turned(self, seconds: float) -> None:
        """Count a turn that is over, and log it if it was long."""
        self._observer.turned(seconds)
        before, self._processor = self._processor, time.thread_time()
        (_, part, role), self._part = self._part, (0.0, "other", "none")
        processor = self._processor - before
        if processor > self._longest:
            self._longest = processor
            self._observer.longest_turn(processor, part, role)
        if seconds > LONG_TURN_SECONDS:
            times = {"turn_s": round(seconds, 4), "processor_s": round(processor, 4)}
            self._log.warning("long_turn", **times, part=part, role=role)

    def refused_call(self, connection: Connection, kind: str, method: str) -> None:
        """Count and log a refused request."""
        role = _role(connection)
        self._observer.counted(_REFUSALS, kind, role)
        self._log.warning("call_refused", peer=connection.peer, role=role, kind=kind, method=method)

    def refused_connection(self, peer: str, reason: str, role: str = "none") -> None:
        """Count and log a peer for which there is no place."""
        self._observer.counted(_REFUSALS, "no_place", role)
        self._log.warning("connection_refused", peer=peer, reason=reason)

    def refused_message(self, connection: Connection) -> None:
        """Count a message over the limit, which ends its connection."""
        self._observer.counted(_REFUSALS, "too_large", _role(connection))

    def noticed(self, notice: Notice) -> None:
        """Log for the operator that a worker came or went, or that a drain began or ended."""
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
