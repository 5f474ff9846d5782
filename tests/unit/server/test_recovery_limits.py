"""A recovery that is refused, or that leaves a report."""

from __future__ import annotations

import gc
import json
import stat
import weakref

import pytest

from svc.broker.broken import Place, StateBroken
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.members import Member
from svc.errors import ManagerBroken, ManagerUnreachable
from svc.server.fault_reports import REPORTS_MAX, FaultReports, describe
from svc.server.recovery import WINDOW_SECONDS, Recovery
from tests.support import broken_manager
from tests.support.broken_manager import RAISES
from tests.support.recovering import (
    SECRET,
    submit,
)


@pytest.fixture(autouse=True)
def _faults(monkeypatch: pytest.MonkeyPatch) -> None:
    broken_manager.replaced(monkeypatch)


class Watch:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def broken_host() -> tuple[QueueHost, StateBroken]:
    host = QueueHost(MemoryJournal())
    with pytest.raises(StateBroken) as caught:
        host.call([submit(RAISES, body=SECRET.encode())], Member(), lambda replies: None)
    return host, caught.value


def test_the_third_recovery_within_a_minute_is_none():
    watch = Watch()
    recovery = Recovery(clock=watch)
    host, broken = broken_host()
    for _ in range(2):
        recovery.discard(host, broken)
        recovery.recover(host)
        watch.now += WINDOW_SECONDS / 2 - 1

    with pytest.raises(ManagerBroken, match="3 times in 60 s"):
        recovery.discard(host, broken)


def test_a_fault_now_and_then_is_recovered_from_for_ever():
    watch = Watch()
    recovery = Recovery(clock=watch)
    host, broken = broken_host()
    for _ in range(20):
        recovery.discard(host, broken)
        recovery.recover(host)
        watch.now += WINDOW_SECONDS / 2


def test_the_old_state_is_free_before_the_journal_is_read():
    host, broken = broken_host()
    old = weakref.ref(host.state.ledger)
    seen: list[object] = []
    journal = host.journal
    replay = journal.replay

    class Spy(MemoryJournal):
        def replay(self):
            seen.append(old())
            return replay()

    host.journal = Spy()
    recovery = Recovery()
    recovery.discard(host, broken)
    del broken
    recovery.recover(host)

    assert seen == [None]
    assert gc.isenabled()


def test_a_queue_in_this_process_that_breaks_is_closed():
    queue = LocalQueue()
    broker = LocalBroker(queue)
    broker.call([submit("m:f")])

    with pytest.raises(ManagerBroken, match="closed"):
        broker.call([submit(RAISES, 1)])
    with pytest.raises(ManagerUnreachable):
        broker.call([c.Ping()])


def test_a_report_says_where_and_by_whom_and_nothing_of_a_jobs_content(tmp_path):
    host, broken = broken_host()
    command = c.Submit(
        "origin-1",
        [NewChunk(7, Terms("m:secretive", "bulk"), [SECRET.encode()] * 30, key=SECRET) for _ in range(12)],
    )
    nack = c.Nack(1, 2, ErrorInfo("ValueError", SECRET, SECRET, SECRET.encode()))
    ack = c.Ack(1, 2**200, [SECRET.encode()], [float("nan")])
    reports = FaultReports(tmp_path / "faults", sqlite="3.0")
    for asked in (command, nack, ack):
        error = KeyError(SECRET)
        error.__cause__ = broken.error
        fault = StateBroken(Place.REQUEST, error, asked, Member("consumer", "w-1"))
        reports.write(describe(fault, host))
    written = [json.loads(path.read_text()) for path in sorted((tmp_path / "faults").iterdir())]

    assert not any(SECRET in path.read_text() for path in (tmp_path / "faults").iterdir())
    told = written[0]
    assert [error["type"] for error in told["errors"]] == ["KeyError", "RuntimeError"]
    assert any("broken_manager.py" in frame for frame in told["errors"][1]["at"])
    assert (told["command"]["type"], told["command"]["origin"], told["role"]) == (
        "Submit",
        "origin-1",
        "consumer",
    )
    chunk = told["command"]["chunks"][0]
    assert (chunk["terms"]["task"], chunk["terms"]["queue"]) == ("m:secretive", "bulk")
    assert chunk["bodies"][0] == f"{len(SECRET)} bytes"
    assert chunk["key"] == f"text of {len(SECRET)} characters"
    assert told["command"]["chunks"][-1] == "and 2 more"
    assert written[2]["command"]["first"] == "number of 201 bits"
    assert told["jobs"]["ready"] == 1
    assert {"time", "release", "python", "platform", "sqlite", "incarnation", "last_sequence"} <= told.keys()
    assert told["limits"]["max_queue_jobs"] == host.state.limits.max_queue_jobs


def test_reports_are_for_this_user_alone_and_only_the_newest_are_kept(tmp_path):
    reports = FaultReports(tmp_path / "faults")
    written = [reports.write({"place": "request"}) for _ in range(REPORTS_MAX + 3)]

    assert sorted((tmp_path / "faults").iterdir()) == written[3:]
    assert stat.S_IMODE((tmp_path / "faults").stat().st_mode) == 0o700
    assert stat.S_IMODE(written[-1].stat().st_mode) == 0o600


def test_a_report_that_cannot_be_written_keeps_nobody_from_recovering(tmp_path):
    (tmp_path / "faults").write_text("a file is in the way")
    host, broken = broken_host()
    recovery = Recovery(FaultReports(tmp_path / "faults"))

    recovery.discard(host, broken)
    recovery.recover(host)

    refusal = host.blocklist.refusal(submit(RAISES, body=SECRET.encode()), inside=False)
    assert refusal is not None
    assert "log tells more" in refusal.message
