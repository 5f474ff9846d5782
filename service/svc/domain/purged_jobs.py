"""Purged jobs of a chunk that has others: what the ledger drops, and what it keeps.

A chunk with no other jobs is forgotten as a whole, as by retention. A purged job of another chunk keeps its
number, which stays known as accepted, and its arguments in the journal, which are in a row with those of the
others. All else goes at once: its state, its key, its answer, its attempts and, with the last of the jobs
that an event ended, its result.
"""

from __future__ import annotations

from collections import Counter

from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.job_records import recorded
from svc.domain.ledger import Ledger
from svc.domain.lifecycle import FINISHED


def purged(ledger: Ledger, sequence: int, event: e.Purged) -> None:
    """Purge jobs; in a replay they may seem not to have ended, because what ended them has gone."""
    origin = ledger.origins.get(event.origin)
    chunk = origin.find(event.ranges[0][0]) if origin is not None and event.ranges else None
    if chunk is None:
        ledger.forgotten.append(sequence)
        return
    was_finished = not chunk.unfinished
    ledger.refer(sequence, 1)
    chunk.note_purge(sequence)
    finished_at = event.finished_at or event.at
    for first, stop in event.ranges:
        low, high = max(0, first - chunk.first), min(stop - chunk.first, chunk.count)
        _purge(ledger, chunk, low, high, finished_at)
    if not chunk.unfinished and not was_finished:
        ledger.finish(chunk, finished_at)


def _purge(ledger: Ledger, chunk: Chunk, start: int, stop: int, finished_at: float) -> None:
    """Drop all that is known of jobs that have ended, but for their arguments and their numbers."""
    tally = chunk.tally(start, stop) if start < stop else ()
    if not tally or (ledger.live and any(state not in FINISHED for state, _ in tally)):
        ledger.contradicted(f"jobs [{start}, {stop}) of {chunk.id(0)} would be purged and have not all ended")
        return
    ledger.counts_of(chunk.terms.queue).move(tally, None)
    ledger.keys.forget(chunk, start, stop)
    if ledger.losses.by_event:
        ledger.losses.ended(chunk, start, stop)
    if chunk.terms.answer:
        for index in range(start, stop):
            ledger.answers.pop((chunk.sequence, index))
    before = chunk.unfinished
    about = Counter(chunk.purge(start, stop, finished_at))
    ledger.unfinished -= before - chunk.unfinished
    for index, _ in recorded(chunk.records, start, stop):
        about.update(ledger.drop_record(chunk, index))
    for sequence, count in about.items():
        ledger.unrefer(sequence, count)
    if ledger.large.by_origin:
        ledger.forgotten += ledger.large.drop_jobs(chunk.origin, chunk.first + start, chunk.first + stop)
