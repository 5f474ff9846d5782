"""Facts about a journal as lines of text, and the progress of a copy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from svc.cli.bottom_line import BOTTOM
from svc.cli.output import size

if TYPE_CHECKING:
    from svc.server.journal.inspection import Info
    from svc.server.journal.jetstream.stream_inspection import StreamInfo


def info_lines(found: Info | StreamInfo) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each fact about a journal."""
    from svc.server.journal.inspection import Info

    lines = file_lines(found) if isinstance(found, Info) else stream_lines(found)
    yield from lines
    if found.moved_to:
        yield "moved to", found.moved_to


def file_lines(found: Info) -> Iterator[tuple[str, str]]:
    """Yield the facts about a file."""
    yield "journal", f"{found.path}, format {found.version}, incarnation {found.incarnation}"
    yield "rows", f"{found.rows}, from {found.first} to {found.newest}"
    yield "events", _counted(found.events)
    yield "texts", f"{found.texts} of errors"
    yield "sizes", ", ".join(f"{part} {size(count)}" for part, count in found.bytes.items())
    mark = f"row {found.mark_sequence} of incarnation {found.mark_incarnation}"
    yield "mark", mark if found.mark_incarnation >= 0 else "none"


def stream_lines(found: StreamInfo) -> Iterator[tuple[str, str]]:
    """Yield the facts about a stream."""
    yield "journal", f"{found.place}, term {found.incarnation}"
    yield "rows", f"{found.rows}, from {found.first} to {found.newest}"
    yield "events", _counted(found.events)
    yield "frames", _counted(found.frames)
    yield "messages", f"{found.messages}, from {found.first_message} to {found.last_message}"
    yield "sizes", f"stream {size(found.bytes)}, live {size(found.live_bytes)}"
    led = f", led by {found.leader}" if found.leader else ""
    yield "servers", f"{found.replicas}: {found.current} current, {found.offline} offline{led}"
    yield "release", f"nats-server {found.release}"
    yield "manager", found.served_by or "none"
    if found.copy_of:
        yield "copy of", f"{found.copy_of}, not complete"
    for warning in found.warnings:
        yield "warning", warning


@contextmanager
def copy_progress() -> Iterator[Callable[[str, int], None]]:
    """Show how far a copy is, in the bottom line, if stderr is a terminal."""
    shown = sys.stderr.isatty()

    def show(step: str, rows: int) -> None:
        if shown:
            BOTTOM.show(f"{rows:,} rows {step}")

    try:
        yield show
    finally:
        if shown:
            BOTTOM.show("")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
