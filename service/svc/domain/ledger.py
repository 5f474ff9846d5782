"""The durable state: every accepted job and its outcome, rebuilt by a replay of the events.

The live queue and recovery call the same functions, so a replayed ledger equals the live one (a property test
checks that). This module has the steps of jobs that simply run and succeed; `replay` has the other events.
Connections and leases are not durable; they are in `queue_state`.

Every change of a job's state is checked against the table of states before it is made. In a live queue a step
that the table does not have is a fault of svc. In a replay, an older release with such a fault may have
written it to the journal: of two events that contradict each other, the first one counts.
"""

from __future__ import annotations

from collections import Counter, deque

from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.drains import Drains
from svc.domain.job import ITEM, PILL, Terms, is_alias, key_and_digest, parse_job_id
from svc.domain.job_records import recorded, supersede_streams
from svc.domain.job_states import Counts
from svc.domain.keys import Keys, digest_at
from svc.domain.large_values import LargeValues
from svc.domain.leases import Settled
from svc.domain.lifecycle import (
    LIVE_STEPS,
    REPLAYED_STEPS,
    InvariantBroken,
    JobState,
    Verb,
    word_of,
)
from svc.domain.losses import Losses
from svc.domain.origins import Origins
from svc.domain.roster import WorkerRoster
from svc.domain.tables import PART_BITS, OrderedTable, Table, by_number

#: Bytes of bodies above which a chunk stays in memory only while a third of the window is not full.
LARGE_CHUNK_BYTES = 8 * 1024 * 1024
#: Tasks whose terms are kept for chunks to share.
TERMS_MAX = 1000


