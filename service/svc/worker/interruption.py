"""Ends a running attempt by an exception in its task: it was cancelled, or ran over its soft timeout.

The supervisor writes an order for one attempt into the slot and sends a signal, again and again until the
exception is raised or its patience is over. A signal can come at any moment, so the handler raises only while
the main thread is inside the call of that very attempt: never in the consumer's own code, nor between two
states of a client that the task uses, and never in the middle of an import. A task that stays in C code, or
takes the signal for itself, is killed in the end.
"""

from __future__ import annotations

import inspect
import signal
from types import FrameType
from typing import Final

from svc.errors import Cancelled, SoftTimeout
from svc.worker.runner import CALL_STEP
from svc.worker.signals import INTERRUPT_SIGNAL
from svc.worker.slot import Order, Slot

#: Modules of a consumer in which a task can be for a moment: they hold locks, or are between two states.
_OURS: Final = (
    *("svc.worker.", "importlib.", "_frozen_importlib"),
    # A client that connects takes a soft timeout, which is an `OSError` too, for that of an address.
    *("svc.broker.dial", "svc.broker.no_reply", "svc.first_answer", "svc.wire_handshake"),
)
#: Those among them that only call the task, and bear an exception at any place.
_CALLERS: Final = frozenset(
    f"svc.worker.{name}" for name in ("runner", "registry", "coroutines", "generators", "shell", "command")
)
#: Modules in which a client of a task waits for the manager; at an exception there it closes its connection.
_CLIENT_WAITS: Final = "svc.wire"
#: The flags of the code of coroutines and asynchronous generators.
_COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


class Interruption:
    """Obeys the orders in a slot. Made in the main thread of a consumer's process."""

    def __init__(self, slot: Slot) -> None:
        """Obey the orders in *slot*."""
        self._slot = slot
        #: Whether an exception was raised in a task: no other job should run in this process.
        self.happened = False

    def install(self) -> None:
        """Handle the signal from now on."""
        signal.signal(INTERRUPT_SIGNAL, self._handle)

    def is_cancelled(self, token: int, number: int) -> bool:
        """Return whether a cancel was raised in this attempt, so that its outcome counts no more."""
        return self.happened and self._slot.raised(token, number) is Order.CANCEL

    def _handle(self, _number: int, frame: FrameType | None) -> None:
        order = self._slot.current_order()
        if order is None or order is Order.KILL or not in_task(frame):
            return
        self._slot.note_raised()
        self.happened = True
        raise Cancelled if order is Order.CANCEL else SoftTimeout


def in_task(frame: FrameType | None) -> bool:
    """Return whether the code at *frame* is a task's: the runner has called it, and nothing of ours since.

    A client may have been called since, if it does nothing now: it waits, or has called the task's own code.
    """
    if frame is not None and _is_client(str(frame.f_globals.get("__name__"))):
        return False
    # In the code of an event loop an exception may be swallowed, or a callback lost; while it waits, neither.
    bears_it = frame is not None and frame.f_globals.get("__name__") == "selectors"
    while frame is not None:
        code = frame.f_code
        if code is CALL_STEP:
            return True
        module = frame.f_globals.get("__name__")
        bears_it = bears_it or bool(code.co_flags & _COROUTINE)
        if not bears_it and str(module).startswith("asyncio."):
            return False
        if module not in _CALLERS and str(module).startswith(_OURS):
            return False
        frame = frame.f_back
    return False


def _is_client(module: str) -> bool:
    """Return whether code of *module* is that of a client between two states, or a part of it."""
    return module.startswith("svc.") and module not in _CALLERS and not module.startswith(_CLIENT_WAITS)
