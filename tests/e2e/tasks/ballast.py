"""A module that takes 300 MiB, for `--preload`: its pages are charged to no job."""

from __future__ import annotations

from typing import Final

WEIGHT: Final = b"x" * (300 << 20)
