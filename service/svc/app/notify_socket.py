"""Tells systemd that the process serves, if it was started by a unit with `Type=notify`."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import MutableMapping

_VARIABLE = "NOTIFY_SOCKET"


class NotifySocket:
    """The socket at which systemd waits for news of this process; without one, nothing is sent.

    Args:
        environment: the environment of this process. The socket's name is removed from it, so that no process
            of a task speaks for the whole unit.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        name = environment.pop(_VARIABLE, "")
        # An @ stands for the byte with which the names of abstract sockets begin.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name

    def ready(self) -> None:
        """Say that the start is done. If that fails, systemd's time for the start runs out."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.sendto(b"READY=1", self._address)
