"""Large frames: their elements are bounded, and all that our own clients send is read as before."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from svc import wire
from svc.domain import commands as c
from svc.domain.field_bounds import CHUNK_JOBS_MAX, FRAME_ELEMENTS_MAX, REPLY_JOBS_MAX
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.errors import BadRequest

IDS = ["o-1"] * REPLY_JOBS_MAX
MANY = 2 * FRAME_ELEMENTS_MAX // REPLY_JOBS_MAX


def frame(commands: list[c.Command]) -> bytes:
    message = wire.encode_request(7, commands)
    return bytes(wire.request_frame(memoryview(message)[wire.HEADER.size :]) or b"")


def chunk(count: int, body: bytes = b"abc") -> NewChunk:
    """Return a chunk of equal bodies, quickly."""
    encoded = msgspec.msgpack.encode(body) * count
    return NewChunk(0, Terms("m:f"), cast("list[bytes]", msgspec.Raw(b"\xdd" + count.to_bytes(4) + encoded)))


FLOODS: dict[str, Any] = {
    "ids to ask": lambda: [c.AskProgress(IDS)] * MANY,
    "ids to await": lambda: [c.Await(IDS)] * MANY,
    "submits": lambda: [c.Submit("o", [chunk(CHUNK_JOBS_MAX)])] * 8,
    "chunks of one submit": lambda: [c.Submit("o", [chunk(CHUNK_JOBS_MAX)] * 8)],
    "results": lambda: [c.Ack(1, 0, [b"ab"] * 50_000, [0.0] * 50_000)] * 8,
    "small ones before a large one": lambda: [
        *[c.Await(IDS)] * (FRAME_ELEMENTS_MAX // REPLY_JOBS_MAX),
        c.Submit("o", [chunk(CHUNK_JOBS_MAX, b"a" * 16)]),
    ],
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_frame_of_very_many_elements_is_refused(name):
    with pytest.raises(BadRequest, match="jobs, ids, results and names"):
        wire.decode_request(frame(FLOODS[name]()))


@pytest.mark.parametrize("jobs", [1, 1000, CHUNK_JOBS_MAX])
def test_a_large_frame_of_jobs_is_read_as_it_was_sent(jobs):
    body = bytes(2 * wire.LARGE_FRAME_BYTES // jobs)
    sent = [c.Submit("o", [NewChunk(0, Terms("m:f"), [body] * jobs, key="" if jobs > 1 else "k")]), c.Ping()]
    assert wire.decode_request(frame(sent)) == (7, sent)


def test_a_large_frame_of_reports_is_read_as_it_was_sent():
    error = ErrorInfo("E", "m" * 2000, "t" * 16_000)
    sent: list[c.Command] = [c.Nack(1, number, error) for number in range(200)]
    sent += [c.Ack(2, 0, [bytes(wire.LARGE_FRAME_BYTES)], [0.5]), c.Lease(8, 1.0)]
    assert wire.decode_request(frame(sent)) == (7, sent)


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_large_frame_that_is_cut_off_cannot_be_read(cut):
    whole = frame([c.Submit("o", [chunk(1, bytes(2 * wire.LARGE_FRAME_BYTES))])])
    with pytest.raises(BadRequest, match="cannot be read"):
        wire.decode_request(whole[:-cut])


def test_a_large_frame_with_a_field_out_of_bounds_cannot_be_read():
    with pytest.raises(BadRequest, match="cannot be read"):
        wire.decode_request(
            frame([c.Submit("o", [chunk(1, bytes(2 * wire.LARGE_FRAME_BYTES))]), c.Lease(-1)])
        )
