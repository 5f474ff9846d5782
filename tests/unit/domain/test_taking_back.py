"""The search for jobs that an idle consumer could run is bounded, and forgets who has gone."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain.members import Member
from svc.domain.scheduling import taking_back
from svc.domain.scheduling.read_ahead import IDLE_SECONDS
from svc.domain.scheduling.taking_back import SERVED_MAX
from tests.support.asking import chunk
from tests.support.clock import FakeClock
from tests.support.hosts import answers, ask
from tests.support.work import instructions_of

WAITS = c.Lease(9, wait=60.0, ahead=0.02, running=True)


def new_host() -> QueueHost:
    host = QueueHost(MemoryJournal(), clock=FakeClock())
    for _ in range(10):
        host.state.run_times.ran("m:f", 1, 0.001)
    answers(host, Member(), c.Hello(1, "worker", "w-0", "w"), c.Extend(takes_back=True))
    return host


@pytest.fixture
def host() -> QueueHost:
    return new_host()


def consumer(host: QueueHost, name: str, task: str = "m:f") -> Member:
    member = Member()
    answers(host, member, c.Hello(1, "consumer", name, "w", tasks=[task]))
    return member


def steps_of_a_look(host: QueueHost, busy: int, task: str) -> int:
    """Return the work of a look while so many consumers hold jobs behind others, and a hundred are idle."""
    members = [consumer(host, f"busy-{number}") for number in range(busy)]
    answers(host, Member(), c.Submit("o", [chunk(0, 8 * busy)]))
    for member in members:
        answers(host, member, WAITS)
        assert member.leased > 1
    state, now = host.state, host.clock.now()
    for number in range(100):
        state.imbalance.note_idle(state, consumer(host, f"idle-{number}", task), now)
    return instructions_of(lambda: taking_back.look(state, now + IDLE_SECONDS))


@pytest.mark.parametrize(("task", "orders"), [("m:f", SERVED_MAX), ("m:g", 0)])
def test_a_look_at_hundreds_of_consumers_takes_no_longer_than_at_dozens(task, orders):
    few, many = new_host(), new_host()

    steps = [steps_of_a_look(few, 30, task), steps_of_a_look(many, 300, task)]

    assert steps[1] < 1.2 * steps[0]
    for host in (few, many):
        (worker,) = host.state.workers.values()
        assert len(worker.take_back) == orders


def test_a_member_that_has_gone_is_forgotten_also_if_nothing_is_taken_back(host):
    for number in range(1000):
        member = consumer(host, f"w-{number}")
        ask(host, member, WAITS)
        answers(host, member, c.Leave())

    assert len(host.state.imbalance.idle) < 100
