"""What a ledger's times become if the clock was ahead for a while and is set back.

Times that were recorded while it was ahead lie in the future then: results would be kept until that future,
and delays would last as long. They are moved back by as much as the clock is. A job that was accepted before
keeps the time at which it is due.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from svc.domain import events as e
from svc.domain.chunk import Chunk

if TYPE_CHECKING:
    from svc.domain.ledger import Ledger


def clock_set(ledger: Ledger, _sequence: int, event: e.ClockSet) -> None:
    """Go on from the time that the clock was set to; only ever in a replay, which follows at once."""
    ledger.last_at = event.at
    if event.before > event.at:
        set_back(ledger, event.at, event.before - event.at)


def set_back(ledger: Ledger, at: float, by: float) -> None:
    """Move the times after *at* back by *by* seconds. For a replay: nothing else may hold such times."""

    def moved(time: float) -> float:
        return time - by if time > at else time

    for chunk in ledger.chunks.values():
        _set_chunk_back(chunk, at, by)
    ledger.finished = deque((moved(ended), chunk) for ended, chunk in ledger.finished)
    ledger.kept_dead = deque((moved(ended), chunk) for ended, chunk in ledger.kept_dead)
    ledger.emptied = deque((moved(emptied), name) for emptied, name in ledger.emptied)
    for origin in ledger.origins:
        if origin.emptied_at is not None:
            origin.emptied_at = moved(origin.emptied_at)


def _set_chunk_back(chunk: Chunk, at: float, by: float) -> None:
    late = [chunk.at_of(index) > at for index in range(chunk.count)]
    if chunk.due is not None and late[0]:
        chunk.due -= by
    for index, is_late in enumerate(late):
        if is_late and chunk.dues is not None and chunk.dues[index]:
            chunk.dues[index] -= by
        if is_late and chunk.accepted_at is not None:
            chunk.accepted_at[index] -= by
    for record in chunk.records.values():
        # Retries wait for minutes: one that is due after *at* was scheduled while the clock was ahead.
        if record.due is not None and record.due > at:
            record.due -= by
    if chunk.at > at:
        chunk.at -= by
    if chunk.finished_at > at:
        chunk.finished_at -= by
