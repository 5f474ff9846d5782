"""Hostile frames: the result of `decode_request`, and the reaction of a real manager."""

from __future__ import annotations

import random
import tracemalloc

import msgspec
import pytest

from svc import wire
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import BadRequest
from svc.wire import decode_request, decode_response, encode_request, request_frame
from tests.support.hostile_frames import CORPUS, EVERY, encode
from tests.support.manager import running_manager
from tests.support.stranger import Stranger


def test_the_corpus_is_of_the_promised_size():
    assert len(CORPUS) >= 200


@pytest.mark.parametrize("decode", [decode_request, decode_response])
def test_a_hostile_frame_is_a_bad_request_and_costs_no_memory(decode):
    for name, frame in CORPUS.items():
        tracemalloc.start()
        try:
            with pytest.raises(BadRequest):
                decode(frame)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000 + 4 * len(frame), name
        except BaseException as error:
            error.add_note(name)
            raise
        finally:
            tracemalloc.stop()


def test_a_manager_answers_every_hostile_frame_and_goes_on():
    with running_manager() as manager, Stranger(manager.endpoint) as client:
        client.serve(manager.authkey)
        for name, frame in CORPUS.items():
            client.send(_message(frame))
            answer = wire.response_frame(client.receive())
            assert answer is not None, name
            request, (reply,) = decode_response(bytes(answer))
            assert request == 0
            assert isinstance(reply, r.Refused), name
            assert reply.code == "bad_request"
        client.send(encode_request(7, [c.Ping()]))
        answer = wire.response_frame(client.receive())
        assert answer is not None
        assert decode_response(bytes(answer)) == (7, [r.Done()])


@pytest.mark.parametrize("seed", range(4))
def test_a_manager_outlives_frames_with_bytes_changed_at_random(seed):
    """A frame that still decodes is carried out or refused: whatever numbers it has, nothing falls over."""
    chance = random.Random(seed)
    whole = [encode((1, [command])) for command in EVERY]
    with running_manager() as manager, Stranger(manager.endpoint) as client:
        client.serve(manager.authkey)
        for _ in range(500):
            frame = bytearray(chance.choice(whole))
            for _ in range(chance.randint(1, 3)):
                frame[chance.randrange(3, len(frame))] = chance.choice(
                    (0, 1, 0x7F, 0xCF, 0xD3, 0xFF, chance.randrange(256))
                )
            client.send(_message(bytes(frame)))
            client.send(encode_request(2, [c.Wake()]))
        with manager.broker() as honest:
            assert honest.connect().version


@pytest.mark.parametrize("command", EVERY, ids=lambda command: type(command).__name__)
def test_numbers_that_make_no_sense_harm_nobody(command):
    with running_manager() as manager, Stranger(manager.endpoint) as client:
        client.serve(manager.authkey)
        client.send(encode_request(1, [command]))
        client.send(encode_request(2, [c.Wake()]))
        with manager.broker() as honest:
            assert honest.connect().version


def _message(frame: bytes) -> bytearray:
    """Return *frame* as our own clients would send it."""
    message = wire._REQUEST.message(msgspec.Raw(frame))
    cut = request_frame(message[4:])
    assert cut is not None
    assert cut == frame
    return message
