"""The table of values in docs/clients.md agrees with the code."""

from __future__ import annotations

import enum
import math
import re
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest

from svc import codec
from svc.cli.output import json_text
from svc.client.specs import JobSpec, Options
from svc.errors import CodecError
from svc.extensions import INTEGER
from svc.worker.arguments import Signature
from tests.support.pickle_keys import PICKLE_KEYS
from tests.support.specs import encode

_ENVELOPES = PICKLE_KEYS.of("o-0")
_VALUE = itemgetter(0)

_PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")
_SECTION = _PAGE.partition("## Values\n")[2].partition("\n## ")[0]


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Order:
    number: int
    note: str


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


_STANDARD = (Counter, Decimal, Fraction, OrderedDict, Path, UUID, date, datetime, defaultdict, deque, time)
_OURS = (Colour, Level, Name, Order, Point)
NAMES = {each.__name__: each for each in (*_STANDARD, *_OURS, ZoneInfo, timedelta, timezone)} | {
    "UTC": UTC,
    "nan": math.nan,
    "inf": math.inf,
    "Any": Any,
}


def _evaluated(code: str) -> Any:
    return eval(code, dict(NAMES))


def _rows() -> list[tuple[str, str, str, str]]:
    """Return the code in the cells of the table, those of numpy left out: `test_annotations` has them."""
    rows: list[tuple[str, str, str, str]] = []
    for line in _SECTION.splitlines():
        cells = [re.search(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] is not None and "np." not in line:
            value, arrived, wanted, json = (cell[1] if cell else "" for cell in cells)
            rows.append((value, arrived, wanted, json))
    return rows


def _refused() -> list[str]:
    _, _, told = _SECTION.partition("**Refused** at the submit, with a `CodecError` that names the argument:")
    told = told.partition("and whatever else")[0]
    return [code for code in re.findall(r"`([^`]+)`", told) if code != "str"]


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or repr(one) == repr(other))


def _travelled(value: object) -> Any:
    job = encode(JobSpec("t:f", (value,)))
    return codec.decode_arguments(job.terms.codec, job.body, [codec.PLAIN])[0][0]


def _returned(value: object, name: str = codec.PLAIN) -> Any:
    body = codec.encode_result(name, value, _ENVELOPES, typed=True)
    return codec.decode_result(body, _ENVELOPES)


def test_the_table_is_there():
    assert len(_rows()) > 20
    assert len(_refused()) > 6


@pytest.mark.parametrize("row", _rows(), ids=_VALUE)
def test_a_value_arrives_as_the_table_says(row):
    assert _same(_travelled(_evaluated(row[0])), _evaluated(row[1]))


@pytest.mark.parametrize("row", _rows(), ids=_VALUE)
def test_a_value_in_other_values_arrives_as_the_table_says(row):
    value, arrived = _evaluated(row[0]), _evaluated(row[1])
    assert repr(_travelled([{"deep": (value,)}])) == repr([{"deep": (arrived,)}])


@pytest.mark.parametrize("row", _rows(), ids=_VALUE)
def test_a_result_comes_as_the_table_says(row):
    assert _same(_returned(_evaluated(row[0])), _evaluated(row[1]))


@pytest.mark.parametrize("row", [row for row in _rows() if "memoryview" not in row[0]], ids=_VALUE)
def test_with_pickle_arguments_and_results_come_unchanged(row):
    value = _evaluated(row[0])
    job = encode(JobSpec("t:f", (value,), {}, Options(codec="pickle")))
    args, _ = codec.decode_arguments(codec.PICKLE, job.body, codec.CODECS, memoryview)

    assert _same(args[0], value)
    assert _same(_returned(value, codec.PICKLE), value)


@pytest.mark.parametrize("row", [row for row in _rows() if row[2]], ids=_VALUE)
def test_with_its_annotation_it_comes_back(row):
    def task(given: object) -> None: ...

    task.__annotations__["given"] = _evaluated(row[2])

    ((given,), _) = Signature(task).bind([_travelled(_evaluated(row[0]))], {})

    # A `Path` is one of the system's kind.
    assert _same(given, _evaluated(row[0]))


@pytest.mark.parametrize("row", _rows(), ids=_VALUE)
def test_a_result_is_shown_in_json_as_the_table_says(row):
    assert json_text(_returned(_evaluated(row[0]))) == row[3]


