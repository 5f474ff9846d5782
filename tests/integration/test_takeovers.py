"""Two real managers on one stream: hand-overs, kills, and a worker that runs a job meanwhile."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from svc.errors import Deposed
from svc.server.journal.jetstream.candidacy import Candidacy
from svc.server.journal.jetstream.key_bucket import open_bucket
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.leadership import Leadership, Position
from svc.server.journal.jetstream.loop_thread import LoopThread
from tests.support.managers import managers, metrics_of
from tests.support.nats_logs import address_of
from tests.support.nats_servers import NatsCluster, running_nats
from tests.support.workers import until


@pytest.mark.slow
def test_a_hand_over_and_a_kill_lose_nothing_and_a_job_goes_on(tmp_path: Path, nats):
    with managers(tmp_path, nats, "q1") as made:
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        assert [each["durability"] for each in made.events(0, "manager_started")] == ["replicated"]
        second = made.start(1)
        until(lambda: made.ready(1) == (503, f"standby; the leader is {made.listen[0]}\n"), 30)
        made.worker()

        # A client that knows only the standby finds the leader.
        with made.client(1) as client:
            assert client.submit("tests.support.worker_tasks:echo", 3).result(30) == 3

        marked = tmp_path / "marked"
        with made.client(timeout=60) as client:
            running = client.submit("tests.support.worker_tasks:mark", str(marked), 6.0)
            until(marked.exists, 30)
            first.send_signal(signal.SIGTERM)
            client.submit("tests.support.worker_tasks:noop")
            assert first.wait(30) == 0

            first = made.start(0)
            assert made.ready(0)[0] == 503
            # It takes a key that is gone once it has seen the bucket work for a TTL.
            time.sleep(Timing().steady + 1)
            second.kill()
            client.submit("tests.support.worker_tasks:noop")

            running.result(60)
            assert client.submit("tests.support.worker_tasks:echo", 7).result(60) == 7
        assert [line.split()[0] for line in marked.read_text().splitlines()] == ["begin", "end"]


@pytest.mark.slow
def test_an_operator_hands_the_lead_over_if_there_is_a_standby(tmp_path: Path, nats):
    with managers(tmp_path, nats, "q3") as made:
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        refused = made.svc("manager", "handover")
        assert (refused.returncode, first.poll()) == (6, None)
        assert "no standby is there to take the lead" in refused.stderr

        made.start(1)
        until(lambda: made.svc("manager", "handover").returncode == 0, 60)  # once the leader has seen it
        assert first.wait(30) == 0
        assert made.ready(1)[0] == 200


@pytest.mark.slow
def test_no_manager_says_that_there_is_no_worker_after_both_were_killed(tmp_path: Path, nats):
    """To Prometheus, which asks both, an empty list says so, and it drops all of them."""
    with managers(tmp_path, nats, "q7") as made:
        both = made.start(0), made.start(1)
        made.worker(http="127.0.0.1:0")
        until(lambda: any("targets" in made.asked(number, "/sd/workers")[1] for number in (0, 1)), 60)
        for each in both:
            each.kill()
            each.wait(30)

        for number in (0, 1):
            made.start(number)
        said: list[tuple[int, str]] = []

        def listed() -> bool:
            said.extend(made.asked(number, "/sd/workers") for number in (0, 1))
            return any("targets" in text for _, text in said)

        until(listed, 60)
        said.extend(made.asked(number, "/sd/workers") for number in (0, 1))
        assert [answer for answer in said if answer[0] == 200 and "targets" not in answer[1]] == []


@pytest.mark.slow
def test_no_lead_is_handed_over_to_a_manager_that_has_just_ended(tmp_path: Path, nats):
    """Be it a standby that was stopped, or the leader before."""
    with managers(tmp_path, nats, "q6") as made:
        first, second = made.start(0), made.start(1)
        until(lambda: 200 in (made.ready(0)[0], made.ready(1)[0]), 30)
        leader, other = (0, 1) if made.ready(0)[0] == 200 else (1, 0)
        until(lambda: metrics_of(made.http[leader])["svc_manager_standbys"] == 1, 30)

        assert made.svc("manager", "handover").returncode == 0
        assert (first, second)[leader].wait(30) == 0
        at_once = made.svc("manager", "handover")
        assert (at_once.returncode, made.ready(other)[0]) == (6, 200), at_once.stderr

        again = made.start(leader)
        until(lambda: metrics_of(made.http[other])["svc_manager_standbys"] == 1, 30)
        again.send_signal(signal.SIGTERM)
        assert again.wait(30) == 0
        refused = made.svc("manager", "handover")
        assert (refused.returncode, made.ready(other)[0]) == (6, 200), refused.stderr
        assert "no standby is there to take the lead" in refused.stderr


@pytest.mark.slow
def test_no_lead_is_handed_over_to_a_standby_that_has_not_caught_up(tmp_path: Path, nats):
    with managers(tmp_path, nats, "q4") as made:
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        with standby_of(nats, "q4") as standby:
            # It is heard once the leader has seen the standby.
            until(lambda: "has caught up" in made.svc("manager", "handover").stderr, 30)
            refused = made.svc("manager", "handover")
            assert (refused.returncode, first.poll()) == (6, None)
            assert "no standby has caught up with the journal; this manager goes on leading" in refused.stderr
            assert metrics_of(made.http[0])["svc_manager_standbys"] == 0
            assert made.ready(0)[0] == 200

            # The end by a signal does not wait for it, and the key is left for whoever is there.
            first.send_signal(signal.SIGTERM)
            assert first.wait(30) == 0
            assert not standby.led.is_set()
            standby.caught_up = True
            assert standby.led.wait(45)


class Standby:
    """A manager that stands by, and has caught up when a test says so."""

    def __init__(self) -> None:
        self.caught_up = False
        self.led = threading.Event()

    async def run(self, cluster: NatsCluster, name: str) -> None:
        bucket = await open_bucket(address_of(cluster, name), Timing(), replicas=1)
        leadership = Leadership("standby", ("127.0.0.1:1",), now=time.monotonic())
        try:
            await Candidacy(bucket, leadership, self._changed, caught_up=lambda: self.caught_up).run()
        finally:
            await bucket.close()

    def _changed(self, position: Position) -> None:
        if position is Position.LEADER:
            self.led.set()


@contextmanager
def standby_of(cluster: NatsCluster, name: str) -> Iterator[Standby]:
    thread, standby = LoopThread("standby"), Standby()
    thread.start()
    running: list[asyncio.Task[None]] = []
    thread.post(lambda: running.append(asyncio.ensure_future(standby.run(cluster, name))))
    try:
        yield standby
    finally:
        thread.stop()
    assert running[0].cancelled()


@pytest.mark.slow
def test_a_leader_that_was_frozen_ends_as_soon_as_it_sees_its_successor(tmp_path: Path, nats):
    """It has nothing to write, so that no fence would tell it."""
    with managers(tmp_path, nats, "q2") as made:
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.start(1)
        time.sleep(Timing().steady + 1)
        first.send_signal(signal.SIGSTOP)
        until(lambda: made.ready(1)[0] == 200, 30)

        first.send_signal(signal.SIGCONT)

        assert first.wait(30) == Deposed.exit_code
        assert made.ready(1)[0] == 200


@pytest.mark.slow
def test_the_metrics_tell_place_term_standbys_and_whether_the_servers_answer(tmp_path: Path):
    with running_nats(tmp_path / "nats") as server, managers(tmp_path, server, "q3") as made:
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.start(1)
        until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)
        leader, standby = map(metrics_of, made.http)
        role = 'svc_manager_role{role="%s"}'
        assert [leader[role % each] for each in ("leader", "standby")] == [1, 0]
        assert [standby[role % each] for each in ("leader", "standby")] == [0, 1]
        assert (leader["svc_manager_takeovers_total"], standby["svc_manager_takeovers_total"]) == (1, 0)
        assert leader["svc_manager_term"] == standby["svc_manager_term"] == 1
        sure = ("svc_manager_unsure", "svc_journal_unconfirmed_seconds")
        until(lambda: [metrics_of(made.http[0])[each] for each in sure] == [0, 0], 30)
        until(lambda: metrics_of(made.http[1])["svc_journal_lag_messages"] == 0, 30)
        assert made.asked(1, "/sd/workers")[0] == 503

        server.freeze(0)
        until(lambda: metrics_of(made.http[0])["svc_manager_unsure"] == 1, 30)
        server.thaw(0)
        until(lambda: metrics_of(made.http[0])["svc_manager_unsure"] == 0, 30)

        first.send_signal(signal.SIGTERM)
        until(lambda: made.ready(1)[0] == 200, 30)
        until(lambda: metrics_of(made.http[1])[role % "leader"] == 1, 30)
        assert metrics_of(made.http[1])["svc_manager_takeovers_total"] == 1
