"""Large values of stock clients in place of a name or a number: no turn, no answer grows with them (T7)."""

from __future__ import annotations

import pickle

import pytest

from svc.domain.observer import Observer
from svc.domain.roles import Role
from svc.wire import with_header
from tests.support.manager import RunningManager
from tests.support.stranger import Stranger
from tests.support.turns import KEYS, TURN_SECONDS, longest_turn, observed_manager

#: Bytes of an answer to such a call.
ANSWER_BYTES = 4096
#: A text of 250,000 characters that `repr` writes as four each, sixty times in a message of one.
TEXT = b"X" + (250_000).to_bytes(4, "little") + b"\x01" * 250_000
LARGE = {
    "a text": TEXT,
    "one text many times": b"](" + TEXT + b"q\0" + b"h\0" * 62 + b"e",
    "many values": b"(" + b"N" * 240_000 + b"l",
    "bytes many times": b"](B" + TEXT[1:] + b"q\0" + b"h\0" * 62 + b"e",
}
TASK = b"X\4\0\0\0taskX\3\0\0\0m:f"


def field(name: bytes) -> bytes:
    """Return the parts of a put of a mapping around the value of the field *name*."""
    named = b"X" + len(name).to_bytes(4, "little") + name
    return b"(X\5\0\0\0tasksX\3\0\0\0put(}(" + TASK + named + b"%but}t."


#: The opcodes of calls; `%b` stands for the large value.
CALLS = {
    "as the object": b"(%bX\3\0\0\0put(t}t.",
    "as the method": b"(X\5\0\0\0tasks%b(t}t.",
    "as a keyword": b"(X\5\0\0\0tasksX\3\0\0\0put(t}(%bNut.",
    "as a timeout": b"(X\5\0\0\0tasksX\3\0\0\0put(NI01\n%bt}t.",
    "as a job's task": b"(X\4\0\0\0jobsX\6\0\0\0submit(%bt}t.",
    "as an id": b"(X\4\0\0\0jobsX\4\0\0\0show(%bt}t.",
    **{
        f"as {name}": field(name.encode())
        for name in ("queue", "key", "priority", "delay", "retries", "max_rss")
    },
}


@pytest.mark.parametrize("place", CALLS)
def test_a_value_that_cannot_be_a_name_or_a_number_is_refused_in_few_words(frozen, place):
    def story(manager: RunningManager) -> None:
        for name, value in LARGE.items():
            with Stranger(manager.endpoint) as stranger:
                stranger.serve(KEYS[Role.ADMIN])
                stranger.send(with_header(b"\x80\x04" + CALLS[place].replace(b"%b", value)))
                answer = stranger.receive()
            assert len(answer) <= ANSWER_BYTES, name
            assert pickle.loads(answer)[0] == "#ERROR", name

    assert longest_turn(story) <= TURN_SECONDS


@pytest.mark.parametrize("method", [b"%b(t}t.", b"X\6\0\0\0create(N%bt}t.", b"X\6\0\0\0create(%bt}t."])
def test_nor_does_one_cost_anything_on_a_fresh_connection(frozen, method):
    text = b"X" + (60_000).to_bytes(4, "little") + b"\x01" * 60_000

    def story(manager: RunningManager) -> None:
        for value in (text, b"](" + text + b"q\0" + b"h\0" * 250 + b"e"):
            with Stranger(manager.endpoint) as stranger:
                stranger.shake_hands(KEYS[Role.READ])
                stranger.send(with_header(b"\x80\x04(N" + method.replace(b"%b", value)))
                assert len(stranger.receive()) <= ANSWER_BYTES

    assert longest_turn(story) <= TURN_SECONDS


def test_numbers_may_still_be_texts():
    with observed_manager(Observer()) as manager, Stranger(manager.endpoint) as stranger:
        stranger.serve(KEYS[Role.ADMIN])
        for value in ("3", 3, 3.0, True):
            fields = {"task": "m:f", "priority": value, "retries": value, "delay": value, "backoff": value}
            stranger.send(with_header(pickle.dumps(("tasks", "put", (fields,), {}))))
            assert pickle.loads(stranger.receive()) == ("#RETURN", None)
