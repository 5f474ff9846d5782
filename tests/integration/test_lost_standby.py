"""A hand-over to a standby that is lost in that moment: it says that it is there, and takes nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from svc.app import Client
from svc.errors import Conflict
from svc.server.journal.jetstream.candidacy import STANDBY_PREFIX
from svc.server.journal.jetstream.key_bucket import open_bucket
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.loop_thread import LoopThread
from tests.support.managers import Managers, managers, metrics_of
from tests.support.nats_logs import address_of
from tests.support.nats_servers import NatsCluster
from tests.support.workers import until

#: Seconds between two writes of the ghost; a standby that lives writes each 0.5 s.
EVERY_SECONDS = 0.1


@contextmanager
def ghost(cluster: NatsCluster, journal: str) -> Iterator[None]:
    """Keep up the key of a standby that does nothing else, as of one that is killed in the next moment."""

    async def haunt() -> None:
        bucket = await open_bucket(address_of(cluster, journal), Timing(), replicas=1)
        try:
            while True:
                with suppress(Unanswered):
                    await bucket.put(STANDBY_PREFIX + "ghost", b"")
                await asyncio.sleep(EVERY_SECONDS)
        finally:
            await bucket.close()

    thread = LoopThread("ghost")
    thread.start()
    running: list[asyncio.Task[None]] = []
    thread.post(lambda: running.append(asyncio.ensure_future(haunt())))
    try:
        yield
    finally:
        thread.stop()
    assert running[0].cancelled()


def handed_over(made: Managers) -> str:
    """Call `svc manager handover`, which fails; return its complaint."""
    refused = made.svc("manager", "handover")
    assert refused.returncode == 6, refused.stderr
    return refused.stderr


def handed_over_by(client: Client) -> bool:
    """Ask the leader for a hand-over; return whether it has begun one."""
    try:
        client.hand_over()
    except Conflict:
        return False
    return True


@pytest.mark.slow
def test_an_operator_whose_standby_is_lost_at_the_hand_over_has_the_old_leader_again(tmp_path: Path, nats):
    with managers(tmp_path, nats, "g1") as made:
        leader = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.worker()
        with made.client() as client:
            before = client.submit("tests.support.worker_tasks:echo", 1)
            assert before.result(30) == 1
            with ghost(nats, "g1"):
                until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)

                # On a busy machine the ghost may not be heard in time: a refusal changes nothing.
                until(lambda: "no standby has taken the lead" in handed_over(made), 120)

            assert len(made.events(0, "lead_not_taken")) == 1
            assert leader.poll() is None
            # All is as before: the worker comes back, the state is the same, and it can end.
            assert client.job(before.id).result(30) == 1
            assert client.submit("tests.support.worker_tasks:echo", 2).result(60) == 2
        assert made.ready(0)[0] == 200
        leader.send_signal(signal.SIGTERM)
        assert leader.wait(30) == 0


@pytest.mark.slow
def test_a_leader_that_is_told_to_end_waits_for_no_standby_and_a_restart_leads(tmp_path: Path, nats):
    with managers(tmp_path, nats, "g2") as made:
        leader = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        with ghost(nats, "g2"):
            until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)
            leader.send_signal(signal.SIGTERM)
            assert leader.wait(30) == 0
            assert made.events(0, "lead_handed_over")[-1]["freed"] is True
            assert made.events(0, "lead_not_taken") == []
            made.start(0)
            until(lambda: made.ready(0)[0] == 200, 30)


@pytest.mark.slow
def test_a_signal_ends_a_leader_that_looks_for_its_successor(tmp_path: Path, nats):
    with managers(tmp_path, nats, "g3") as made:
        leader = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        with ghost(nats, "g3"), made.client() as client:
            until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)
            until(lambda: handed_over_by(client), 30)
            until(lambda: made.events(0, "lead_handed_over") != [], 30)
            leader.send_signal(signal.SIGTERM)
            assert leader.wait(30) == 0
