"""Looks up the addresses of a manager's host names, each name in a thread of its own if there are several.

A name whose server does not answer takes the resolver half a minute, and must not keep the other names from
being tried. A single name is looked up in the caller's own thread.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Sequence

from svc.addresses import ManagerAddresses
from svc.broker.standbys import StandbyTarget
from svc.first_answer import Target, resolved


class LookedUpAddresses:
    """The addresses of some hosts, for one round of dials after the other: see `Addresses`.

    The address that has answered last comes first.
    """

    def __init__(self, hosts: Sequence[tuple[str, int]]) -> None:
        """Look these *hosts* and ports up later, in their order."""
        self._hosts = list(hosts)
        self._lookups: dict[tuple[str, int], _Lookup] = {}
        self._preferred: Target | None = None
        self._left: list[tuple[str, int]] = []
        self._found: list[Target] = []
        #: Those that may be standbys, and the hosts and ports that only a standby has named in this round.
        self._questions: list[StandbyTarget] = []
        self._named: set[tuple[str, int]] = set()
        self._tried: set[object] = set()
        self._waker: socket.socket | None = None
        self.news: socket.socket | None = None

    def prefer(self, target: Target) -> None:
        """Try *target* first from now on: it has answered."""
        self._preferred = target

    def forget_leader(self) -> None:
        """Prefer no address any more that only a standby has named."""
        preferred = self._preferred
        if preferred is not None and (preferred.host, preferred.port) not in self._hosts:
            self._preferred = None

    def ask(self, target: Target, error: Exception) -> bool:
        """Let *target*, whose dial ended with *error*, be asked next who leads.

        Return False if only a standby has named it in this round: its answer would lead no further.
        """
        if (target.host, target.port) in self._named:
            return False
        self._questions.append(StandbyTarget(target, error))
        return True

    def follow(self, leader: ManagerAddresses) -> None:
        """Try the addresses of the *leader*, too, in this round."""
        for at in leader.pairs():
            if at not in self._hosts:
                self._named.add(at)
            if _is_literal(at[0]):
                self._found[:0] = resolved(*at)
            elif at not in self._left:
                self._left.append(at)
                self._look_up(at)

    def begin_anew(self) -> LookedUpAddresses:
        """Begin a round: look all names up, if there are several hosts."""
        self.close()
        self._tried = set()
        self._found = [self._preferred] if self._preferred is not None else []
        self._left = list(self._hosts)
        self._questions, self._named = [], set()
        if len(self._hosts) > 1 and not all(_is_literal(host) for host, _ in self._hosts):
            for at in self._hosts:
                if not _is_literal(at[0]):
                    self._look_up(at)
        return self

    def close(self) -> None:
        """End a round."""
        for end in (self.news, self._waker):
            if end is not None:
                end.close()
        self.news = self._waker = None

    def next(self) -> Target | None:
        """See `Addresses.next`."""
        if self._questions:
            return self._questions.pop(0)
        while self._found or self._left:
            if not self._found and not self._find():
                return None
            while self._found:
                target = self._found.pop(0)
                if target.sockaddr not in self._tried:
                    self._tried.add(target.sockaddr)
                    return target
        return None

    @property
    def exhausted(self) -> bool:
        """See `Addresses.exhausted`."""
        return not (self._found or self._left or self._questions)

    def _find(self) -> bool:
        """Take the addresses of the first host that are known; return whether there is one."""
        for at in list(self._left):
            lookup = self._lookups.get(at)
            if lookup is None:
                self._left.remove(at)
                self._found = resolved(*at)
                return True
            if not lookup.done:
                continue
            self._left.remove(at)
            del self._lookups[at]
            self._found = lookup.result()
            return True
        return False

    def _look_up(self, at: tuple[str, int]) -> None:
        if self._waker is None:
            self.news, self._waker = socket.socketpair()
            self._waker.setblocking(False)
        lookup = self._lookups.get(at)
        # A forked child has none of its parent's threads.
        if lookup is None or lookup.process != os.getpid():
            lookup = self._lookups[at] = _Lookup(at)
        lookup.tell(self._waker)


class _Lookup:
    """The look-up of one name, in a thread of its own, which nobody has to wait for."""

    def __init__(self, at: tuple[str, int]) -> None:
        self.process = os.getpid()
        self.done = False
        self._at = at
        self._targets: list[Target] = []
        self._error: OSError | None = None
        self._waker: socket.socket | None = None
        threading.Thread(target=self._run, name=f"look-up of {at[0]}", daemon=True).start()

    def tell(self, waker: socket.socket | None) -> None:
        """Write to *waker* when the look-up is done."""
        self._waker = waker
        if self.done:
            self._wake()

    def result(self) -> list[Target]:
        """Return the addresses.

        Raises:
            OSError: there are none.
        """
        if self._error is not None:
            raise self._error
        return self._targets

    def _run(self) -> None:
        try:
            self._targets = resolved(*self._at)
        except OSError as error:
            self._error = error
        self.done = True
        self._wake()

    def _wake(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(OSError):
                self._waker.send(b"!")


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
