"""Logs and counts what an operator may want to know of peers: refusals, and workers that come and go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import structlog

from svc.domain.members import Notice
from svc.domain.observer import Observer
from svc.errors import BadRequest
from svc.server.connection import Connection

#: Lines about workers that come and go, of each kind, in so many seconds: a key for work can have any number.
NOTICES_MAX = 1000
NOTICES_SECONDS = 30.0


class PeerLog:
    """Counts events with an observer, and logs those that an operator may need."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        """Count with *observer*; *clock* returns seconds that never go back."""
        self._observer = observer
        self._clock = clock
        #: The notices of each kind since the last count began, those held back, and when the next one begins.
        self._noticed: Counter[str] = Counter()
        self._held_back: Counter[str] = Counter()
        self._counted_until = 0.0
        self._log = structlog.get_logger("svc.manager")

    def refused_call(self, connection: Connection, kind: str, method: str) -> None:
        """Count and log a refused request."""
        role = _role(connection)
        self._observer.refused(kind, role)
        self._log.warning("call_refused", peer=connection.peer, role=role, kind=kind, method=method)

    def refused_command(self, connection: Connection, code: str, verb: str) -> None:
        """Count a command that was refused with *code*; log one that no client of ours sends."""
        if code == BadRequest.code:
            self.refused_call(connection, code, verb)
        else:
            self._observer.refused(code, _role(connection))

    def forbidden(self, connection: Connection, right: str) -> str:
        """Count and log a request for which the peer's key lacks *right*; return the error message."""
        self.refused_call(connection, "forbidden", right)
        return (
            f"a key for {_role(connection)!r} may not {right!r}; use a key whose role may "
            "(docs/security.md has the tables)"
        )

    def refused_connection(self, peer: str, reason: str, role: str = "none") -> None:
        """Count and log a peer for which there is no place."""
        self._observer.refused("no_place", role)
        self._log.warning("connection_refused", peer=peer, reason=reason)

    def refused_stranger(self, peer: str, reason: str) -> None:
        """Count and log a peer that has not proved a key."""
        self._observer.counted("svc_manager_auth_failures_total")
        self._log.warning("connection_refused", peer=peer, reason=reason)

    def refused_message(self, connection: Connection) -> None:
        """Count a message over the limit, which ends its connection."""
        self._observer.refused("too_large", _role(connection))

    def noticed(self, notice: Notice) -> None:
        """Log that a worker came or went, that a drain began or ended, or that jobs were purged."""
        if not self._has_room(notice):
            return
        held_back = self._held_back.pop(notice.what, 0)
        log = self._log.bind(suppressed=held_back) if held_back else self._log
        match notice.what:
            case "joined":
                log.info("worker_joined", worker=notice.name)
            case "left":
                log.info("worker_left", worker=notice.name)
            case "lost":
                log.warning("worker_lost", worker=notice.name, host=notice.host, jobs=notice.jobs)
            case "silent":
                log.warning("worker_silent", worker=notice.name, host=notice.host, jobs=notice.jobs)
            case "doubled":
                log.warning("worker_name_doubled", worker=notice.name, hosts=notice.host)
            case "drained":
                log.info("drain_started", worker=notice.name or "all")
            case "resumed":
                log.info("drain_resumed", worker=notice.name or "all")
            case "purging" | "purged":
                done = notice.what == "purged"
                log.info("jobs_purged", jobs=notice.jobs, which=notice.name, done=done)

    def _has_room(self, notice: Notice) -> bool:
        """Count a notice; return whether it is not over the bound of its kind."""
        now = self._clock()
        if now >= self._counted_until:
            self._counted_until = now + NOTICES_SECONDS
            self._noticed.clear()
        self._noticed[notice.what] += 1
        if self._noticed[notice.what] > NOTICES_MAX:
            self._held_back[notice.what] += 1
            return False
        return True


def _role(connection: Connection) -> str:
    return str(connection.role or "none")
