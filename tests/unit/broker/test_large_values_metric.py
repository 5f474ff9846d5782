"""The size of all large values as a metric."""

from __future__ import annotations

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.telemetry.metrics import ManagerMetrics
from tests.support.exposition import value


def test_the_size_of_large_values_and_its_bound_are_measured():
    metrics = ManagerMetrics("0", "")
    host = QueueHost(MemoryJournal(), limits=Limits(all_values_bytes=5000, piece_bytes=10), observer=metrics)
    host.call([c.StorePiece("o", 0, 1, 25, 0, bytes(10))], Member(), lambda replies: None)
    host.turn()
    host.look_at_journal()
    assert value(metrics, "svc_large_values_bytes") == 25
    assert value(metrics, "svc_large_values_limit_bytes") == 5000
