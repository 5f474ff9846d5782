"""The commands of plain clients alone: the manager makes them of the calls, and no frame may have one."""

from __future__ import annotations

from typing import ClassVar, Final

from svc.domain import field_bounds as b
from svc.domain.command import Command
from svc.domain.job import DEFAULT_QUEUE, ITEM, ITEM_CODEC, PILL, RESULTS_QUEUE, Terms

#: The terms of data for plain clients in `tasks`, of a pill there, and of data in `results`.
ITEM_TERMS: Final = Terms(ITEM, DEFAULT_QUEUE, codec=ITEM_CODEC)
PILL_TERMS: Final = Terms(PILL, DEFAULT_QUEUE, codec=ITEM_CODEC)
RESULT_TERMS: Final = Terms(ITEM, RESULTS_QUEUE, codec=ITEM_CODEC)


class Put(Command, frozen=True, tag="put"):
    """Accept one job under the next number; wait for room if there is none.

    `written` is the body with its keyword arguments as they were written, if there is a key and `body` has
    them in another order: a kept job of an earlier release has that.
    """

    on_wire: ClassVar[bool] = False

    terms: Terms
    body: bytes
    delay: b.Delay = 0.0
    key: b.NameOrNone = ""
    wait: b.Seconds = 0.0
    written: bytes = b""


class Take(Command, frozen=True, tag="take"):
    """Hand out the next answer of the `results` queue, for good."""

    on_wire: ClassVar[bool] = False
    contentless: ClassVar[bool] = True

    wait: b.Seconds = 0.0


class Join(Command, frozen=True, tag="join"):
    """Answer when no job of a queue is waiting or leased."""

    on_wire: ClassVar[bool] = False
    contentless: ClassVar[bool] = True

    queue: b.Name
    wait: b.Seconds = 0.0
