"""What a test needs of the host and may not get: root, mostly."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def obtained(make: Callable[[], T]) -> T:
    """Return what takes root or a tool; CI has it, and a laptop need not."""
    try:
        return make()
    except OSError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
