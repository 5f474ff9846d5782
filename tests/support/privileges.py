"""Requirements of a test that the host may not meet: mostly root."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def obtained(make: Callable[[], T]) -> T:
    """Return the result of *make*, which needs root or a tool: CI must have it, a laptop need not."""
    try:
        return make()
    except OSError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
