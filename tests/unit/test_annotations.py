"""Values that are taken beside plain data, and those that an annotation refuses before they are sent."""

from __future__ import annotations

import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, Self

import pytest

from svc import codec
from svc.annotations import Demands, demands_of
from svc.client.specs import JobSpec
from svc.errors import ArgumentError, CodecError
from svc.worker.arguments import Signature
from tests.support.specs import encode


class Scalar:
    """As numpy's: a value of a kind."""

    __hash__ = object.__hash__

    def __init__(self, value: object, kind: str = "f") -> None:
        self.value = value
        self.dtype = SimpleNamespace(kind=kind)

    def item(self) -> object:
        return self.value

    def __repr__(self) -> str:
        return f"Scalar({self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scalar) and other.value == self.value


class Float64(Scalar, float):
    """Both a scalar and a float, as numpy's is."""

    def __new__(cls, value: float) -> Self:
        return float.__new__(cls, value)


@pytest.fixture
def numpy(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", SimpleNamespace(generic=Scalar))


def arrived(value: object) -> Any:
    body = codec.encode_arguments(codec.PLAIN, (value,), {})
    return codec.decode_arguments(codec.PLAIN, body, [codec.PLAIN])[0][0]


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Path("/a/b"), "/a/b"),
        (PurePosixPath("a"), "a"),
        ([Path("x"), {"deep": Path("y")}], ["x", {"deep": "y"}]),
        ({Path("key"): 1}, {"key": 1}),
    ],
)
def test_a_path_is_taken_as_text(value, data):
    assert arrived(value) == data
    assert codec.decode_result(codec.encode_result(codec.PLAIN, value)) == data


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Scalar(1.5), 1.5),
        (Scalar(7, "u"), 7),
        (Scalar(True, "b"), True),
        (Scalar("x", "U"), "x"),
        (Scalar(b"x", "S"), b"x"),
        (Float64(2.5), 2.5),
        ([Scalar(1, "i"), {"deep": Scalar(2, "i")}], [1, {"deep": 2}]),
    ],
    ids=repr,
)
def test_a_scalar_of_numpy_is_taken_as_its_value(numpy, value, data):
    found = arrived(value)
    assert (found, type(found)) == (data, type(data))
    assert codec.decode_result(codec.encode_result(codec.PLAIN, value)) == data


@pytest.mark.parametrize(
    "value",
    [
        Scalar(1, "m"),
        Scalar(1, "M"),
        Scalar(1j, "c"),
        Scalar(b"x", "V"),
        Scalar(object(), "O"),
        Scalar(Scalar(1.0)),
    ],
    ids=lambda value: value.dtype.kind,
)
def test_a_scalar_that_is_no_data_is_refused(numpy, value):
    with pytest.raises(CodecError, match="Scalar"):
        arrived(value)


def test_a_scalar_is_refused_if_it_is_not_numpys():
    with pytest.raises(CodecError):
        arrived(Scalar(1.5))


def test_a_result_of_the_codec_pickle_stays_what_it_was():
    from tests.support.pickle_keys import PICKLE_KEYS

    envelopes = PICKLE_KEYS.of("o-0")
    body = codec.encode_result(codec.PICKLE, Path("/a"), envelopes)
    assert codec.decode_result(body, envelopes) == Path("/a")


def test_a_parameter_may_ask_for_a_path_or_a_scalar(numpy):
    def task(path: Path, number: Scalar, *more: Path) -> None: ...

    args, _ = Signature(task).bind(["/a", 1.5, "b", "c"], {})

    assert list(args) == [Path("/a"), Scalar(1.5), Path("b"), Path("c")]


# --- refusals of an annotation -----------------------------------------------------------------------------


@dataclass
class Order:
    number: int
    line: socket.socket | None = None


@dataclass
class Node:
    value: int
    next: Node | None = None


def connection(line: socket.socket, name: str = "") -> None: ...
def optional(name: str, line: socket.socket | None = None) -> None: ...
def listed(lines: list[socket.socket]) -> None: ...
def many(*lines: socket.socket) -> None: ...
def named(**lines: socket.socket) -> None: ...
def called(function: Callable[[], int]) -> None: ...
def ended(queue: deque[int]) -> None: ...
def number(value: complex) -> None: ...
def dated(order: Order) -> None: ...
def located(path: Path) -> None: ...
def nodes(node: Node) -> None: ...
def plain(number: int, names: list[str], anything: Any, free, thing: object) -> None: ...
def iterated(items: Iterable[int]) -> None: ...
def generated(items: Iterator[int]) -> None: ...


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "name"),
    [
        (connection, ("localhost:80",), {}, "line"),
        (connection, (), {"line": 7, "name": "x"}, "line"),
        (optional, ("x", "localhost:80"), {}, "line"),
        (listed, (["a", "b"],), {}, "lines"),
        (many, ("a",), {}, "lines"),
        (named, (), {"first": "a"}, "lines"),
        (called, ("len",), {}, "function"),
        (ended, ([1],), {}, "queue"),
        (number, (1.5,), {}, "value"),
        (dated, ({"number": 1, "line": "x"},), {}, "order"),
        (located, (7,), {}, "path"),
        (generated, ([1],), {}, "items"),
    ],
)
def test_what_plain_data_cannot_give_is_refused_before_it_is_sent(task, args, kwargs, name):
    with pytest.raises(CodecError, match=f"^argument {name}: "):
        encode(JobSpec(task, args, kwargs))

    with pytest.raises(ArgumentError):
        Signature(task).bind(args, kwargs)


@pytest.mark.parametrize(
    ("task", "args"),
    [
        (optional, ("x",)),
        (optional, ("x", None)),
        (listed, ([],)),
        (many, ()),
        (dated, ({"number": 1},)),
        (dated, (Order(1),)),
        (located, (Path("/a"),)),
        (located, ("/a",)),
        (iterated, ([1, 2],)),
        (nodes, (Node(1, Node(2)),)),
        (plain, (1, ["a"], 1, 2, 3)),
        (plain, ("wrong", 7)),  # the worker says so, as it does to all who name a task only
        (connection, (1, 2, 3, 4)),
    ],
)
def test_what_it_can_give_is_sent(task, args):
    assert encode(JobSpec(task, args)).terms.task.endswith(task.__name__)


def test_a_function_that_asks_for_plain_data_costs_no_check():
    assert demands_of(plain) is None
    assert demands_of(nodes) is None
    assert not Demands(len)


def test_the_worker_says_why_before_the_task_runs():
    with pytest.raises(
        ArgumentError, match=r"argument line: expected `socket`, got `str`; plain data has none.*pickle"
    ):
        Signature(connection).bind(["localhost:80"], {})
