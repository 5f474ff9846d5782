"""What a queue's host adds to the answers of its state: what only it knows, of the journal and the clock."""

from __future__ import annotations

import msgspec

from svc.broker.clock import Clock, behind, is_held
from svc.broker.journal import Journal
from svc.domain import replies as r
from svc.errors import ServiceError
from svc.wire import RELEASE


def completed(reply: r.Totals | r.Welcome, journal: Journal, clock: Clock, uptime: float) -> r.Reply:
    """Return *reply* with what the host knows; *uptime* is in seconds."""
    if isinstance(reply, r.Totals):
        return msgspec.structs.replace(
            reply,
            uptime=uptime,
            journal_bytes=journal.size(),
            durability=journal.durability,
            release=RELEASE,
            clock_offset=behind(clock),
            clock_held=is_held(clock),
        )
    return msgspec.structs.replace(reply, release=RELEASE)


def backup(journal: Journal, name: str) -> r.Reply:
    """Begin a backup, or say how far it is."""
    try:
        return journal.backup(name)
    except ServiceError as error:
        return r.Refused(error.code, str(error))
