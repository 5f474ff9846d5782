"""Resets objects in a forked child, because parent and child must not share them.

A child cannot use the parent's connection, a lock that another thread holds, or the parent's source of job
numbers: two processes would write to one socket, the child would wait for a thread that does not exist, and
two jobs would get the same id.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol


class Inherited(Protocol):
    """An object of which a forked child gets a copy."""

    def begin_anew(self) -> None:
        """Give up everything that belongs to the parent; called in the child before it has other threads."""


class _ForkHook:
    """The objects to reset, by weak references."""

    def __init__(self) -> None:
        self._objects: weakref.WeakSet[Inherited] = weakref.WeakSet()
        self._hooked = False

    def add(self, inherited: Inherited) -> None:
        # The hook cannot be removed, so there is one for all objects. Windows has no fork and no hook.
        if not self._hooked and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)
            self._hooked = True
        self._objects.add(inherited)

    def _begin_anew(self) -> None:
        for inherited in list(self._objects):
            # A socket that cannot be closed must not prevent the reset of the other objects.
            with contextlib.suppress(OSError):
                inherited.begin_anew()


#: Registers an object: its `begin_anew` is called in each child that this process forks.
begin_anew_in_children = _ForkHook().add
