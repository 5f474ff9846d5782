"""Whether a standby has the keys of the leader: with others it would take over a service not its own.

Two deployments may name one stream by mistake. The workers and clients of the one cannot speak with a leader
of the other. So a standby dials the leader once after its start, as a client does, with its authkey and then
with the keys of its roles. One of them is enough: while keys are changed, some are the same. The handshake
tells neither side more than whether they are equal. NATS can be read by all with its credentials, and has
nothing of a key, also no digest that would tell whether a guess is right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from svc.addresses import parse_manager
from svc.app.clients import connect
from svc.app.process import logger
from svc.broker.framed_dial import NoTls
from svc.errors import AuthenticationFailed, Conflict, Forbidden, ServiceError
from svc.key_files import read_role_keys
from svc.settings import ManagerSettings
from svc.wire_tls import ANY_NAME

#: Seconds from one try to the next, at first and at most; and those that one may take.
_AGAIN_SECONDS: Final = 1.0
_AGAIN_SECONDS_MAX: Final = 30.0
_DIAL_SECONDS: Final = 2.0
#: The refusals, one after the other, after which the keys are others. In between, an operator who changes the
#: authkey of both managers tells the leader to read it.
_REFUSALS: Final = 5


class KeyComparison:
    """Compares this standby's keys with the leader's, in a thread of its own, until that has succeeded."""

    def __init__(
        self, settings: ManagerSettings, leader: Callable[[], tuple[str, ...]], differ: Callable[[], None]
    ) -> None:
        """Prepare it.

        Args:
            settings: those of this manager; the files of its keys are read at each try.
            leader: returns the leader's addresses; none if it is not known.
            differ: called in the thread if the leader has other keys.
        """
        self._settings = settings
        self._leader = leader
        self._differ = differ
        self._ended = threading.Event()
        self._stranger = ""

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="svc-keys", daemon=True).start()

    def end(self) -> None:
        """Try no more.

        Raises:
            Conflict: the leader has other keys.
        """
        self._ended.set()
        if not self._stranger:
            return
        logger().error("keys_differ", leader=self._stranger)
        raise Conflict(
            f"the manager that leads this journal, {self._stranger}, has none of this manager's keys: it is "
            "another deployment's, or its keys were changed; take another name for the journal, or give both "
            "managers the same keys and send SIGHUP to the leader"
        )

    def _run(self) -> None:
        refusals, pause = 0, _AGAIN_SECONDS
        while not self._ended.wait(pause):
            leader = ",".join(self._leader())
            same = self.compare(leader) if leader else None
            if same:
                return
            if same is None:
                refusals, pause = 0, min(2 * pause, _AGAIN_SECONDS_MAX) if leader else _AGAIN_SECONDS
                continue
            refusals, pause = refusals + 1, _AGAIN_SECONDS
            if refusals == _REFUSALS:
                self._stranger = leader
                self._differ()
                return

    def compare(self, leader: str) -> bool | None:
        """Return whether the *leader* has one of our keys; None if that cannot be told now."""
        tls = self._settings.tls
        # Its certificate may have a name that is not dialled here, as at a manager that dials itself.
        files = replace(tls, name=ANY_NAME) if tls else None
        try:
            address = parse_manager(leader)
            for key in self._keys():
                try:
                    with connect(address, key, _DIAL_SECONDS, tls=files) as broker:
                        broker.connect()
                except Forbidden:
                    return True  # for this role; the handshake has succeeded
                except NoTls:
                    return None  # certificates may be changing, or TLS be new
                except AuthenticationFailed:
                    continue
                return True
        except (ServiceError, OSError):
            return None
        return False

    def _keys(self) -> Iterator[bytes]:
        yield self._settings.read_authkey()
        if self._settings.role_keys is not None:
            yield from (key for _, key in read_role_keys(self._settings.role_keys))
