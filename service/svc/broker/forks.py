"""Objects that begin anew in a forked child, because parent and child must not share them.

A connection, a lock that another thread holds, and a source of job numbers are of no use in a child: two
processes would talk over one socket, wait for a thread that does not exist, and give two jobs one id.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """An object that a forked child gets a copy of."""

    def begin_anew(self) -> None:
        """Give up everything that belongs to the parent; called in the child, before any other thread."""


class _Heirlooms:
    """All objects that have to begin anew, for as long as they are in use elsewhere."""

    def __init__(self) -> None:
        self._objects: weakref.WeakSet[Inherited] = weakref.WeakSet()
        self._hooked = False

    def add(self, inherited: Inherited) -> None:
        # The hook cannot be taken back, so there is one for all objects. Windows has no fork and no hook.
        if not self._hooked and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)
            self._hooked = True
        self._objects.add(inherited)

    def _begin_anew(self) -> None:
        for inherited in list(self._objects):
            # A socket that cannot be closed must not keep the others from beginning anew.
            with contextlib.suppress(OSError):
                inherited.begin_anew()


#: Has `begin_anew` of an object called in each child that this process forks.
begin_anew_in_children = _Heirlooms().add
