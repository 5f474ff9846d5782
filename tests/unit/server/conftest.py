"""The journals on which a manager recovers in place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.broker.journal import Journal
from tests.support.journals import JOURNALS
from tests.support.recovering import EncodingJournal, LateEncodingJournal


@pytest.fixture(params=["memory", "memory-late", "sqlite", "jetstream"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    encoding = {"memory": EncodingJournal, "memory-late": LateEncodingJournal}.get(request.param)
    journal = encoding() if encoding else JOURNALS[request.param](tmp_path).journal
    yield journal
    journal.close()