@pytest.mark.parametrize("value", _refused())
@pytest.mark.parametrize(
    ("place", "args", "kwargs"),
    [
        ("argument 2 ", lambda bad: (1, bad), lambda bad: {}),
        ("argument size ", lambda bad: (), lambda bad: {"size": bad}),
        ("argument 1[1]['x'][0] ", lambda bad: ([(), {"x": (bad,)}],), lambda bad: {}),
    ],
)
def test_a_refusal_names_the_argument(value, place, args, kwargs):
    bad = _evaluated(value)
    with pytest.raises(CodecError, match=re.escape(place)):
        encode(JobSpec("t:f", args(bad), kwargs(bad)))
    with pytest.raises(CodecError):
        codec.encode_result(codec.PLAIN, bad, typed=True)


def test_a_refusal_has_the_parameters_name_if_the_function_is_at_hand():
    with pytest.raises(CodecError, match=r"argument b\[0\] "):
        encode(JobSpec(_task, (1, [object()])))


@pytest.mark.parametrize(("call", "place"), [("t:f", "argument 2"), (lambda a, b: None, "argument b")])
def test_a_value_that_cannot_be_pickled_is_named_as_well(call, place):
    with pytest.raises(CodecError, match=f"{place}: .*cannot be pickled"):
        encode(JobSpec(call, (1, threading.Lock()), {}, Options(codec="pickle")))


def _task(a: int, b: Any) -> None: ...


@pytest.mark.parametrize("value", [-(2**63), 2**64 - 1, [None], {"a": [b"x"]}, Order(1, "a"), Path("/a")])
def test_values_without_extension_types_go_to_every_worker(value):
    assert encode(JobSpec("t:f", (value,))).terms.codec == codec.PLAIN


def test_values_with_extension_types_go_to_workers_that_know_them():
    assert encode(JobSpec("t:f", ((1,),))).terms.codec == codec.TYPED
    assert codec.accepted([codec.PLAIN, codec.PICKLE]) == ("plain", "pickle", "typed", "large")


def test_the_plain_form_is_given_if_an_annotation_asks_for_it():
    def task(name: str, day: str, rest: object, numbers: list[int]) -> None: ...

    values = (UUID(int=5), date(2026, 3, 1), (1,), {4})
    args = [_travelled(value) for value in values]

    assert Signature(task).bind(args, {})[0] == [str(UUID(int=5)), "2026-03-01", (1,), [4]]


def test_results_for_older_submitters_are_plain_data():
    body = codec.encode_result(codec.PLAIN, (1, {2}, Decimal("1.10")))
    assert codec.decode_result(body) == [1, [2], "1.10"]


def test_bodies_of_the_last_release_decode_as_before():
    body = bytes.fromhex("9291920193a161c0cb3ff8000000000000" + "81a16bc40178")
    assert codec.decode_arguments(codec.PLAIN, body, [codec.PLAIN]) == ([[1, ["a", None, 1.5]]], {"k": b"x"})


@pytest.mark.parametrize("value", [2**13990, -(2**13990), -(2**63) - 1, 2**64])
def test_large_numbers_come_back_and_can_be_shown(value):
    assert _travelled(value) == _returned(value) == value
    assert _travelled([{"deep": value}]) == _returned([{"deep": value}]) == [{"deep": value}]
    assert json_text(value) == str(value)


def test_a_number_of_which_python_makes_no_text_is_not_read():
    body = msgspec.msgpack.encode([[msgspec.msgpack.Ext(INTEGER, b"\x01" * 1751)], {}])
    with pytest.raises(CodecError, match="too large"):
        codec.decode_arguments(codec.TYPED, body, [codec.PLAIN])


def test_equal_sets_have_equal_bytes():
    one, other = set(range(0, 4000, 8)), set(range(3992, -8, -8))
    assert encode(JobSpec("t:f", (one,))).body == encode(JobSpec("t:f", (other,))).body


def test_a_zone_that_the_reader_lacks_is_told():
    body = encode(JobSpec("t:f", (datetime(2026, 3, 1, tzinfo=ZoneInfo("Europe/Berlin")),))).body
    with pytest.raises(CodecError, match=r"\[Europe/Borlin\] is in a zone that this system does not know"):
        codec.decode_arguments(codec.TYPED, body.replace(b"Berlin", b"Borlin"), [codec.PLAIN])


@pytest.mark.parametrize("code", [*range(1, 12), 12, 80, 127])
@pytest.mark.parametrize("content", [b"", b"\xff", b"x", b"\x91", b"9 9", b"[", b"\x91\x90"])
def test_a_malformed_extension_is_a_codec_error(code, content):
    body = msgspec.msgpack.encode([[msgspec.msgpack.Ext(code, content)], {}])
    with suppress(CodecError):
        codec.decode_arguments(codec.TYPED, body, [codec.PLAIN])
    with suppress(CodecError):
        codec.decode_result(body)
