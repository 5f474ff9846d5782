"""Stock clients get values of extension types as data: tuples, lists, text and numbers."""

from __future__ import annotations

import io
import pickle
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from msgspec.msgpack import Ext, encode

from svc import codec, extensions
from svc.domain.job import Outcome, Terms
from svc.domain.lifecycle import JobState
from svc.domain.replies import Delivery
from svc.extensions import MOMENT
from svc.server.plain_values import as_answer, as_put, reply_bytes

#: A point in time in each of MessagePack's lengths.
EPOCH = b"\xd6\xff\0\0\0\0"
TIMES = (EPOCH, b"\xd7\xff" + b"\0" * 8, b"\xc7\x0c\xff" + b"\0" * 12)
EPOCH_TEXT = "1970-01-01T00:00:00+00:00"
SENT = ((1, {2}), Decimal("1.10"), date(2026, 3, 1), 2**70, bytearray(b"x"), {(3, (4,)): frozenset((5,))})
GOT = ((1, [2]), "1.10", "2026-03-01", 2**70, b"x", {(3, (4,)): [5]})


class _NoNames(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        raise AssertionError(f"the reply names {module}.{name}")


def test_arguments_of_a_typed_job_are_data():
    body, used = codec.encode_call(codec.PLAIN, SENT, {"k": (1,)})
    assert used == codec.TYPED
    delivery = Delivery(1, "o", 0, Terms("m:f", codec=used), [body])
    assert as_put(delivery) == ("m:f", GOT, {"k": (1,)})


def test_a_typed_result_is_data_and_its_reply_names_nothing():
    result = codec.encode_result(codec.PLAIN, SENT, typed=True)
    answer = as_answer(Outcome("o-0", JobState.SUCCEEDED, result))
    assert answer == GOT
    assert _NoNames(io.BytesIO(reply_bytes(answer))).load() == ("#RETURN", GOT)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize(
    ("before", "after", "got"),
    [
        (b"", b"", EPOCH_TEXT),
        (b"\x92\xc4\x02\xd6\xff", b"", [b"\xd6\xff", EPOCH_TEXT]),
        (b"\x81", b"\x01", {EPOCH_TEXT: 1}),
        (b"\x81\x91", b"\x01", {(EPOCH_TEXT,): 1}),
    ],
)
def test_a_point_in_time_is_text(time, before, after, got):
    """msgspec decodes it without a hook, to an object whose pickle names its class."""
    answer = as_answer(Outcome("o-0", JobState.SUCCEEDED, before + time + after))
    assert answer == got
    assert _NoNames(io.BytesIO(reply_bytes(answer))).load() == ("#RETURN", got)


def test_points_in_time_within_extensions_are_text():
    inner = encode(Ext(extensions.SET, b"\x93" + b"".join(TIMES)))
    body = b"\x93" + EPOCH + encode(Ext(extensions.TUPLE, b"\x92" + inner + EPOCH)) + EPOCH
    answer = as_answer(Outcome("o-0", JobState.SUCCEEDED, body))
    assert answer == [EPOCH_TEXT, ([EPOCH_TEXT] * 3, EPOCH_TEXT), EPOCH_TEXT]


def test_times_of_svcs_own_clients_are_text_with_and_without_utc():
    moment = datetime(2026, 3, 1, 12, 30, 0, 250, tzinfo=UTC)
    body, used = codec.encode_call(codec.PLAIN, (moment, moment.replace(tzinfo=None)), {})
    delivery = Delivery(1, "o", 0, Terms("m:f", codec=used), [body])
    got = ("2026-03-01T12:30:00.000250+00:00", "2026-03-01T12:30:00.000250")
    assert as_put(delivery) == ("m:f", got, {})
    result = codec.encode_result(codec.PLAIN, moment)
    assert as_answer(Outcome("o-0", JobState.SUCCEEDED, result)) == got[0]


@pytest.mark.parametrize("code", range(-128, 128))
def test_no_type_of_extension_brings_a_name_into_a_reply(code):
    contents = [b"", b"\0" * 4, b"\0" * 8, b"\0" * 12, b"2026-03-01", b"\x91" + EPOCH, b"\x81" + EPOCH * 2]
    for content in contents:
        body = encode(Ext(code, content))
        for each in (body, b"\x92" + body + EPOCH, b"\x81" + body + b"\xc0"):
            answer = as_answer(Outcome("o-0", JobState.SUCCEEDED, each))
            assert _NoNames(io.BytesIO(reply_bytes(answer))).load() == ("#RETURN", answer)
            put = as_put(Delivery(1, "o", 0, Terms("m:f", codec=codec.TYPED), [b"\x92\x91" + each + b"\x80"]))
            assert _NoNames(io.BytesIO(reply_bytes(put))).load() == ("#RETURN", put)


def test_no_codec_writes_the_type_that_stands_for_points_in_time():
    assert MOMENT not in {code for _, code, _ in extensions._CONTENTS}


@pytest.mark.parametrize(
    "body",
    [
        b"\xc7\x01\x0c\x00",
        b"\xc7\x01\x50\x00",
        b"\xc7\x02\x01\x92\x01",
        b"\xd4\x0a\xff",
        b"\xd4\xff\0",
        b"\xd7\xff" + b"\xff" * 8,
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\xc8\x01\0\xff" + b"\0" * 256,
    ],
)
def test_a_malformed_one_is_told_and_not_raised(body):
    answer = as_answer(Outcome("o-0", JobState.SUCCEEDED, body))
    assert isinstance(answer, dict)
    assert answer["id"] == "o-0"
