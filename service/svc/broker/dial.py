"""Makes connections to a manager: TCP, TLS if there are certificates, and the stdlib's handshake.

All addresses of the manager are tried as `svc.first_answer` says: one that accepts a connection and then
stays silent, or does not know the authkey, does not hide another one. A standby (`standbys`) names the
manager that leads, which is then tried, too.
"""

from __future__ import annotations

# `socket` imports it at the first host name. A child forked during that import would wait for ever.
import encodings.idna  # noqa: F401
import pickle
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from svc.broker.framed_dial import FramedDial
from svc.broker.lookups import LookedUpAddresses
from svc.broker.standbys import LeaderQuestion, StandbyTarget, TurnedAway
from svc.errors import AuthenticationFailed, BadRequest, ServiceError
from svc.first_answer import NoAnswer, Target, first_answer, shown
from svc.wire import Stream, with_header
from svc.wire_handshake import CHALLENGE, WELCOME, answer, is_right, make_challenge
from svc.wire_tls import TlsFiles, TlsSocket

if TYPE_CHECKING:
    import ssl


class Dialer:
    """Makes connections to one manager, one at a time."""

    def __init__(self, hosts: Sequence[tuple[str, int]], authkey: bytes, tls: TlsFiles | None) -> None:
        """Dial *hosts* later, with the shared secret and the certificates of this side."""
        self.name = ",".join(shown(host, port) for host, port in hosts)
        self._addresses = LookedUpAddresses(hosts)
        self._authkey = authkey
        self._tls = tls
        self._context: ssl.SSLContext | None = None

    def connect(self, deadline: float, given_up: Callable[[], bool] | None = None) -> Stream:
        """Return a connection over which both sides have proved the authkey.

        *given_up* says whether nobody waits for it any more; that counts as the deadline.

        Raises:
            AuthenticationFailed: one side does not trust the other's key or certificate, and no other address
                will do.
            BadRequest: likewise, and the peer is not a manager.
            OSError, EOFError: the connection broke, or *deadline* (monotonic) has passed.
        """
        if self._tls is not None:
            self._context = self._context or self._tls.client_context()
        try:
            won = first_answer(self._addresses.begin_anew(), self._begin, deadline, given_up)
        except NoAnswer as found:
            self._addresses.forget_leader()
            raise _reason(found) from None
        finally:
            self._addresses.close()
        self._addresses.prefer(won.target)
        assert isinstance(won, _ManagerDial)  # the question to a standby has no answer that wins
        return won.stream()

    def _begin(self, target: Target) -> FramedDial:
        if isinstance(target, StandbyTarget):
            return LeaderQuestion(target, self._tls, self._context, self._addresses.follow)
        return _ManagerDial(target, self._authkey, self._tls, self._context, self._addresses.ask)


class _ManagerDial(FramedDial):
    """The dial to open a connection to a manager at one address."""

    def __init__(
        self,
        target: Target,
        authkey: bytes,
        files: TlsFiles | None,
        context: ssl.SSLContext | None,
        ask: Callable[[Target, Exception], bool],
    ) -> None:
        super().__init__(target, files, context)
        self._authkey = authkey
        self._ask = ask
        self._challenged = False
        self._steps = self._shake_hands()
        next(self._steps)

    def message(self, message: bytes) -> None:
        """Go on with the handshake; see `FramedDial.message`."""
        self._challenged = True
        try:
            response = self._steps.send(message)
        except StopIteration:
            self.answered = True
        else:
            self.say_message(response)

    def ended(self) -> Exception:
        """See `FramedDial.ended`; one that may be a standby is asked who leads."""
        if self._challenged or not self.ready:
            return EOFError("the connection was closed")
        error = EOFError("the connection was closed" if self.tls is not None else _NO_CHALLENGE)
        return TurnedAway(str(error)) if self._ask(self.target, error) else error

    def silence(self) -> Exception:
        """See `Dial.silence`."""
        silent = self.connected and self.tls is None and not self._challenged
        return TimeoutError(_NO_CHALLENGE if silent else "timed out")

    def stream(self) -> Stream:
        """Return the connection, which blocks from now on."""
        self.sock.setblocking(True)
        rest = bytes(self.received)
        if self.tls is None:
            return Stream(self.sock, rest)
        channel = TlsSocket(self.sock, self.tls)
        return Stream(channel, rest, channel.pending)

    def _shake_hands(self) -> Generator[bytes, bytes, None]:
        """Prove to the manager that we know the key, verify that it does, and send `accept_connection`.

        Takes the manager's messages, and yields our answers.
        """
        response = answer(self._authkey, (yield b""))
        if response is None:
            raise BadRequest(f"{self.target} is not a manager: no challenge came")
        if (yield with_header(response)) != WELCOME:
            raise AuthenticationFailed(
                f"the manager at {self.target} refused the authkey; both sides must read the same key file"
            )
        challenge = make_challenge()
        if not is_right(self._authkey, challenge, (yield with_header(CHALLENGE + challenge))):
            raise AuthenticationFailed(f"whoever answers at {self.target} does not know the authkey")
        request = pickle.dumps((None, "accept_connection", ("svc",), {}), protocol=4)
        yield with_header(WELCOME) + with_header(request)


#: A manager with TLS waits for the client's first message, and then closes the connection.
_NO_CHALLENGE = "no challenge came; is it overloaded, or does it ask for TLS?"


def _reason(found: NoAnswer) -> Exception:
    """Return the error to raise: first that of an address that will not do however often it is tried."""
    # One that was turned away has asked who leads; the answer says more.
    told_of = [(name, error) for name, error in found.errors if not isinstance(error, TurnedAway)]
    errors = [error for _, error in told_of]
    for kind in (AuthenticationFailed, ServiceError):
        for error in errors:
            if isinstance(error, kind):
                return error
    if not errors:
        return found
    return errors[0] if len(errors) == 1 else NoAnswer(told_of)
