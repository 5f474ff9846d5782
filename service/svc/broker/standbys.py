"""The way from a standby to the manager that leads.

A standby closes each connection before its challenge. So a dial that ends like this is followed by a question
at the same address, and by dials at the addresses in the answer. Whoever answers there has to prove itself as
any manager does, so a lie leads nowhere. It is not asked in its turn, so lies do not lead on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc.addresses import ManagerAddresses, parse_manager
from svc.broker.framed_dial import FramedDial
from svc.errors import ConfigurationError
from svc.first_answer import AskAgain, Target
from svc.wire import with_header
from svc.wire_handshake import CHALLENGE, LEADER_QUESTION, leader_named
from svc.wire_tls import TlsFiles

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


class TurnedAway(EOFError):
    """The other side closed the connection before its challenge: it may be a standby."""


class IsStandby(AskAgain):
    """The other side is a standby; the message says who leads.

    Attributes:
        leader: the addresses of the leader, None if it knows of none.
    """

    def __init__(self, leader: ManagerAddresses | None) -> None:
        """Keep the *leader* that the standby has named."""
        self.leader = leader
        known = f"; the leader is {leader}" if leader is not None else ", and knows no leader at present"
        super().__init__(f"it is a standby{known}")


class StandbyTarget(Target):
    """The address of one that may be a standby, to be asked who leads."""

    def __init__(self, target: Target, error: Exception) -> None:
        """Ask at *target*, whose dial ended with *error*."""
        super().__init__(target.family, target.sockaddr, target.host, target.port)
        self.error = error


class LeaderQuestion(FramedDial):
    """The question to a standby; it never wins a race, but may add an address to it."""

    def __init__(
        self,
        target: StandbyTarget,
        files: TlsFiles | None,
        context: ssl.SSLContext | None,
        follow: Callable[[ManagerAddresses], None],
    ) -> None:
        """Ask at *target*; *follow* adds the addresses in the answer."""
        super().__init__(target, files, context)
        self._error = target.error
        self._follow = follow

    def secured(self) -> None:
        """Ask; a standby waits for the question only a moment."""
        self.say_message(with_header(LEADER_QUESTION))

    def message(self, message: bytes) -> None:
        """Take the answer; see `FramedDial.message`."""
        if message.startswith(CHALLENGE):
            raise ConnectionError("it had no place for a connection, or took over a moment ago; try again")
        named = leader_named(message)
        if named is None:
            raise self._error
        if not named:
            raise IsStandby(None)
        try:
            leader = parse_manager(named)
        except ConfigurationError:
            raise self._error from None
        self._follow(leader)
        raise IsStandby(leader)

    def ended(self) -> Exception:
        """See `FramedDial.ended`: what the first dial met is the reason."""
        return self._error

    def silence(self) -> Exception:
        """See `Dial.silence`."""
        return self._error
