"""Two managers in trouble: revoked credentials, a clock that jumps, TLS on all ways, a kill in a takeover."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from svc.app import Client
from svc.errors import Deposed
from svc.server.journal.jetstream.stream_form import permissions, subject_of
from tests.support.certificates import files
from tests.support.faketime import Clock
from tests.support.managers import Managers, managers, metrics_of
from tests.support.nats_servers import NatsOptions, running_nats
from tests.support.privileges import obtained
from tests.support.workers import until

ECHO = "tests.support.worker_tasks:echo"
DAY = 24 * 3600


def user_of(journal: str, *, write: bool = True) -> tuple[str, dict[str, Any]]:
    """Return the password and the permissions of a manager; without *write* it may append nothing."""
    allowed = set(permissions(journal)["publish"]["allow"]) - (set() if write else {subject_of(journal)})
    return "right", {"publish": {"allow": sorted(allowed)}, "subscribe": {"allow": ["_INBOX.>"]}}


def act_as(made: Managers, user: str) -> None:
    """Have the managers that start from now on connect as *user*."""
    file = made.folder / user
    file.write_text(f"{user}:right")
    file.chmod(0o600)
    made.flags = ("--nats-credentials-file", str(file))


def led_with_a_standby(made: Managers) -> None:
    """Wait until manager 0 leads, and counts the other one."""
    until(lambda: made.ready(0)[0] == 200, 30)
    until(lambda: metrics_of(made.http[0])["svc_manager_standbys"] == 1, 30)


@pytest.mark.slow
def test_a_leader_whose_user_is_revoked_is_followed_and_ends_when_it_is_let_in_again(tmp_path: Path):
    users = {"one": user_of("r1"), "two": user_of("r1")}
    with (
        running_nats(tmp_path / "nats", options=NatsOptions(users=users)) as nats,
        managers(tmp_path, nats, "r1") as made,
    ):
        act_as(made, "one")
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        act_as(made, "two")
        made.start(1)
        led_with_a_standby(made)
        made.worker()
        with made.client() as client:
            early = client.submit(ECHO, 1)
            assert early.result(30) == 1

        nats.let_in({"two": users["two"]})
        until(lambda: made.ready(1)[0] == 200, 30)
        with made.client(1, timeout=60) as client:
            assert client.job(early.id).result(30) == 1
            later = client.submit(ECHO, 2)
            until(lambda: made.events(0, "journal_silent") != [], 30)
            assert "authorization" in made.events(0, "journal_silent")[-1]["reason"].lower()
            assert first.poll() is None

            nats.let_in(users)
            assert first.wait(60) == Deposed.exit_code
            assert later.result(60) == 2


@pytest.mark.long
def test_a_leader_whose_user_is_revoked_for_a_while_leads_on(tmp_path: Path):
    users = {"one": user_of("r2"), "operator": ("right", {})}
    with (
        running_nats(tmp_path / "nats", options=NatsOptions(users=users)) as nats,
        managers(tmp_path, nats, "r2") as made,
    ):
        act_as(made, "one")
        leader = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.worker()
        with made.client(0, timeout=60) as client:
            assert client.submit(ECHO, 1).result(30) == 1
            nats.let_in({"operator": users["operator"]})
            until(lambda: metrics_of(made.http[0])["svc_manager_unsure"] == 1, 30)
            nats.let_in(users)
            assert client.submit(ECHO, 2).result(60) == 2
        assert leader.poll() is None
        assert metrics_of(made.http[0])["svc_manager_term"] == 1


@pytest.mark.long
@pytest.mark.parametrize("jump", [2 * DAY, -2 * DAY])
def test_a_clock_that_jumps_changes_no_leader_and_a_successor_holds_its_own(tmp_path: Path, jump: int):
    """That of the leader while it leads, and that of its standby before it takes over."""
    clock = obtained(lambda: Clock(tmp_path / "time_of_day"))
    with running_nats(tmp_path / "nats") as nats, managers(tmp_path, nats, "c") as made:
        plain, made.environment = made.environment, {**made.environment, **clock.environment}
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.start(1)
        made.environment = plain
        led_with_a_standby(made)
        made.worker()
        with made.client() as client:
            delayed = client.options(delay=DAY).submit(ECHO, 0)
            assert client.submit(ECHO, 1).result(30) == 1

            clock.jump(jump)
            assert client.submit(ECHO, 2).result(30) == 2
            assert metrics_of(made.http[0])["svc_manager_standbys"] == 1
            assert made.ready(0)[0] == 200
            assert metrics_of(made.http[0])["svc_manager_term"] == 1

            first.kill()
            until(lambda: made.ready(1)[0] == 200, 30)
            assert client.submit(ECHO, 3).result(60) == 3
            assert client.job(delayed.id).view().state == "scheduled"
        assert [each["held"] for each in made.events(1, "clock_off")] == [True]


@pytest.mark.slow
def test_a_takeover_with_tls_on_all_ways_keeps_a_running_job_and_its_worker(
    tmp_path: Path, certificates: Path
):
    ours, theirs = files(certificates, "manager"), files(certificates, "client")
    with (
        running_nats(tmp_path / "nats", options=NatsOptions(tls=ours)) as nats,
        managers(tmp_path, nats, "t") as made,
    ):
        made.journal = made.journal.replace("nats://", "tls://")
        named = {"cert": theirs.cert, "key": theirs.key, "ca": theirs.ca}
        plain = dict(made.environment)
        made.environment |= {f"SVC_TLS_{name.upper()}": str(path) for name, path in named.items()}
        of_worker, made.environment = (
            made.environment,
            {
                **plain,
                "SVC_TLS_CERT": str(ours.cert),
                "SVC_TLS_KEY": str(ours.key),
                "SVC_TLS_CA": str(ours.ca),
            },
        )
        made.flags = tuple(part for name, path in named.items() for part in (f"--nats-tls-{name}", str(path)))
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.start(1)
        led_with_a_standby(made)
        made.environment = of_worker
        made.worker()
        marked = tmp_path / "marked"
        addresses = ",".join(made.listen)
        with Client(addresses, authkey_file=tmp_path / "authkey", timeout=60, tls=replace(theirs)) as client:
            running = client.submit("tests.support.worker_tasks:mark", str(marked), 5.0)
            until(marked.exists, 30)
            first.kill()
            running.result(90)
            assert client.submit(ECHO, 2).result(60) == 2
        assert made.ready(1)[0] == 200
        assert [line.split()[0] for line in marked.read_text().splitlines()] == ["begin", "end"]


@pytest.mark.long
def test_a_standby_that_is_killed_in_its_takeover_is_followed_by_the_next_one(tmp_path: Path):
    """It has the key, and its term cannot begin."""
    users = {"whole": user_of("k"), "reads": user_of("k", write=False)}
    with (
        running_nats(tmp_path / "nats", options=NatsOptions(users=users)) as nats,
        managers(tmp_path, nats, "k") as made,
    ):
        act_as(made, "whole")
        first = made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        act_as(made, "reads")
        second = made.start(1)
        led_with_a_standby(made)
        with made.client() as client:
            job = client.submit(ECHO, 1)
        first.kill()
        first.wait(10)
        until(lambda: made.events(1, "takeover_begun") != [], 30)
        second.send_signal(signal.SIGKILL)
        second.wait(10)
        assert made.events(1, "lead_taken") == []

        act_as(made, "whole")
        made.start(0)
        until(lambda: made.ready(0)[0] == 200, 30)
        made.worker()
        with made.client() as client:
            assert client.job(job.id).result(60) == 1
        until(lambda: metrics_of(made.http[0])["svc_manager_term"] == 2, 30, "a sample of the term")
