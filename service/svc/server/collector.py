"""Python's garbage collector in a manager: no collection looks twice at what stays.

A full collection looks at all objects at once: 0.3 s of one turn, if 300,000 submits have come since the
start. But nothing that a manager keeps for long is part of a reference cycle when it goes. So what has
outlived a full collection is frozen, and the next one looks at newer objects alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

#: The generation of full collections.
_OLDEST: Final = 2
#: Collections of the middle generation after which a full one is made: it looks at some 30,000 objects.
_MIDDLE_MAX: Final = 3


def freeze_survivors() -> None:
    """Freeze, from now on, what outlives a full collection. Harmless if called again."""
    if _freeze not in gc.callbacks:
        gc.callbacks.append(_freeze)
        young, middle, _ = gc.get_threshold()
        gc.set_threshold(young, middle, _MIDDLE_MAX)


def _freeze(phase: str, about: Mapping[str, int]) -> None:
    if phase == "stop" and about["generation"] == _OLDEST:
        gc.freeze()


def forget_survivors() -> None:
    """Collect also objects that were frozen: those of a manager that is over, in a process that goes on."""
    gc.unfreeze()
    gc.collect()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the garbage collector, which would visit the million objects of a recovery again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def looks_put_off() -> Iterator[None]:
    """Make many objects without a look of the collector at them in between: it takes half as long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
