"""Stock clients get values of extension types as data: tuples, lists, text and numbers."""

from __future__ import annotations

import io
import pickle
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from svc import codec
from svc.domain.job import Outcome, Terms
from svc.domain.lifecycle import JobState
from svc.domain.replies import Delivery
from svc.server.plain_values import as_answer, as_put, reply_bytes

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


@pytest.mark.parametrize(
    "body", [b"\xc7\x01\x0c\x00", b"\xc7\x01\x50\x00", b"\xc7\x02\x01\x92\x01", b"\xd4\x0a\xff"]
)
def test_a_malformed_one_is_told_and_not_raised(body):
    answer = as_answer(Outcome("o-0", JobState.SUCCEEDED, body))
    assert isinstance(answer, dict)
    assert answer["id"] == "o-0"
