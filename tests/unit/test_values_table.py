"""The table of values in docs/clients.md agrees with the code."""

from __future__ import annotations

import enum
import math
import re
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from svc import codec
from svc.errors import CodecError
from svc.worker.arguments import Signature

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
NAMES = {each.__name__: each for each in (*_STANDARD, *_OURS, timedelta, timezone)} | {
    "UTC": UTC,
    "nan": math.nan,
}


def _evaluated(code: str) -> Any:
    return eval(code, dict(NAMES))


def _rows() -> list[tuple[str, str, str]]:
    """Return the code in the cells of the table, those of numpy left out: `test_annotations` has them."""
    rows = []
    for line in _SECTION.splitlines():
        cells = [re.search(r"`([^`]+)`", cell) for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0] is not None and "np." not in line:
            value, arrived, wanted = (cell[1] if cell else "" for cell in cells)
            rows.append((value, arrived, wanted))
    return rows


def _refused() -> list[str]:
    told = _SECTION.partition("Refused at the submit, with `CodecError`:")[2].partition("and whatever else")[
        0
    ]
    return [code for code in re.findall(r"`([^`]+)`", told) if code != "str"]


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or repr(one) == repr(other))


def _travelled(value: object) -> Any:
    body = codec.encode_arguments(codec.PLAIN, (value,), {})
    return codec.decode_arguments(codec.PLAIN, body, [codec.PLAIN])[0][0]


def test_the_table_is_there():
    assert len(_rows()) > 20
    assert len(_refused()) > 6


@pytest.mark.parametrize(("value", "arrived", "wanted"), _rows())
def test_a_value_arrives_as_the_table_says(value, arrived, wanted):
    assert _same(_travelled(_evaluated(value)), _evaluated(arrived))


@pytest.mark.parametrize(("value", "arrived", "wanted"), _rows())
def test_a_result_comes_as_the_table_says(value, arrived, wanted):
    body = codec.encode_result(codec.PLAIN, _evaluated(value))
    assert _same(codec.decode_result(body), _evaluated(arrived))


@pytest.mark.parametrize(("value", "arrived", "wanted"), [row for row in _rows() if row[2]])
def test_with_its_annotation_it_comes_back(value, arrived, wanted):
    def task(given: object) -> None: ...

    task.__annotations__["given"] = _evaluated(wanted)

    ((given,), _) = Signature(task).bind([_travelled(_evaluated(value))], {})

    # A `Path` is one of the system's kind.
    assert given == _evaluated(value)
    assert type(given) is type(_evaluated(value))


@pytest.mark.parametrize("value", _refused())
def test_what_the_page_calls_refused_is_refused(value):
    with pytest.raises(CodecError):
        codec.encode_arguments(codec.PLAIN, (_evaluated(value),), {})
    with pytest.raises(CodecError):
        codec.encode_result(codec.PLAIN, _evaluated(value))


@pytest.mark.parametrize("value", [None, True, -(2**63), 2**64 - 1, 1.5, "ä", b"x", [1], {"a": [None]}])
def test_plain_values_arrive_as_they_were(value):
    assert _same(_travelled(value), value)
