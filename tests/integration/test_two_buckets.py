"""Managers on one stream whose buckets differ, so that none sees the key of the other: one of them leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from svc.errors import Conflict, Deposed
from svc.server.journal.jetstream.stream_form import BUCKET_SUFFIX
from tests.support.managers import managers, metrics_of
from tests.support.nats_logs import asked
from tests.support.workers import until

ECHO = "tests.support.worker_tasks:echo"
MARK = "tests.support.worker_tasks:mark"


#: Writes to a bucket in some three seconds of a leader and its standby: many looks at who follows.
WRITES = 12


@pytest.mark.slow
def test_a_manager_with_another_bucket_ends_and_takes_nothing_from_an_idle_leader(tmp_path: Path, nats):
    with managers(tmp_path, nats, "b1") as made:
        leader = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)

        stranger = made.start_without("bucket", 1)
        assert stranger.wait(60) == Conflict.exit_code

        (told,) = made.events(1, "journal_error")
        assert "it leads in another bucket. This one has written nothing" in told["error"]
        assert made.events(1, "lead_taken") == []
        assert (leader.poll(), made.ready(0)[0]) == (None, 200)
        assert metrics_of(made.http[0])["svc_manager_term"] == 1


@pytest.mark.slow
def test_an_idle_leader_writes_nothing_for_its_own_standby(tmp_path: Path, nats):
    def last(stream: str) -> int:
        return int(asked(nats, f"STREAM.INFO.{stream}", {})["state"]["last_seq"])

    with managers(tmp_path, nats, "b3") as made:
        made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.start(1)
        until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)

        before, bucket = last("b3"), last(f"KV_b3{BUCKET_SUFFIX}")
        until(lambda: last(f"KV_b3{BUCKET_SUFFIX}") >= bucket + WRITES, 60)
        assert last("b3") == before


@pytest.mark.slow
def test_a_leader_deposed_from_another_bucket_says_so_and_does_not_depose_its_successor(tmp_path: Path, nats):
    """It is an earlier release, which does not look who follows it. The next one stays away."""
    with managers(tmp_path, nats, "b2") as made:
        first = made.start_without("followers", 0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.worker()
        marked = tmp_path / "marked"
        with made.client(timeout=60) as client:
            early = client.submit(ECHO, 1)
            assert early.result(30) == 1
            running = client.submit(MARK, str(marked), 8.0)
            until(marked.exists, 30)

            made.start_without("bucket", 1)
            assert first.wait(60) == Deposed.exit_code
            (told,) = made.events(0, "journal_error")
            assert "another manager writes the journal and leads in another bucket" in told["error"]
            assert "the same NATS account and the same release of svc" in told["error"]
            until(lambda: made.ready(1)[0] == 200, 30)

            assert made.start(0).wait(60) == Conflict.exit_code
            assert "it leads in another bucket" in made.events(0, "journal_error")[-1]["error"]
            assert client.job(early.id).result(30) == 1
            running.result(60)
            assert client.submit(ECHO, 2).result(60) == 2
        assert [line.split()[0] for line in marked.read_text().splitlines()] == ["begin", "end"]
        assert metrics_of(made.http[1])["svc_manager_term"] == 2
