"""Very many suspects whose worker is lost at once are judged over several looks (T7)."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import suspicion, upkeep
from svc.domain.lifecycle import JobState
from svc.domain.members import RECONNECT_GRACE, Member
from svc.domain.suspicion import TOGETHER_SECONDS
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import chunk

JOBS = 12


def hold_all(host: QueueHost, workers: int, life: int) -> None:
    """Let a consumer take the job of each queue, and lose all of them at once."""
    consumers = [Member() for _ in range(JOBS)]
    for number, member in enumerate(consumers):
        worker, queue = f"w-{number % workers}", f"q-{number}"
        hello = c.Hello(
            PROTOCOL_VERSION, "consumer", f"c-{number}", worker, tasks=["m:f"], queues=[queue], life=life
        )
        host.call((hello, c.Lease(1)), member, lambda replies: None)
    host.turn()
    assert len(host.state.leases) == JOBS
    for member in consumers:
        host.disconnected(member)


@pytest.mark.parametrize("most", [1, 5, JOBS])
@pytest.mark.parametrize("workers", [1, 2, JOBS])
def test_a_look_concludes_a_bounded_number_of_trials_and_the_next_ones_the_rest(monkeypatch, most, workers):
    """1,500 of them took 55 ms of the manager's loop in one turn, and twice as many twice as long."""
    monkeypatch.setattr(suspicion, "JUDGED_MAX", most)
    host = QueueHost(MemoryJournal())
    jobs = [chunk(number, queue=f"q-{number}") for number in range(JOBS)]
    host.call((c.Submit("o", jobs),), Member(), lambda replies: None)
    host.turn()
    now = host.clock.now()
    hold_all(host, workers, 1)
    now += RECONNECT_GRACE + 1.0
    upkeep.tick(host.state, now)  # they are suspects from now on
    assert not host.state.leases
    hold_all(host, workers, 2)
    now += RECONNECT_GRACE + 1.0
    upkeep.tick(host.state, now)
    on_trial = len(host.state.leases)
    assert on_trial == JOBS
    now += TOGETHER_SECONDS
    while host.state.leases:
        assert on_trial - len(host.state.leases) in (0, most, on_trial % most)
        on_trial = len(host.state.leases)
        upkeep.tick(host.state, now)
        now += 10 * TOGETHER_SECONDS  # however late the others are
    records = [each.records[0].suspicions for each in host.state.ledger.chunks.values()]
    # Those of several workers were lost together, which charges nobody.
    assert records == [int(workers == 1)] * JOBS
    assert all(each.state(0) is JobState.READY for each in host.state.ledger.chunks.values())
