"""A manager that takes no new jobs, as disk or memory is nearly full, and the requests that it takes."""

from __future__ import annotations

from typing import Any

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import refusals
from svc.domain import replies as r
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.server.scarcity import (
    FULL_SHARE,
    REFUSE_SHARE,
    RESUME_SHARE,
    TRIM_SECONDS,
    MemoryWatch,
    Scarcity,
)
from tests.support.asking import chunk

LIMIT = 1000
ABOVE, BETWEEN, BELOW = (
    int(LIMIT * REFUSE_SHARE),
    int(LIMIT * REFUSE_SHARE) - 1,
    int(LIMIT * RESUME_SHARE) - 1,
)


class Memory:
    """Memory in use; some of it the C library has and does not use, some is free inside Python."""

    def __init__(self, used: int = 0, freed: int = 0) -> None:
        self.used, self.freed, self.free_in_python, self.trims = used, freed, 0, 0
        self.limit = LIMIT

    def read(self) -> tuple[int, int]:
        return self.used + self.freed + self.free_in_python, self.limit

    def blocks(self) -> int:
        return self.used * 1000

    def trim(self) -> None:
        self.freed = 0
        self.trims += 1


class Disk(MemoryJournal):
    """A journal on a disk with so much room."""

    free = 1 << 40

    def free_bytes(self) -> int | None:
        return self.free


class Told(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def measured(self, metric: str, value: float, *labels: str) -> None:
        self.told.append((metric.removeprefix("svc_manager_memory_"), value))


def ask(host: QueueHost, *commands: c.Command, member: Member | None = None) -> list[Any]:
    answers: list[r.Reply] = []
    host.call(commands, member or Member(), answers.extend)
    host.turn()
    return answers


def refused(host: QueueHost, number: int) -> tuple[str, str]:
    """Submit a job; return code and message of the refusal, both empty if it was accepted."""
    (accepted,) = ask(host, c.Submit("o", [chunk(number)]))
    return (accepted.notes[0].code, accepted.notes[0].message) if accepted.notes else ("", "")


def test_it_refuses_from_the_upper_mark_until_below_the_lower_one():
    memory = Memory()
    watch = MemoryWatch(memory.read, memory.trim, memory.blocks)
    judged = []
    for used in (BETWEEN, ABOVE, BETWEEN, BELOW, BETWEEN, LIMIT):
        memory.used = used
        watch.look(0.0)
        judged.append(watch.scarce)
    assert judged == [False, True, True, False, False, True]


def test_memory_that_was_freed_and_not_given_back_does_not_count():
    memory = Memory(used=BELOW, freed=LIMIT)
    watch = MemoryWatch(memory.read, memory.trim, memory.blocks)
    watch.look(0.0)
    assert (watch.scarce, watch.used, memory.trims) == (False, BELOW, 1)


def test_it_is_asked_for_freed_memory_now_and_then_only():
    memory = Memory(used=LIMIT)
    watch = MemoryWatch(memory.read, memory.trim, memory.blocks)
    for now in (0.0, 0.5, TRIM_SECONDS - 0.1, TRIM_SECONDS, TRIM_SECONDS + 0.5):
        watch.look(now)
    assert memory.trims == 2


def test_memory_that_is_free_inside_python_is_as_good_as_given_back():
    memory = Memory(used=ABOVE)
    watch = MemoryWatch(memory.read, memory.trim, memory.blocks)
    watch.look(0.0)
    memory.used, memory.free_in_python = 100, ABOVE - 100
    watch.look(0.5)
    assert (watch.scarce, watch.used) == (False, 100)
    memory.used, memory.free_in_python = ABOVE, 0
    watch.look(1.0)
    assert watch.scarce


def test_it_refuses_if_the_process_itself_is_near_the_limit_however_much_is_free_in_it():
    full = int(LIMIT * FULL_SHARE)
    memory = Memory(used=full)
    watch = MemoryWatch(memory.read, memory.trim, memory.blocks)
    watch.look(0.0)
    memory.used, memory.free_in_python = 100, full - 100
    watch.look(0.5)
    assert watch.scarce
    memory.free_in_python -= 1
    watch.look(1.0)
    assert not watch.scarce


@pytest.mark.parametrize("limit", [0, LIMIT * 2])
def test_a_limit_that_is_taken_away_or_raised_refuses_nothing_more(limit):
    memory = Memory(used=LIMIT)
    watch = MemoryWatch(memory.read, memory.trim, memory.blocks)
    watch.look(0.0)
    memory.limit = limit
    watch.look(0.5)
    assert not watch.scarce


def test_new_jobs_are_refused_and_everything_else_goes_on():
    memory, host = Memory(), QueueHost(MemoryJournal(), observer=Told())
    scarcity = Scarcity()
    scarcity.memory = MemoryWatch(memory.read, memory.trim, memory.blocks)
    assert refused(host, 0) == ("", "")
    memory.used = ABOVE
    scarcity.look(host, 0.0)
    code, message = refused(host, 1)
    assert code == "queue_full"
    assert "memory limit" in message
    supervisor, consumer = Member(), Member()
    ask(host, c.Hello(1, "worker", "w"), member=supervisor)
    ask(host, c.Hello(1, "consumer", "w/1", "w", tasks=["m:f"]), member=consumer)
    (grant,) = ask(host, c.Lease(1), member=consumer)
    (delivery,) = grant.deliveries
    assert ask(host, c.Extend(), member=supervisor)
    assert ask(host, c.Ack(delivery.token, 0, [b"r"], [0.1]), member=consumer) == [r.Done(1)]
    (found,) = ask(host, c.Get(["o-0"]))
    assert found.jobs[0].state == "succeeded"
    memory.used = BELOW
    scarcity.look(host, 0.5)
    assert refused(host, 1) == ("", "")
    assert isinstance(host.observer, Told)
    assert [pair for pair in host.observer.told if not pair[0].startswith("svc_")] == [
        *(("bytes", ABOVE), ("limit_bytes", LIMIT), ("refusing", 1)),
        *(("bytes", BELOW), ("limit_bytes", LIMIT), ("refusing", 0)),
    ]


def test_both_reasons_hold_and_go_apart():
    memory, journal = Memory(used=ABOVE), Disk()
    host, scarcity = QueueHost(journal), Scarcity(min_free_bytes=100)
    scarcity.memory = MemoryWatch(memory.read, memory.trim, memory.blocks)
    journal.free = 99
    scarcity.look(host, 0.0)
    assert host.state.refusal == refusals.DISK
    assert refused(host, 0)[0] == "journal_full"
    journal.free = 100
    scarcity.look(host, 0.5)
    assert host.state.refusal == refusals.MEMORY
    memory.used, journal.free = 0, 99
    scarcity.look(host, 1.0)
    assert host.state.refusal == refusals.DISK
    journal.free = 100
    scarcity.look(host, 1.5)
    assert host.state.refusal is None
