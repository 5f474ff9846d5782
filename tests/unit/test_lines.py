"""Lines that never wait for their reader."""

from __future__ import annotations

import os
import pty
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc import lines
from svc.lines import LineWriter

LINE = b"x" * 999 + b"\n"


@pytest.fixture(params=["pipe", "pipe of another user", "socket", "terminal"])
def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a log's possible targets."""
    monkeypatch.setattr(lines, "PATIENCE_SECONDS", 0.05)
    if request.param == "socket":
        ours, theirs = socket.socketpair()
        yield ours.fileno(), theirs.fileno()
        ours.close()
        theirs.close()
        return
    if request.param == "pipe of another user":
        monkeypatch.setattr(lines, "_reopened", lambda descriptor: None)
    reader, writer = pty.openpty() if request.param == "terminal" else os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_reader_that_stalls_stops_nobody_and_what_is_dropped_is_counted(line: tuple[int, int]) -> None:
    reader, descriptor = line
    writer = LineWriter(descriptor)
    written = 0
    while writer.write(LINE):
        written += 1
    assert not writer.write(LINE)
    assert writer.take_dropped() == 2
    assert writer.take_dropped() == 0
    assert written > 0
    while not writer.write(LINE):
        os.read(reader, 4096)
    assert os.get_blocking(descriptor)


@pytest.mark.parametrize("kind", ["closed", "without a reader"])
def test_a_descriptor_that_leads_nowhere_drops_lines_and_raises_nothing(kind: str) -> None:
    reader, descriptor = os.pipe()
    os.close(reader)
    if kind == "closed":
        os.close(descriptor)
    writer = LineWriter(descriptor)
    assert not writer.write(LINE)
    assert writer.dropped == 1
    if kind != "closed":
        os.close(descriptor)


def test_a_file_that_others_write_to_keeps_every_line(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        writer = LineWriter(file.fileno())
        for _ in range(3):
            assert writer.write(b"ours\n")
            file.write(b"theirs\n")
    assert (tmp_path / "log").read_bytes() == b"ours\ntheirs\n" * 3


def test_a_full_disk_drops_lines() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(descriptor)
    assert not writer.write(LINE)
    assert writer.dropped == 1
    os.close(descriptor)


def test_a_slow_reader_loses_no_line() -> None:
    reader, descriptor = os.pipe()
    writer = LineWriter(descriptor)
    count = 500
    thread = threading.Thread(target=lambda: [writer.write(LINE) for _ in range(count)])
    thread.start()
    found = b""
    while len(found) < count * len(LINE):
        found += os.read(reader, 512)
    thread.join()
    assert (found, writer.dropped) == (LINE * count, 0)
    os.close(reader)
    os.close(descriptor)
