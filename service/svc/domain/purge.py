"""Removes jobs that have ended, on request, and a bounded part of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.handlers import handles
from svc.domain.job import ITEM, PILL
from svc.domain.lifecycle import FINISHED
from svc.domain.members import Member, Notice
from svc.domain.origins import PARTS
from svc.domain.outcomes import place_of
from svc.domain.purged_jobs import purged
from svc.domain.queue_state import QueueState
from svc.domain.upkeep import keep_known

#: Work of one part; one of work is to purge a job without a history, and takes a tenth of a microsecond.
PART_WORK = 100_000
#: The work for a job with a history, and for one if there are jobs with partial results; for a chunk that is
#: changed, or passed over; to compare the end of a job with a time, and to read the event that tells it.
#: An event of so many bytes takes one of work more.
RECORD_WORK = 100
STREAM_WORK = 4000
CHUNK_WORK = 500
PASS_WORK = 10
COMPARE_WORK = 3
READ_WORK = 500
READ_BYTES = 100
_WORDS = {state.word: state for state in FINISHED}
_Runs = list[tuple[int, int]]


@handles(c.Purge)
def purge(state: QueueState, command: c.Purge, member: Member, now: float) -> r.Reply:
    """Remove the next jobs that have ended and match."""
    unknown = [word for word in command.states if word not in _WORDS]
    if unknown:
        return r.Refused("bad_request", f"no job has ended as {unknown[0]!r}; states are {', '.join(_WORDS)}")
    if len(command.ids) > c.CHANGED_JOBS_MAX:
        return r.Refused("bad_request", f"name at most {c.CHANGED_JOBS_MAX} jobs at a time")
    conditions = bool(command.states or command.queue or command.task or command.older)
    if bool(command.ids) + conditions + command.every != 1:
        return r.Refused("bad_request", "name either ids of jobs, or conditions, or all of them")
    part = _Part(state, command, now)
    more = part.named(command.ids, command.after) if command.ids else part.found(command.after)
    part.end()
    if not command.dry:
        _note(state, command, member, part.count, more)
    return r.Done(part.count, more)


class _Part:
    """One part of a purge."""

    def __init__(self, state: QueueState, command: c.Purge, now: float) -> None:
        self.count = 0
        self._state = state
        self._command = command
        self._now = now
        self._until = now - command.older
        self._states = tuple(_WORDS[word] for word in command.states) or FINISHED
        self._work = PART_WORK
        self._forgotten: list[Chunk] = []

    def named(self, ids: list[str], after: int) -> int | None:
        """Purge jobs by id, from place *after* on; return where to go on, or None after the last one."""
        chosen: dict[Chunk, set[int]] = {}
        place = after
        while place < len(ids) and self._work > 0:
            found = place_of(self._state, ids[place])
            self._work -= PASS_WORK
            place += 1
            if found is None or not _is_kept(found[0]) or found[0].state(found[1]) not in FINISHED:
                continue
            chunk, index = found
            self._work -= RECORD_WORK if chunk in chosen else RECORD_WORK + CHUNK_WORK
            chosen.setdefault(chunk, set()).add(index)
        for chunk, indexes in chosen.items():
            self._take(chunk, [(index, index + 1) for index in indexes])
        return place if place < len(ids) else None

    def found(self, after: int) -> int | None:
        """Purge the jobs that match, from a place on; return where to go on, or None after the last one."""
        sequence, index = divmod(after, PARTS)
        for chunk in self._chunks(sequence):
            start = index if chunk.sequence == sequence else 0
            if self._work <= 0:
                return chunk.sequence * PARTS + start
            self._work -= PASS_WORK
            if self._may_match(chunk):
                runs, stop = self._matching(chunk, start)
                self._take(chunk, runs)
                if stop < chunk.count:
                    return chunk.sequence * PARTS + stop
        return None

    def _chunks(self, sequence: int) -> Iterator[Chunk]:
        """Yield the chunks from event *sequence* on, oldest first; one may be forgotten meanwhile."""
        return self._state.ledger.chunks.since(sequence)

    def _may_match(self, chunk: Chunk) -> bool:
        command, terms = self._command, chunk.terms
        return (
            chunk.unfinished < chunk.count
            and _is_kept(chunk)
            and command.queue in ("", terms.queue)
            and command.task in ("", terms.task, terms.shown_task)
            and chunk.at_of(0) <= self._until
        )

    def _matching(self, chunk: Chunk, start: int) -> tuple[_Runs, int]:
        """Return the jobs from *start* on that match, as far as the work goes, and where that ends."""
        compares = self._command.older and (chunk.unfinished or chunk.finished_at > self._until)
        runs: _Runs = []
        each_costs = 1 if not chunk.records else STREAM_WORK if self._state.ledger.streams else RECORD_WORK
        for low, high in _joined(run for each in self._states for run in chunk.runs(each, start)):
            stop = min(high, low + max(1, self._work // each_costs))
            old, stop = self._old(chunk, low, stop) if compares else ([(low, stop)], stop)
            runs += old
            self._work -= stop - low + (each_costs - 1) * min(len(chunk.records), stop - low)
            if stop < high or self._work <= 0:
                return runs, stop
        return runs, chunk.count

    def _old(self, chunk: Chunk, low: int, high: int) -> tuple[_Runs, int]:
        """Return the jobs in [low, high) that are old enough, and where the work ends."""
        state = self._state
        runs: _Runs = []
        sequence, is_old = 0, False
        for index in range(low, high):
            if self._work <= 0:
                return runs, index
            if chunk.ended_by(index) != sequence:
                sequence, before = chunk.ended_by(index), state.read_bytes
                event = state.event(sequence)
                is_old = getattr(event, "at", self._now) <= self._until
                self._work -= READ_WORK + (state.read_bytes - before) // READ_BYTES
            self._work -= COMPARE_WORK
            if is_old:
                runs.append((index, index + 1))
        return runs, high

    def _take(self, chunk: Chunk, runs: _Runs) -> None:
        """Purge jobs of a chunk; forget it if no others are left."""
        runs = list(_joined(runs))
        count = sum(stop - start for start, stop in runs)
        if not count:
            return
        self.count += count
        self._work -= CHUNK_WORK
        if self._command.dry:
            return
        if count == chunk.known and not chunk.unfinished:
            self._state.ledger.forget(chunk)
            self._forgotten.append(chunk)
        else:
            ranges = [(chunk.first + start, chunk.first + stop) for start, stop in runs]
            finished_at = 0.0 if chunk.unfinished else chunk.finished_at
            event = e.Purged(self._now, chunk.origin, ranges, finished_at)
            purged(self._state.ledger, self._state.record(event), event)
        self._state.observer.purged(chunk.terms, count)

    def end(self) -> None:
        """Record which numbers were accepted."""
        keep_known(self._state, self._forgotten, self._now)


def _note(state: QueueState, command: c.Purge, member: Member, count: int, more: int | None) -> None:
    """Let the manager log the first part of a purge and the last one, with the jobs that are gone by then."""
    member.purged = count if not command.after else member.purged + count
    if member.purged and (more is None or not command.after):
        what = "purged" if more is None else "purging"
        state.notices.append(Notice(what, _told(command), member.purged))


def _is_kept(chunk: Chunk) -> bool:
    """Return whether jobs of a chunk stay after their end: a plain client's items do not."""
    return chunk.terms.task not in (ITEM, PILL)


def _joined(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield runs in order, those that touch as one."""
    begin = end = -1
    for low, high in sorted(runs):
        if low == end:
            end = high
            continue
        if end >= 0:
            yield begin, end
        begin, end = low, high
    if end >= 0:
        yield begin, end


def _told(command: c.Purge) -> str:
    """Return the conditions of a purge, or the only id, for the log."""
    named = {"state": ",".join(command.states), "queue": command.queue, "task": command.task}
    told = [f"{name}={value}" for name, value in named.items() if value]
    if command.older:
        told.append(f"older={command.older:g}")
    if command.ids:
        told.append(command.ids[0] if len(command.ids) == 1 else f"{len(command.ids)} ids")
    return " ".join(told) or "all"
