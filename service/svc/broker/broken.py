"""The error for a broken state, and the register of requests that are refused because they broke it.

After any unexpected exception in the queue, its state can no longer be trusted. The host then raises
`StateBroken` in place of that exception. Nothing of that turn is acknowledged or committed, and the owner of
the host discards the state and recovers it from the journal.
"""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.apply import READERS
from svc.domain.members import Member
from svc.errors import JournalError, RowMissing

#: The most requests that are remembered as having broken the state; a new one replaces the oldest.
BLOCKED_MAX: Final = 1000

#: A command that made events: the last number before the events, the command, and its sender.
Cause = tuple[int, c.Command, Member]


class Place(enum.StrEnum):
    """The work that the manager was doing when its state broke."""

    #: It applied a request.
    REQUEST = "request"
    #: It applied a waiting request again.
    WAITING = "waiting"
    #: It made the changes that are due by time: due jobs, expired leases, retention.
    UPKEEP = "upkeep"
    #: It gave back the leases of a connection that ended.
    CONNECTION = "connection"
    #: It wrote the turn's events to the journal.
    COMMIT = "commit"
    #: It answered a request that changes nothing, with a state that had already been recovered once. Only the
    #: request was refused.
    READING = "reading"


class StateBroken(Exception):
    """The queue's state cannot be trusted any more.

    Attributes:
        place: the work that the manager was doing.
        error: the original exception.
        command: the command that was being applied, if any.
        member: its sender.
    """

    def __init__(
        self, place: Place, error: Exception, command: c.Command | None = None, member: Member | None = None
    ) -> None:
        """Keep the place, the original exception, and the command with its sender if they are known."""
        super().__init__(f"the queue's state broke in {place}: {type(error).__name__}")
        self.place = place
        self.error = error
        self.command = command
        self.member = member


def passes_through(error: Exception) -> bool:
    """Return whether an exception leaves the host unchanged, and not as `StateBroken`.

    Such an exception says that the state broke, or that the journal cannot be trusted, which no recovery can
    repair. A missing row is neither: the journal is sound, but the state refers to a row that is not in it.
    """
    return isinstance(error, StateBroken | JournalError) and not isinstance(error, RowMissing)


def only_reads(command: c.Command) -> bool:
    """Return whether *command* changes nothing, even if it fails."""
    return type(command) in READERS or isinstance(command, c.Exposition)


@contextmanager
def guarded(place: Place) -> Iterator[None]:
    """Raise `StateBroken`, without a command, for an exception that must not leave the host unchanged."""
    try:
        yield
    except Exception as error:
        if passes_through(error):
            raise
        raise StateBroken(place, error) from error


def cause_of(
    causes: Sequence[Cause], events: Sequence[tuple[int, e.AnyEvent]]
) -> tuple[c.Command | None, Member | None]:
    """Return the command, and its sender, that made the first of *events* that cannot be encoded."""
    odd = next((sequence for sequence, event in events if not _is_encodable(event)), 0)
    found = ((command, member) for before, command, member in reversed(causes) if before < odd)
    return next(found, (None, None))


class Blocklist:
    """The requests that have broken the state, by digests of their content. False if there are none."""

    def __init__(self) -> None:
        """Begin empty."""
        self._reports: OrderedDict[bytes, str] = OrderedDict()
        self._kinds: set[type[c.Command]] = set()

    def __len__(self) -> int:
        """Return how many requests are remembered."""
        return len(self._reports)

    def add(self, command: c.Command, report: str, *, inside: bool = False) -> bytes | None:
        """Refuse commands with the same content from now on; return the digest, or None if it has no content.

        Args:
            command: the command that broke the state.
            report: the name of the fault report, for the refusal's message; may be empty.
            inside: whether the command came from the manager's interface for plain clients.
        """
        digest = content_digest(command, inside=inside)
        if digest is None:
            return None
        self._kinds.add(type(command))
        self._reports[digest] = report
        self._reports.move_to_end(digest)
        if len(self._reports) > BLOCKED_MAX:
            self._reports.popitem(last=False)
        return digest

    def refusal(self, command: c.Command, *, inside: bool) -> r.Refused | None:
        """Return the refusal of a command that has broken the state before, or None for another command."""
        if type(command) not in self._kinds:
            return None
        digest = content_digest(command, inside=inside)
        report = self._reports.get(digest) if digest is not None else None
        if report is None:
            return None
        told = f"the manager's bug report {report} tells more" if report else "the manager's log tells more"
        return r.Refused(
            "bad_request",
            f"this request broke the manager's state before and is refused until its restart; {told}",
        )


def refused_reading(error: Exception) -> r.Refused:
    """Return the refusal of a request that only reads and failed with *error*."""
    return r.Refused(
        "bad_request", f"a fault of the manager's own ({type(error).__name__}); it changed nothing"
    )


def _is_encodable(event: e.AnyEvent) -> bool:
    try:
        msgspec.msgpack.encode(event)
    except Exception:  # noqa: BLE001  # any exception means that it cannot be encoded
        return False
    return True


def content_digest(command: c.Command, *, inside: bool) -> bytes | None:
    """Return a digest of the content of a command; None if it has no content of its own.

    The content does not include the origin and the number of a plain client's put, which the manager assigns
    anew each time.
    """
    content = command.identity()
    if content is None:
        return None
    if inside and isinstance(command, c.Submit):
        content = [
            (chunk.terms, chunk.bodies, chunk.delay, chunk.key, chunk.headers) for chunk in command.chunks
        ]
    try:
        encoded = msgspec.msgpack.encode(content)
    except Exception:  # noqa: BLE001  # this may be the reason why the state broke
        encoded = repr(content).encode(errors="backslashreplace")
    return hashlib.blake2b(encoded, digest_size=16, person=type(command).__name__.encode()).digest()
