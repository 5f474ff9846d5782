"""Journals of every kind, for the suite that each of them has to pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.journals import Kept, in_file, in_memory


@pytest.fixture(params=["memory", "os", "fsync"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    kept = in_memory() if request.param == "memory" else in_file(tmp_path / "j.db", request.param)
    yield kept
    kept.journal.close()