class Window:
    """The memory for bodies of jobs that wait; those beyond it stay in the journal until they are leased.

    Attributes:
        used: the bytes that the bodies in memory take.
    """

    def __init__(self, size: int) -> None:
        """Hold up to *size* bytes."""
        self._size = size
        self.used = 0

    def hold(self, chunk: Chunk, more: int) -> None:
        """Count *more* bytes of bodies in a chunk, or drop all of its bodies if the window is full."""
        if not chunk.in_memory:
            return
        self.used += more
        # A few large chunks would fill the memory that saves thousands of small ones from being read back.
        if self.used > (self._size if chunk.weight <= LARGE_CHUNK_BYTES else self._size // 3):
            self.release(chunk)

    def release(self, chunk: Chunk) -> None:
        """Drop the bodies of a chunk from memory."""
        self.used -= chunk.drop_bodies()


class Ledger:
    """All jobs, by id, by key and by state; and the outcomes in order."""

    def __init__(self, window_bytes: int = 64 * 1024 * 1024) -> None:
        """Start empty; bodies beyond *window_bytes* stay in the journal until they are leased."""
        self.window = Window(window_bytes)
        self.origins = Origins()
        #: By the number of the event that accepted the first job of each chunk; oldest first after a replay.
        self.chunks: Table[int, Chunk] = Table(by_number)
        #: Chunks that have grown since the last merge looked at them; oldest first.
        self.grown: deque[Chunk] = deque()
        self.counts: dict[str, Counts] = {}
        #: Unfinished jobs of all queues.
        self.unfinished = 0
        self.keys = Keys()
        #: The newest terms of each task. Chunks share them, because terms take 250 bytes.
        self.terms: dict[str, Terms] = {}
        #: Dead jobs in the order in which they died: (chunk sequence, index) -> chunk.
        self.dead: OrderedTable[tuple[int, int], Chunk] = OrderedTable()
        #: Answers for plain clients that wait in `results`: (chunk sequence, index) -> (chunk, event).
        self.answers: OrderedTable[tuple[int, int], tuple[Chunk, int]] = OrderedTable()
        self.drains = Drains()
        self.roster = WorkerRoster()
        #: Events that ended jobs, in order; some may have been forgotten since.
        self.outcome_order: list[int] = []
        #: Entries of `outcome_order` that the current sweep has passed; it removes the forgotten ones.
        self.swept = 0
        #: The number of kept jobs that each event is about. Failed attempts are in the records of the jobs.
        self.references: Table[int, int] = Table(by_number)
        #: Journal rows that can be deleted, because nothing refers to them any more.
        self.forgotten: list[int] = []
        self.losses = Losses(self.refer, self.unrefer)
        #: Chunks in the order in which their last job ended, with that time; the number of the jobs of those
        #: that are neither reopened nor forgotten.
        self.finished: deque[tuple[float, Chunk]] = deque()
        self.finished_jobs = 0
        #: Those past their retention that are kept because they have dead jobs.
        self.kept_dead: deque[tuple[float, Chunk]] = deque()
        self.kept_dead_jobs = 0
        #: Origins without jobs, in the order in which they lost the last one, with that time.
        self.emptied: deque[tuple[float, str]] = deque()
        self.settled = Settled()
        self.large = LargeValues()
        #: The number of jobs that have a checkpoint.
        self.checkpoints = 0
        #: The number of jobs that have partial results.
        self.streams = 0
        self.last_sequence = 0
        self.last_at = 0.0
        #: Whether no replay goes on.
        self.live = True
        #: Steps of a replay that were passed over, because they contradict earlier events.
        self.passed_over = 0
        #: Chunks of items that ended in a replay. The event that requeued such an item may be gone.
        self.ended_items: list[Chunk] = []

    def counts_of(self, queue: str) -> Counts:
        """Return the counts of a queue; make them if there are none."""
        found = self.counts.get(queue)
        if found is None:
            found = self.counts[queue] = Counts()
        return found

    def find(self, job: str) -> tuple[Chunk, int] | None:
        """Return (chunk, index) of a job id, or None if it is not known.

        Raises:
            ValueError: *job* does not have the form of an id.
        """
        origin, number = parse_job_id(job)
        if not is_alias(origin):
            return self.origins.find(origin, number)
        key, digest = key_and_digest(origin)
        place = self.keys.find(key)
        return None if place is None or number or digest_at(*place) != digest else place

    # --- new jobs -----------------------------------------------------------------------------------

    def submitted(self, sequence: int, event: e.Submitted, size: int | None = None) -> tuple[Chunk, int]:
        """Add jobs, to a chunk if they go on from it; return their chunk and first index.

        *size* is the number of bytes in all bodies, if the caller has it.
        """
        chunk = self._joined(event)
        if chunk is None:
            chunk = Chunk(sequence, event, size, self._shared(event.terms))
            self.add(chunk)
            return chunk, 0
        start = chunk.count
        if not chunk.has_grown:
            self.grown.append(chunk)
        self.window.hold(chunk, chunk.grow(sequence, event))
        self._count_new(chunk, start)
        return chunk, start

    def _joined(self, event: e.Submitted) -> Chunk | None:
        if event.joins is None:
            return self.origins.joined_by(event.origin, event.first, len(event.bodies), event.terms)
        place = self.origins.find(event.origin, event.first - 1) if event.joins else None
        return place[0] if place is not None else None

    def _shared(self, terms: Terms) -> Terms:
        """Return terms that equal *terms*; the object that other chunks share, if there is one."""
        known = self.terms.get(terms.label or terms.task)
        if known is not None and (known is terms or known == terms):
            return known
        if len(self.terms) >= TERMS_MAX:
            self.terms.clear()
        self.terms[terms.label or terms.task] = terms
        return terms

    def add(self, chunk: Chunk) -> None:
        """Add a chunk of new jobs."""
        self.chunks.parts[chunk.sequence >> PART_BITS][chunk.sequence] = chunk
        self.origins.make(chunk.origin).add(chunk)
        self.window.hold(chunk, chunk.weight)
        self._count_new(chunk, 0)

    def _count_new(self, chunk: Chunk, start: int) -> None:
        count, scheduled = chunk.count - start, 0
        if chunk.columns is not None:
            self.keys.add(chunk, start)
            scheduled = chunk.count_in(JobState.SCHEDULED, start)
        self.counts_of(chunk.terms.queue).admit(count - scheduled, scheduled)
        self.unfinished += count

    # --- steps --------------------------------------------------------------------------------------

    def move(self, chunk: Chunk, start: int, stop: int, verb: Verb) -> None:
        """Take a step with jobs that stay unfinished, and keep the counts right.

        Raises:
            InvariantBroken: it is no step for one of them, and this is no replay.
        """
        state = self._step(chunk, start, stop, verb)
        if state is not None:
            chunk.mark(start, stop, state)

    def end(
        self, chunk: Chunk, start: int, stop: int, verb: Verb, sequence: int, part: int, at: float
    ) -> None:
        """Take a step that ends jobs by part *part* of event *sequence*, at time *at*.

        Raises:
            InvariantBroken: it is no step for one of them, and this is no replay.
        """
        state = self._step(chunk, start, stop, verb)
        if state is None:
            return
        chunk.end(start, stop, state, sequence, at)
        if self.losses.by_event:
            self.losses.ended(chunk, start, stop)
        if self.checkpoints and state is not JobState.DEAD:
            self._drop_checkpoints(chunk, start, stop)
        if self.large.by_origin and state is not JobState.DEAD:
            self.forgotten += self.large.drop_arguments(chunk.origin, chunk.first + start, chunk.first + stop)
        self.unfinished -= stop - start
        if not self.outcome_order or self.outcome_order[-1] != sequence:
            self.outcome_order.append(sequence)
        self.refer(sequence, stop - start)
        self.origins.make(chunk.origin).completed(sequence, part, chunk.first + start, stop - start)
        if chunk.terms.answer:
            for index in range(start, stop):
                self.answers[chunk.sequence, index] = (chunk, sequence)
        if not chunk.unfinished:
            self.finish(chunk, at)

    def _drop_checkpoints(self, chunk: Chunk, start: int, stop: int) -> None:
        """Forget the checkpoints of jobs that have ended for good; a dead job keeps its own for a requeue."""
        records = chunk.records
        for index, record in recorded(records, start, stop):
            if record.checkpoint:
                self.unrefer(record.checkpoint, 1)
                record.checkpoint = 0
                self.checkpoints -= 1
                if record.blank:
                    del records[index]  # as a replay, which does not see the checkpoint, has none

    def succeeded(
        self, sequence: int, part: int, chunk: Chunk, span: e.Range, at: float, verb: Verb = Verb.ACK
    ) -> None:
        """End the jobs of *chunk* in *span* with results; *span* is part *part* of the event."""
        start = span.first - chunk.first
        stop = start + len(span.results)
        self.end(chunk, start, stop, verb, sequence, part, at)
        if chunk.terms.answer and not span.results[0]:
            # A plain consumer acknowledged the job: if there is an answer, it puts that into `results`.
            self.answers.pop((chunk.sequence, start))
        if span.token:
            self.settled.add(span.token, span.first, chunk.first + stop, failed=False)
            if self.large.unclaimed:
                self.large.claim_results(chunk.origin, span.first, chunk.first + stop, span.token)
        if self.streams and chunk.records:
            supersede_streams(chunk.records, start, stop, span.token)

    def _step(self, chunk: Chunk, start: int, stop: int, verb: Verb) -> JobState | None:
        """Count the jobs in [start, stop) under the state to which *verb* leads, and return that.

        None if it is no step for one of them; that happens in a replay only.
        """
        if not 0 <= start < stop <= chunk.count:
            self.contradicted(f"jobs [{start}, {stop}) are not all in a chunk of {chunk.count}")
            return None
        row = (LIVE_STEPS if self.live else REPLAYED_STEPS)[verb]
        tally = chunk.tally(start, stop)
        to = row[tally[0][0]]
        if to is None or (len(tally) > 1 and any(row[state] is not to for state, _ in tally)):
            wrong = next(state for state, _ in tally if to is None or row[state] is not to)
            jobs = f"{chunk.id(start)} or one of the {stop - start - 1} jobs after it"
            self.contradicted(f"{jobs} is {word_of(wrong)}, from which no {verb.word} leads")
            return None
        self.counts_of(chunk.terms.queue).move(tally, to)
        return to

    def contradicted(self, how: str) -> None:
        """Count a contradiction of a replay.

        Raises:
            InvariantBroken: the queue is live.
        """
        if self.live:
            raise InvariantBroken(how)
        self.passed_over += 1

    def reopen(self, chunk: Chunk, index: int) -> None:
        """Make a dead job ready again."""
        if not chunk.unfinished:
            self._uncount(chunk)
        self.dead.pop((chunk.sequence, index))
        self.answers.pop((chunk.sequence, index))
        self.references.pop(chunk.reopen(index))  # the event stays in the journal as an attempt
        self.unfinished += 1
        self.move(chunk, index, index + 1, Verb.REQUEUE)

    # --- the end of a chunk -------------------------------------------------------------------------

    def finish(self, chunk: Chunk, at: float) -> None:
        """Note that the last job of a chunk has ended."""
        self.window.release(chunk)
        if chunk.terms.task not in (ITEM, PILL):
            self.finished.append((at, chunk))
            self.finished_jobs += chunk.count
        elif self.live:
            self.forget(chunk)
        else:
            self.ended_items.append(chunk)

    def keep_dead(self, finished_at: float, chunk: Chunk) -> None:
        """Keep a chunk beyond its retention, because it has dead jobs."""
        self._uncount(chunk)
        self.kept_dead.append((finished_at, chunk))
        self.kept_dead_jobs += chunk.count
        chunk.note_kept_dead(on=True)

    def _uncount(self, chunk: Chunk) -> None:
        """Count a chunk no longer among the finished ones; its entry there is passed over."""
        if chunk.terms.task in (ITEM, PILL):
            return
        if chunk.is_kept_dead:
            self.kept_dead_jobs -= chunk.count
        else:
            self.finished_jobs -= chunk.count
        chunk.note_kept_dead(on=False)

    def forget(self, chunk: Chunk) -> None:
        """Drop a finished chunk and all data about its jobs."""
        self._uncount(chunk)
        self.chunks.pop(chunk.sequence)
        self.origins.make(chunk.origin).remove(chunk)
        self.keys.forget(chunk)
        self.counts_of(chunk.terms.queue).move(chunk.tally(0, chunk.count), None)
        self.forgotten.extend(chunk.rows())
        if self.large.by_origin:
            self.forgotten += self.large.drop_jobs(chunk.origin, chunk.first, chunk.first + chunk.count)
        if chunk.terms.answer:
            for index in range(chunk.count):
                self.answers.pop((chunk.sequence, index))
        for purge in chunk.purges:
            self.unrefer(purge, 1)
        if chunk.count == 1 and not chunk.records:  # such as each item of a plain client
            self.unrefer(chunk.ended_by(0), 1)
            return
        about = Counter(chunk.endings())
        for index in list(chunk.records):
            about.update(self.drop_record(chunk, index))
        for sequence, count in about.items():
            self.unrefer(sequence, count)

    def drop_record(self, chunk: Chunk, index: int) -> tuple[int, ...]:
        """Drop the record of a job and its attempts; return the events that it refers to otherwise."""
        record = chunk.take_record(index)
        self.checkpoints -= record.checkpoint > 0
        self.streams -= record.stream is not None
        # The last one may be the job's outcome, which is counted already.
        self.forgotten.extend(each for each in record.attempts if each not in self.references)
        self.dead.pop((chunk.sequence, index))
        rows = record.stream.rows if record.stream is not None else ()
        return record.requeued, record.answered, record.cleared, record.checkpoint, *rows

    @property
    def has_stale_outcomes(self) -> bool:
        """Whether most of `outcome_order` are about forgotten jobs."""
        return len(self.outcome_order) > 2 * len(self.references) + 1000

    def refer(self, sequence: int, count: int) -> None:
        """Note that *count* more jobs refer to an event."""
        part = self.references.parts[sequence >> PART_BITS]
        part[sequence] = part.get(sequence, 0) + count

    def unrefer(self, sequence: int, count: int) -> None:
        """Note that *count* fewer jobs refer to an event; its row goes with the last. 0 is no event."""
        if not sequence:
            return
        left = (self.references.get(sequence) or 0) - count
        if left > 0:
            self.references[sequence] = left
        elif self.references.pop(sequence) is not None:
            self.forgotten.append(sequence)
