"""Journals in streams as the source and as the target of a copy; see `svc.server.journal.copying`.

The target is written by terms of its own: each run of the copy begins one, which fences the run before it.
The last frame has a term that is greater than any incarnation of the source, so that no token repeats.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

import msgspec

from svc.broker.error_texts import digests_of
from svc.errors import Conflict, Deposed
from svc.server.journal.copying import CopyOrigin, Record
from svc.server.journal.jetstream.frames import Frame, FrameKind, commit_frame
from svc.server.journal.jetstream.log import PrefixPurged
from svc.server.journal.jetstream.open_stream import CountingReplica, OpenStream
from svc.server.journal.jetstream.replica import answered
from svc.server.journal.jetstream.writer import FrameWriter
from svc.server.journal.rows import encoded_rows


class StreamSource:
    """A journal in a stream; see `CopySource`. Nothing is written there unless it is moved."""

    def __init__(self, stream: OpenStream) -> None:
        """Read all of *stream* into a temporary mirror on this host's disk, in `TMPDIR`.

        Raises:
            Conflict: a manager serves it.
            CopyIncomplete: it is a copy that is not complete.
            JournalError: it cannot be read.
        """
        self._stream = stream
        if serving := stream.ask(answered(stream.log.serving)):
            raise Conflict(
                f"the journal {stream.place} is served by the manager at {serving}; stop it and its standbys "
                "first"
            )
        self._replica = replica = CountingReplica(stream.log)
        try:
            stream.fill(replica)
            if replica.copy_of:
                replica.require_served()
        except BaseException:
            replica.close()
            raise
        end = replica.position if replica.end is None else replica.end
        self.origin = CopyOrigin(stream.place, replica.served_term, end)
        self.moved_to = replica.moved_to

    @property
    def bytes(self) -> int:
        """The bytes that its rows take in a file."""
        return self._replica.mirror.size()

    def rows(self) -> Iterator[Record]:
        """Yield all rows; see `CopySource.rows`."""
        mirror = self._replica.mirror
        for number, event in mirror.replay():
            yield number, mirror.read(number) if digests_of(event) else event

    def move_to(self, place: str) -> None:
        """Write the last frame of the stream behind all that was read; see `CopySource.move_to`."""
        replica = self._replica
        writer = new_writer(self._stream, replica.term + 1, replica.position)
        try:
            self._stream.ask(writer.append(Frame(FrameKind.MOVED, place=place)))
        except Deposed:
            raise Conflict(
                f"a manager has written the journal {self._stream.place} meanwhile; stop all of its "
                "managers, delete the copy, and begin anew"
            ) from None
        self.moved_to = place

    def close(self) -> None:
        """Delete the mirror."""
        self._replica.close()


class StreamTarget:
    """A new journal in a stream; see `CopyTarget`."""

    def __init__(self, stream: OpenStream) -> None:
        """Look at *stream*, which must be empty or have a copy that was begun.

        Raises:
            Conflict: it was used.
            JournalError: it cannot be read.
        """
        self._stream = stream
        self.place = stream.place
        self.origin: CopyOrigin | None = None
        self.newest = -1
        self.complete = False
        self._term = 0
        self._end = stream.last()
        self._writer: FrameWriter | None = None
        try:
            for stored in stream.frames(self._end):
                self._take(stored.frame)
                self._term = stored.origin.term
        except PrefixPurged:
            raise self._used() from None
        if self._end and self.origin is None:
            raise self._used()

    def begin(self, origin: CopyOrigin) -> None:
        """Begin a term for this run; see `CopyTarget.begin`."""
        self._begin_term(self._term + 1)
        self._append(Frame(FrameKind.COPY, place=msgspec.json.encode(origin).decode()))
        self.origin = origin

    def put(self, records: Sequence[Record]) -> None:
        """Add rows in one frame; see `CopyTarget.put`."""
        self._append(commit_frame(encoded_rows(records)))
        self.newest = records[-1][0]

    def rows(self) -> Iterator[Record]:
        """Yield all rows; see `CopySource.rows`."""
        for stored in self._stream.frames(self._end):
            yield from stored.frame.records()

    def finish(self, incarnation: int) -> None:
        """Write the frame that makes it a journal; see `CopyTarget.finish`."""
        self._begin_term(max(self._term + 1, incarnation))
        self._append(Frame(FrameKind.COPIED, place=msgspec.json.encode(self.origin).decode()))
        self.complete = True

    def close(self) -> None:
        """Do nothing: the stream is its owner's to close."""

    def _take(self, frame: Frame) -> None:
        """Note a frame that is there."""
        if frame.kind in (FrameKind.COPY, FrameKind.COPIED) and not self.complete:
            self.origin = msgspec.json.decode(frame.place, type=CopyOrigin)
            self.complete = frame.kind is FrameKind.COPIED
        elif frame.kind is FrameKind.COMMIT and self.origin is not None and not self.complete:
            self.newest = frame.rows[-1][0]
        else:
            raise self._used()

    def _used(self) -> Conflict:
        return Conflict(
            f"the stream {self.place} has a journal that was used; copy to a stream that does not exist"
        )

    def _begin_term(self, term: int) -> None:
        self._term = term
        self._writer = new_writer(self._stream, term, self._end)

    def _append(self, frame: Frame) -> None:
        assert self._writer is not None  # `begin` has made it
        try:
            self._end = self._stream.ask(self._writer.append(frame)).last
        except Deposed:
            raise Conflict(
                f"something else writes the stream {self.place}: another copy to it, or a manager"
            ) from None


def new_writer(stream: OpenStream, term: int, end: int) -> FrameWriter:
    """Return a writer of *term* behind message *end* of a stream."""
    message_max = stream.ask(answered(stream.log.facts)).message_max
    return FrameWriter(stream.log, term=term, writer=secrets.randbits(64), end=end, message_max=message_max)
