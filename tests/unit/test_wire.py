from __future__ import annotations

import pickle

import pytest

from svc import wire
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import BadRequest

REQUEST = wire.encode_request(7, [c.Ping()])
RESPONSE = wire.encode_response(7, [r.Done(1)])


def body(message: bytes | bytearray) -> bytes | bytearray:
    """Return a message without its header, which must be right."""
    (length,) = wire.HEADER.unpack(message[: wire.HEADER.size])
    assert length == len(message) - wire.HEADER.size
    return message[wire.HEADER.size :]


def test_a_request_is_a_pickle_that_the_stdlib_reads():
    ident, method, (frame,), kwds = pickle.loads(body(REQUEST))

    assert (ident, method, kwds) == ("jobs", "call", {})
    assert wire.decode_request(frame) == (7, [c.Ping()])


def test_a_response_is_a_pickle_that_the_stdlib_reads():
    kind, frame = pickle.loads(body(RESPONSE))

    assert kind == "#RETURN"
    assert wire.decode_response(frame) == (7, [r.Done(1)])


def test_frames_are_cut_out_without_unpickling():
    request, response = wire.request_frame(body(REQUEST)), wire.response_frame(body(RESPONSE))

    assert request is not None
    assert response is not None
    assert wire.decode_request(request) == (7, [c.Ping()])
    assert wire.decode_response(response) == (7, [r.Done(1)])


@pytest.mark.parametrize(
    "message",
    [
        b"",
        body(RESPONSE),
        body(REQUEST)[:-1],
        body(REQUEST) + b".",
        b"x" + body(REQUEST)[1:],
        pickle.dumps(("jobs", "call", (b"frame",), {}), protocol=4),
        pickle.dumps((None, "accept_connection", ("svc",), {})),
    ],
)
def test_another_clients_message_is_no_frame(message):
    assert wire.request_frame(message) is None


@pytest.mark.parametrize(
    "frame", [b"", b"\xc1", b"\x92\x01\x91\x91\xa4nope", b"\x91\x01", b"\x92\x01\x91\x91\xa4take"]
)
def test_a_frame_that_cannot_be_read_is_a_bad_request(frame):
    with pytest.raises(BadRequest, match="cannot be read"):
        wire.decode_request(frame)
    with pytest.raises(BadRequest, match="cannot be read"):
        wire.decode_response(frame)


@pytest.mark.parametrize("command", [c.Take(), c.Join("default")])
def test_what_only_plain_clients_may_ask_cannot_be_sent_as_a_frame(command):
    frame = wire.request_frame(body(wire.encode_request(1, [command])))

    assert frame is not None
    with pytest.raises(BadRequest):
        wire.decode_request(frame)


def test_text_that_is_not_utf8_is_a_bad_request():
    frame = wire.request_frame(body(wire.encode_request(1, [c.Get(["????"])])))
    assert frame is not None

    with pytest.raises(BadRequest):
        wire.decode_request(bytes(frame).replace(b"????", b"\xff\xff\xff\xff"))


def test_a_short_message_has_a_short_header():
    assert wire.with_header(b"abc") == b"\0\0\0\x03abc"
