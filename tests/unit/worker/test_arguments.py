from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
import pytest

from svc.errors import ArgumentError
from svc.worker.arguments import Signature

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Size(msgspec.Struct):
    width: int


class Shape(Protocol):
    def area(self) -> float: ...


class Opaque:
    pass


def everything(a: int, b: list[int], *rest: float, flag: bool = False, **named: str) -> None: ...
def typed(point: Point, size: Size, when: dt.datetime, choice: Literal["s", "m"]) -> None: ...
def untyped(a, b=2, /, c=3): ...
def odd(a: OnlyForCheckers, b: Shape, c: int | Opaque, d: Callable[[], int]) -> None: ...


def bind(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    args_, kwargs_ = Signature(function).bind(list(args), kwargs)
    return list(args_), kwargs_


def test_arguments_that_fit_come_through() -> None:
    assert bind(everything, 1, [2], 3.5, flag=True, x="y") == ([1, [2], 3.5], {"flag": True, "x": "y"})


def test_plain_data_becomes_what_the_annotations_say() -> None:
    (point, size, when, choice), _ = bind(typed, {"x": 1}, {"width": 2}, "2026-01-02T03:04:05Z", "m")
    assert (point, size, choice) == (Point(1), Size(2), "m")
    assert when == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def test_whole_numbers_are_taken_where_fractions_are_asked_for() -> None:
    (*_, rest), _ = bind(everything, 1, [2], 3)
    assert type(rest) is float


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("1", []), {}, "argument a: expected `int`, got `str`"),
        ((True, []), {}, "argument a: expected `int`, got `bool`"),
        ((1, [2, "x"]), {}, r"argument b\[1\]: expected `int`, got `str`"),
        ((1, [], 2.0, "x"), {}, r"argument rest\[1\]|argument rest"),
        ((1, []), {"flag": 1}, "argument flag"),
        ((1, []), {"other": 1}, "argument named"),
        ((1,), {}, "'b'"),
        ((), {}, "'a'"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_its_parameter(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        bind(everything, *args, **kwargs)


def test_without_annotations_anything_goes_but_the_number() -> None:
    assert bind(untyped, "x", None, c=[]) == (["x", None], {"c": []})
    with pytest.raises(ArgumentError, match="too many positional"):
        bind(untyped, 1, 2, 3, 4)
    with pytest.raises(ArgumentError, match="'a'"):
        bind(untyped)


def test_annotations_that_cannot_be_used_let_arguments_through() -> None:
    """A name for type checkers only, a protocol, a union that msgspec does not support."""
    assert bind(odd, "1.5", 2, 3, len) == (["1.5", 2, 3, len], {})


def test_one_annotation_that_cannot_be_resolved_does_not_disable_the_others() -> None:
    def mixed(a: OnlyForCheckers, b: int) -> None: ...

    with pytest.raises(ArgumentError, match="argument b"):
        bind(mixed, 1, "x")


def test_an_instance_is_accepted_for_its_class() -> None:
    thing = Opaque()

    def takes(it: Opaque) -> None: ...

    assert bind(takes, thing) == ([thing], {})
    with pytest.raises(ArgumentError, match="argument it: expected `Opaque`, got `dict`"):
        bind(takes, {})


def test_a_wrapped_function_is_checked_by_its_own_annotations() -> None:
    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    with pytest.raises(ArgumentError, match="argument a"):
        bind(wrap(everything), "1", [])


def test_a_callable_without_a_signature_takes_anything() -> None:
    assert bind(max, 1, x=2) == ([1], {"x": 2})


def test_defaults_need_not_fit_their_annotation() -> None:
    def lax(a: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013 - seen in the wild

    assert bind(lax) == ([], {})


def test_an_error_of_a_dataclass_is_an_argument_error() -> None:
    @dataclasses.dataclass
    class Even:
        x: int

        def __post_init__(self) -> None:
            if self.x % 2:
                raise LookupError("odd")

    def takes(even: Even) -> None: ...

    takes.__annotations__["even"] = Even
    with pytest.raises(ArgumentError, match="odd"):
        bind(takes, {"x": 1})


def test_arguments_may_be_left_as_they_are() -> None:
    """As for a pickled job, whose arguments are the sender's objects and not data."""
    assert Signature(everything).bind(["1", 2], {}, convert=False) == (["1", 2], {})
    with pytest.raises(ArgumentError):
        Signature(everything).bind([], {}, convert=False)
