"""A queue host with a journal that counts its commits."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from tests.support.clock import FakeClock
from tests.support.hosts import CountingJournal


@pytest.fixture
def journal() -> CountingJournal:
    return CountingJournal()


@pytest.fixture
def host(journal: CountingJournal) -> QueueHost:
    return QueueHost(journal, clock=FakeClock())
