"""A broken state: how it is told, and the requests that are refused because they broke it.

Whatever exception gets out of the queue, its state can no longer be trusted. The host then raises
`StateBroken` in place of it. Nothing of that turn is acknowledged or committed, and the owner of the host
discards the state and recovers it from the journal.
"""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Final

import msgspec

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.apply import READERS
from svc.domain.members import Member
from svc.errors import JournalError, RowMissing

#: Requests that are remembered as having broken the state; the oldest is forgotten for a new one.
BLAMED_MAX: Final = 1000
#: Commands without content of their own: to refuse one for good would refuse it to everybody.
CONTENTLESS: Final = frozenset(
    (
        c.Lease,
        c.Leave,
        c.Extend,
        c.Stats,
        c.Members,
        c.Ping,
        c.Wake,
        c.Exposition,
        c.Take,
        c.Join,
    )
)
#: Commands that change nothing, whatever goes wrong in them.
READING: Final = frozenset((*READERS, c.Exposition))


class Place(enum.StrEnum):
    """What the manager did when its state broke."""

    #: It applied a request.
    REQUEST = "request"
    #: It asked again for a request that waits.
    WAITING = "waiting"
    #: It did what time brings: due jobs, expired leases, retention.
    UPKEEP = "upkeep"
    #: It gave back what a connection that ended had held.
    CONNECTION = "connection"
    #: It made the turn's events into rows of the journal.
    COMMIT = "commit"
    #: It answered a request that changes nothing, with a state that had been recovered once already. Only the
    #: request was refused.
    READING = "reading"


class StateBroken(Exception):
    """The queue's state cannot be trusted any more.

    Attributes:
        place: what the manager did.
        error: the exception that got out.
        command: the request that was being carried out, if any.
        member: who had sent it.
    """

    def __init__(
        self, place: Place, error: Exception, command: c.Command | None = None, member: Member | None = None
    ) -> None:
        """Take over what is known."""
        super().__init__(f"the queue's state broke in {place}: {type(error).__name__}")
        self.place = place
        self.error = error
        self.command = command
        self.member = member


def is_told(error: Exception) -> bool:
    """Return whether an exception may leave the host as it is.

    It says that the state broke, or that the journal cannot be trusted, which no recovery can mend. A missing
    row is neither: the journal is sound, and the state refers to what is not in it.
    """
    return isinstance(error, StateBroken | JournalError) and not isinstance(error, RowMissing)


class Guard:
    """A block in which no request is named; what gets out of it leaves as `StateBroken`. Has no state."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        """Name *place* in the error."""
        self._place = place

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Raise `StateBroken` for any other exception but those of the disk."""
        if isinstance(error, Exception) and not is_told(error):
            raise StateBroken(self._place, error) from error


class Makers(list[tuple[int, c.Command, Member]]):
    """The requests of a turn that made events: after which number, by which command of whom."""

    def of(self, events: Sequence[tuple[int, e.AnyEvent]]) -> tuple[c.Command | None, Member | None]:
        """Return the request, and whose it is, that made the first of *events* that cannot be encoded."""
        odd = next((sequence for sequence, event in events if not _is_encodable(event)), 0)
        makers = [(command, member) for before, command, member in self if before < odd]
        return makers[-1] if makers else (None, None)


class Blamed:
    """The requests that have broken the state, by digests of their content. Empty, it is false."""

    def __init__(self) -> None:
        """Blame none."""
        self._reports: OrderedDict[bytes, str] = OrderedDict()
        self._kinds: set[type[c.Command]] = set()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._reports)

    def add(self, command: c.Command, report: str, *, inside: bool = False) -> bytes | None:
        """Refuse a command like this from now on; return its digest, or None if it has no content.

        Args:
            command: what broke the state.
            report: the name of the report, which the refusal tells; may be empty.
            inside: whether it came through the manager's own face for plain clients.
        """
        kind = type(command)
        if kind in CONTENTLESS:
            return None
        digest = content_digest(command, inside=inside)
        self._kinds.add(kind)
        self._reports[digest] = report
        self._reports.move_to_end(digest)
        if len(self._reports) > BLAMED_MAX:
            self._reports.popitem(last=False)
        return digest

    def refusal(self, command: c.Command, *, inside: bool) -> r.Refused | None:
        """Return the refusal of a command that has broken the state before, or None for any other."""
        if type(command) not in self._kinds:
            return None
        report = self._reports.get(content_digest(command, inside=inside))
        if report is None:
            return None
        told = f"the manager's bug report {report} tells more" if report else "the manager's log tells more"
        return r.Refused(
            "bad_request",
            f"this request broke the manager's state before and is refused until its restart; {told}",
        )


def unread(error: Exception) -> r.Refused:
    """Return the refusal of a request that would have changed nothing, and met *error*."""
    return r.Refused(
        "bad_request", f"a fault of the manager's own ({type(error).__name__}); it changed nothing"
    )


def _is_encodable(event: e.AnyEvent) -> bool:
    try:
        msgspec.msgpack.encode(event)
    except Exception:  # noqa: BLE001  # that is the question
        return False
    return True


def content_digest(command: c.Command, *, inside: bool) -> bytes:
    """Return a digest of what a command asks for.

    How long it would wait is left out; so are the origin and the number of a plain client's put, which the
    manager gives anew each time.
    """
    content: object = command
    if inside and isinstance(command, c.Submit):
        content = [(chunk.terms, chunk.bodies, chunk.delay, chunk.key) for chunk in command.chunks]
    elif hasattr(command, "wait"):
        content = msgspec.structs.replace(command, wait=0.0)
    try:
        encoded = msgspec.msgpack.encode(content)
    except Exception:  # noqa: BLE001  # it may be the very thing that cannot be encoded
        encoded = repr(content).encode(errors="backslashreplace")
    return hashlib.blake2b(encoded, digest_size=16, person=type(command).__name__.encode()).digest()
