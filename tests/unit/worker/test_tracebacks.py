"""The traceback of an error as it is sent."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from svc.worker.tracebacks import traceback_of

DEPTH = 2_000


@pytest.fixture(autouse=True)
def deep_stacks() -> Iterator[None]:
    """Let tasks call deeper than usual."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 2 * DEPTH)
    yield
    sys.setrecursionlimit(before)


def _there(depth: int) -> None:
    if not depth:
        raise ValueError("at the bottom")
    _and_back(depth - 1)


def _and_back(depth: int) -> None:
    _there(depth - 1)


def _raised_at(depth: int) -> ValueError:
    with pytest.raises(ValueError, match="at the bottom") as caught:
        _there(depth)
    return caught.value


def test_the_middle_of_a_very_deep_traceback_is_left_out() -> None:
    text = traceback_of(_raised_at(DEPTH))
    assert f"  … {DEPTH + 2 - 205} frames left out …\n" in text
    assert "in _raised_at" in text
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ValueError: at the bottom\n")


def test_a_traceback_of_usual_depth_is_whole() -> None:
    text = traceback_of(_raised_at(40))
    assert "left out" not in text
    assert text.count("in _and_back") == 20


def test_the_error_that_a_deep_one_was_raised_for_is_named() -> None:
    error = _raised_at(DEPTH)
    error.__cause__ = KeyError("the first")
    text = traceback_of(error)
    assert text.startswith("KeyError: 'the first'\n")
    assert "frames left out" in text
