"""Managers that end, or are told to, at an awkward moment: in the middle of a takeover or of a hand-over."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.server.journal.jetstream.stream_form import permissions, subject_of
from tests.support.managers import Managers, managers, metrics_of
from tests.support.nats_servers import NatsCluster, NatsOptions, running_nats
from tests.support.workers import until

JOURNALS = ("e1", "e2", "e3", "e4")


def rights(*, write: bool) -> dict[str, Any]:
    """Return the permissions of a manager on all journals of this module; without *write* on no stream."""
    all_of_them = [permissions(name)["publish"]["allow"] for name in JOURNALS]
    streams = set() if write else set(map(subject_of, JOURNALS))
    allowed = sorted({subject for subjects in all_of_them for subject in subjects} - streams)
    return {"publish": {"allow": allowed}, "subscribe": {"allow": ["_INBOX.>"]}}


@pytest.fixture(scope="module")
def nats(tmp_path_factory) -> Iterator[NatsCluster]:
    users = {"whole": ("right", rights(write=True)), "reads": ("right", rights(write=False))}
    with running_nats(tmp_path_factory.mktemp("nats"), options=NatsOptions(users=users)) as cluster:
        yield cluster


def act_as(made: Managers, user: str) -> None:
    """Have the managers that start from now on connect as *user*."""
    file = made.folder / user
    file.write_text(f"{user}:right")
    file.chmod(0o600)
    made.flags = ("--nats-credentials-file", str(file))


@pytest.mark.slow
def test_a_takeover_that_gets_no_further_says_why_and_ends_in_order(tmp_path: Path, nats):
    """It has the key, and may write nothing into the stream: the key has to become free for another one."""
    with managers(tmp_path, nats, "e1") as made:
        act_as(made, "reads")
        hindered = made.start(0)
        until(lambda: made.events(0, "journal_silent") != [], 30)
        told = made.events(0, "journal_silent")[0]
        assert 'permissions violation for publish to "svc.journal.e1"' in told["reason"]
        assert made.asked(0, "/livez") == (200, "ok\n")
        assert "permissions violation" in made.ready(0)[1]
        assert made.asked(0, "/sd/workers")[0] == 503
        until(lambda: metrics_of(made.http[0])["svc_journal_unconfirmed_seconds"] > 3, 30)

        act_as(made, "whole")
        made.start(1)
        hindered.send_signal(signal.SIGTERM)
        assert hindered.wait(30) == 0
        assert made.events(0, "lead_handed_over")[0]["freed"] is True
        until(lambda: made.ready(1)[0] == 200, 30)
        # The key was free, by one whose term had not begun: that proves nothing about the leader before.
        assert made.events(1, "takeover_begun")[0]["freed"] is False
        until(lambda: metrics_of(made.http[1])["svc_manager_term"] == 1, 30)


def impatient(leader: subprocess.Popen[bytes], made: Managers) -> bool:
    """Send the signal once more unless the lead is handed over; return whether it is."""
    if made.events(0, "lead_handed_over"):
        return True
    leader.send_signal(signal.SIGTERM)
    return False


@pytest.mark.slow
def test_signals_do_not_disturb_a_hand_over_and_the_next_leader_has_the_newest_keys(tmp_path: Path, nats):
    """As of `svc manager handover`, then `docker stop`, then an impatient operator."""
    with managers(tmp_path, nats, "e2") as made:
        act_as(made, "whole")
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        second = made.start(1)
        until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)
        (tmp_path / "authkey").write_text("n" * 40)
        second.send_signal(signal.SIGHUP)

        first.send_signal(signal.SIGTERM)
        until(lambda: first.poll() is not None or impatient(first, made), 45)
        # The last signal may come after the hand-over, when the process has given its signals back.
        assert first.wait(30) in (0, -signal.SIGTERM)
        assert made.events(0, "lead_handed_over")[0]["freed"] is True
        until(lambda: made.ready(1)[0] == 200, 30)
        (begun,) = made.events(1, "takeover_begun")
        assert begun["freed"] is True
        with made.client() as client:
            assert client.submit("tests.support.worker_tasks:noop").id
