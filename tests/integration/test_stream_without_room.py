"""A stream whose NATS server has reached its limit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from svc.app import Client
from svc.errors import JournalFull
from tests.support.managers import managers, metrics_of
from tests.support.nats_servers import NatsOptions, running_nats
from tests.support.workers import until

MEBIBYTE = 1 << 20


def submitted_until_full(client: Client) -> list[str]:
    """Submit jobs of 100 kB one after the other until one is refused; return those before it."""
    accepted: list[str] = []
    with suppress(JournalFull):
        while len(accepted) < 700:
            accepted.append(client.submit("tests.support.worker_tasks:length", b"x" * 100_000).id)
    return accepted


@pytest.mark.slow
def test_new_jobs_are_refused_before_the_stream_is_full_and_outcomes_are_taken(tmp_path: Path):
    """At its limit the stream would take neither outcomes nor purges, and stand still."""
    options = NatsOptions(tells_settings=True, max_file=64 * MEBIBYTE)
    with running_nats(tmp_path / "nats", options=options) as nats, managers(tmp_path, nats, "q") as made:
        credentials = tmp_path / "told"
        credentials.write_text("told:right")
        credentials.chmod(0o600)
        made.flags = ("--nats-credentials-file", str(credentials), "--min-free", "40MiB")
        made.flags += ("--retain-count", "0")
        leader = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        until(lambda: 0 < metrics_of(made.http[0])["svc_journal_free_bytes"] < 65 * MEBIBYTE, 30)
        with made.client() as client:
            accepted = submitted_until_full(client)
            assert 200 < len(accepted) < 640
            until(lambda: metrics_of(made.http[0])["svc_journal_refusing"] == 1, 30)
            made.worker()
            # Outcomes are taken, the jobs are forgotten and purged, so that there is room again.
            until(lambda: metrics_of(made.http[0])["svc_journal_refusing"] == 0, 60)
            client.submit("tests.support.worker_tasks:noop").result(30)
        told = [each["full"] for each in made.events(0, "journal_space")]
        assert (told[0], told[-1]) == (True, False)
        assert leader.poll() is None
