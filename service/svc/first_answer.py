"""Reaches the first of several addresses that answers, as RFC 8305 ("Happy Eyeballs") has it.

One dial after the other begins, without waiting for the end of the one before; the first that is answered
wins, and the others are closed. An address that accepts a connection and then stays silent does not win.

Standard library only, and no thread: `svc health` uses this before anything else is imported.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Protocol, TypeVar

    A = TypeVar("A", bound="Dial")

    class Addresses(Protocol):
        """The addresses to try, in their order; some may not be known yet."""

        def next(self) -> Target | None:
            """Return the next address; None if no other one is known at present.

            Raises:
                OSError: a name cannot be resolved; the next call goes on after it.
            """

        @property
        def exhausted(self) -> bool:
            """Whether no other address will be known."""

        @property
        def news(self) -> socket.socket | None:
            """Becomes readable as soon as `next` knows more; None if it is never to be waited for."""


#: Seconds until the next address is tried, too, if the last one has not accepted the connection; and if it
#: has, and says nothing. The second is longer: a manager that is busy after a restart lets peers in in turn.
STAGGER_SECONDS, SILENCE_SECONDS = 0.25, 1.0
#: Seconds that others have to accept the connection, once one has said that it will do later (`AskAgain`);
#: and those that the look-up of a name has if there are no others.
AGAIN_SECONDS, NAMES_SECONDS = 1.0, 0.25
#: Addresses of one name that are tried.
ADDRESSES_MAX = 16
#: Seconds between two looks at whether the caller still wants an answer.
LOOK_SECONDS = 0.1
_RECEIVED_BYTES = 64 * 1024
_UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR)
#: A forked child that has a copy of an epoll object would disturb its parent's.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Target:
    """One address to connect to, with the host and port that it was found by."""

    __slots__ = ("family", "host", "port", "sockaddr")

    def __init__(self, family: int, sockaddr: Any, host: str, port: int) -> None:
        """Connect to *sockaddr* of this *family*."""
        self.family, self.sockaddr, self.host, self.port = family, sockaddr, host, port

    @property
    def name(self) -> str:
        """The host and port as the user named them."""
        return shown(self.host, self.port)

    def __str__(self) -> str:
        """Return the host and port, and the address if the host is a name."""
        address = str(self.sockaddr[0])
        return self.name if address == self.host else f"{self.name} ({address})"


class NoAnswer(OSError):
    """No address has answered.

    Attributes:
        errors: the reason for each, in the order in which they were found.
    """

    def __init__(self, errors: Sequence[tuple[str, Exception]]) -> None:
        """Keep the errors; the message has all of them, with the addresses if there are several."""
        self.errors = list(errors)
        told_of = (f"{name}: {told(error)}" if name else told(error) for name, error in self.errors)
        reasons = list(dict.fromkeys(told_of))
        super().__init__("; ".join(reasons) if len(reasons) > 1 else told(self.errors[0][1]))


class NotTried(TimeoutError):
    """The deadline had passed before an address was tried."""


class AskAgain(ConnectionRefusedError):
    """The other side may do in a moment: the race is not to wait long for others that do not even connect.

    So the standby of a manager whose host is gone is soon asked again.
    """


class Dial:
    """One connection without blocking; a subclass says something, and knows when it was answered.

    Attributes:
        target: the address.
        sock: the socket.
        connected: whether the other side has accepted the connection.
        answered: set by the subclass when the other side has said all that it has to.
    """

    def __init__(self, target: Target) -> None:
        """Begin to connect.

        Raises:
            OSError: it is clear at once that the address cannot be reached.
        """
        self.target = target
        self.connected = self.answered = False
        self._unsent = bytearray()
        self.sock = socket.socket(target.family, socket.SOCK_STREAM)
        try:
            self.sock.setblocking(False)
            _check(self.sock.connect_ex(target.sockaddr), *_UNDER_WAY)
        except BaseException:
            self.sock.close()
            raise

    def greet(self) -> None:
        """Say the first thing over the connection that was made."""

    def take(self, data: bytes) -> None:
        """Take bytes of the other side; none if it has ended the connection.

        Raises:
            Exception: this address will not do.
        """

    def silence(self) -> Exception:
        """Return the error of a dial that was not answered in time."""
        return TimeoutError("timed out")

    def say(self, data: bytes) -> None:
        """Send *data*, now or when there is room."""
        self._unsent += data
        if self._unsent:
            try:
                del self._unsent[: self.sock.send(self._unsent)]
            except BlockingIOError:
                return

    @property
    def events(self) -> int:
        """The events of the socket for which the dial waits."""
        if not self.connected:
            return selectors.EVENT_WRITE
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def advance(self, events: int) -> None:
        """Go on after *events*.

        Raises:
            Exception: this address will not do.
        """
        if not self.connected:
            _check(self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            self.connected = True
            self.greet()
            return
        self.say(b"")
        if events & selectors.EVENT_READ:
            try:
                data = self.sock.recv(_RECEIVED_BYTES)
            except BlockingIOError:
                return
            self.take(data)


class NamedAddresses:
    """The addresses of hosts, each found when its turn comes."""

    def __init__(self, hosts: Iterable[tuple[str, int]]) -> None:
        """Find the addresses of these *hosts* and ports, in their order."""
        self._hosts = list(hosts)
        self._found: list[Target] = []
        self.news: socket.socket | None = None

    def next(self) -> Target | None:
        """See `Addresses.next`."""
        while not self._found and self._hosts:
            self._found = resolved(*self._hosts.pop(0))
        return self._found.pop(0) if self._found else None

    @property
    def exhausted(self) -> bool:
        """See `Addresses.exhausted`."""
        return not (self._found or self._hosts)


def first_answer(
    addresses: Addresses,
    begin: Callable[[Target], A],
    deadline: float,
    given_up: Callable[[], bool] | None = None,
) -> A:
    """Return the first dial that is answered; close all others.

    Args:
        addresses: the addresses, in the order in which they are tried.
        begin: begins a dial at one of them.
        deadline: the monotonic time until which one has to answer.
        given_up: says whether nobody waits for the answer any more; that counts as the deadline.

    Raises:
        NoAnswer: none did.
    """
    with _Selector() as selector:
        race = _Race(addresses, begin, deadline, selector)
        race.given_up = given_up
        try:
            winner: A = race.run()
            race.dials.remove(winner)
            return winner
        finally:
            for dial in race.dials:
                dial.sock.close()


class _Race:
    """The dials that go on at one time."""

    def __init__(
        self, addresses: Addresses, begin: Callable[[Target], Any], deadline: float, selector: Any
    ) -> None:
        self.dials: list[Any] = []
        self._addresses = addresses
        self._begin = begin
        self._deadline = deadline
        self._selector = selector
        #: When the next address is tried, if no dial has ended before.
        self._next = 0.0
        #: When one has said that it may do later; inf if none has.
        self._again = math.inf
        self._errors: list[tuple[str, Exception]] = []
        self._news: socket.socket | None = None
        self.given_up: Callable[[], bool] | None = None

    def run(self) -> Any:
        """Return the dial that was answered first."""
        while True:
            now = time.monotonic()
            if now >= self._deadline or (self.given_up is not None and self.given_up()):
                break
            if now >= self._next and not self._addresses.exhausted and self._start(now):
                continue
            # At its time the next address is tried; if it is not known yet, `news` tells when it is.
            all_begun = self._addresses.exhausted or now >= self._next
            if all_begun and self._in_vain(now):
                break
            self._watch_news()
            again = self._again + (AGAIN_SECONDS if self.dials else NAMES_SECONDS)
            until = min(self._deadline, again if all_begun else self._next)
            if self.given_up is not None:
                until = min(until, now + LOOK_SECONDS)
            for key, events in self._selector.select(max(0.0, until - now)):
                if key.data is None:
                    key.fileobj.recv(64)
                elif self._advance(key.data, events):
                    return key.data
        self._errors += [(str(each.target), each.silence()) for each in self.dials]
        raise NoAnswer(self._errors or [("", NotTried("the deadline has passed"))])

    def _in_vain(self, now: float) -> bool:
        """Return whether nobody is left, or one that may do in a moment is better asked again now."""
        if not self.dials:
            return self._addresses.exhausted or now >= self._again + NAMES_SECONDS
        if now < self._again + AGAIN_SECONDS:
            return False
        self._again = now
        return not any(dial.connected for dial in self.dials)

    def _watch_news(self) -> None:
        """Wait for news, too, from the time at which there may be some."""
        news = self._addresses.news
        if news is not None and self._news is None:
            self._news = news
            self._selector.register(news, selectors.EVENT_READ)

    def _start(self, now: float) -> bool:
        """Try the next address; return False if none is known at present."""
        name = ""
        try:
            target = self._addresses.next()
            if target is None:
                return False
            name = str(target)
            dial = self._begin(target)
        except Exception as error:  # noqa: BLE001 - it is kept, and the next address is tried
            self._errors.append((name, error))
            return True
        self.dials.append(dial)
        self._selector.register(dial.sock, dial.events, dial)
        self._next = now + STAGGER_SECONDS
        return True

    def _advance(self, dial: Any, events: int) -> bool:
        """Let a dial go on; return whether it was answered. If it has ended, the next address is due."""
        try:
            dial.advance(events)
        except Exception as error:  # noqa: BLE001 - as above
            self._errors.append((str(dial.target), error))
            if isinstance(error, AskAgain):
                self._again = min(self._again, time.monotonic())
            self._selector.unregister(dial.sock)
            dial.sock.close()
            self.dials.remove(dial)
            self._next = 0.0
            return False
        if dial.answered:
            return True
        # The other side has said something: it has more time before the next address is tried, too.
        self._next = time.monotonic() + SILENCE_SECONDS
        self._selector.modify(dial.sock, dial.events, dial)
        return False


def resolved(host: str, port: int) -> list[Target]:
    """Return the addresses of *host*, the families in turn, beginning with that which the system prefers.

    Raises:
        OSError: the name cannot be resolved.
    """
    # As bytes, because otherwise the standard library loads its tables of international names.
    at: Any = host.encode("ascii") if host.isascii() else host
    try:
        found = socket.getaddrinfo(at, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(f"{host!r} is not a name of a host") from None
    except socket.gaierror as error:
        raise OSError(f"the name {host!r} cannot be resolved: {error.strerror}") from None
    targets = [Target(family, sockaddr, host, port) for family, _, _, _, sockaddr in found]
    unlike = {(target.family, target.sockaddr): target for target in targets}
    return interleaved(list(unlike.values()))[:ADDRESSES_MAX]


def interleaved(targets: Sequence[Target]) -> list[Target]:
    """Return *targets* in their order, but with the families of addresses in turn."""
    rest, found = list(targets), list[Target]()
    while rest:
        other = next((each for each in rest if not found or each.family != found[-1].family), rest[0])
        rest.remove(other)
        found.append(other)
    return found


def shown(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def told(error: Exception) -> str:
    """Return the words of an error."""
    return str(error) or type(error).__name__


def _check(code: int, *fine: int) -> None:
    if code and code not in fine:
        raise OSError(code, os.strerror(code))
