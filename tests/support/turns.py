"""A manager with a key for each role, whose observer sees the cost of its turns."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager

from svc.domain.observer import Observer
from svc.domain.roles import Role
from svc.server.connection_limits import Bounds
from svc.server.keys import Key, KeyRing
from tests.support.manager import RunningManager, running_manager

KEYS = {role: secrets.token_bytes(32) for role in Role}
#: Seconds of the loop's processor time that one turn may take for a message of up to 1 MiB.
TURN_SECONDS = 0.05


def observed_manager(observer: Observer) -> AbstractContextManager[RunningManager]:
    keys = KeyRing([Key(role, secret) for role, secret in KEYS.items()])
    return running_manager(observer=observer, keys=keys, bounds=Bounds(connections=10))
