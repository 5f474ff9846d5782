"""Two managers and three NATS servers of deploy/compose.ha.yaml: whatever ends, each job has one result."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.two_managers import MANAGERS, SERVERS, Load, TwoManagers
from tests.support.docker import TWO_MANAGERS, Project, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow]
_PORTS = {"SVC_SECOND_PORT": "0", "SVC_SECOND_HTTP_PORT": "0"}
#: Seconds that a pause may take on a machine that is busy with other tests, and stands still now and then;
#: docs/deploy has the usual ones.
BUSY_SECONDS = 45.0


@pytest.fixture(scope="module")
def service(project: Project, image: str, client) -> Iterator[TwoManagers]:
    name = f"{project.name}-ha"
    environment = {**project.environment, **_PORTS}
    stack = Project(name, environment, (*TWO_MANAGERS, "tests/e2e/compose.e2e.yaml"))
    with stack.reaped() as running:
        running.up("--scale", "worker=1")
        yield TwoManagers(running, client)


def tell(figure: str) -> None:
    """Show a figure, if the test runs with `-s`."""
    sys.stderr.write(f"{figure}\n")


@contextmanager
def every_job_once(service: TwoManagers) -> Iterator[Load]:
    """Load the service for the length of the block; then see that no job is lost, and none recorded twice."""
    before = service.counts()
    with service.load() as load:
        yield load
    assert [number for number, _, _ in load.jobs] == list(range(len(load.jobs)))
    assert len(set(load.ids)) == len(load.ids) > 0
    after = service.counts()
    changes = {state: after[state] - before[state] for state in after}
    assert changes == {**dict.fromkeys(after, 0), "succeeded": len(load.jobs)}


def wait_for_grants_besides(service: TwoManagers, leader: str) -> None:
    """Wait until another manager than *leader* serves, and has handed out jobs."""
    (other,) = set(MANAGERS) - {leader}
    wait_for(lambda: service.ready(other), 90, f"{other} has taken over", every=0.5)
    wait_for(lambda: service.granted(other), 90, f"{other} has handed out a job", every=0.5)


def test_a_killed_leader_is_followed_within_seconds(service):
    leader = service.leader()
    with every_job_once(service) as load:
        died = service.kill(leader)
        wait_for_grants_besides(service, leader)
    seconds = load.first_start_after_death(died)
    tell(f"first new grant {seconds:.2f} s after the kill; {len(load.jobs)} jobs")
    assert seconds < BUSY_SECONDS
    service.start(leader)
    assert not service.ready(leader), "a manager that comes back is a standby"


def test_a_leader_that_is_stopped_hands_over(service):
    leader = service.leader()
    with every_job_once(service) as load:
        service.project.compose("stop", leader)
        wait_for_grants_besides(service, leader)
    tell(f"longest pause {load.longest_pause():.2f} s; {len(load.jobs)} jobs")
    assert load.longest_pause() < BUSY_SECONDS
    assert service.container(leader).attrs["State"]["ExitCode"] == 0
    service.start(leader)


def test_a_killed_nats_server_disturbs_no_client_and_changes_no_leader(service):
    leader, leading = service.leader(), {service.stream_leader(), service.bucket_leader()}
    killed = next(name for name in SERVERS if name not in leading)
    with every_job_once(service) as load:
        service.kill(killed)
        time.sleep(3)
        service.start(killed)
    tell(f"longest pause {load.longest_pause():.2f} s; {len(load.jobs)} jobs")
    assert service.leader() == leader
    assert load.longest_pause() < BUSY_SECONDS


@pytest.mark.long
def test_the_end_of_the_server_that_leads_the_stream_costs_an_election_and_no_error(service):
    leader, killed = service.leader(), service.stream_leader()
    with every_job_once(service) as load:
        service.kill(killed)
        time.sleep(12)
        service.start(killed)
    tell(f"longest pause {load.longest_pause():.2f} s; {len(load.jobs)} jobs")
    assert service.leader() == leader, "an election of NATS alone changes no leading manager"
    assert load.longest_pause() < BUSY_SECONDS


@pytest.mark.long
def test_a_server_that_is_stopped_in_order_gives_up_its_leads_first(service):
    killed = service.stream_leader()
    with every_job_once(service) as load:
        service.project.compose("stop", killed)
        service.start(killed)
    tell(f"longest pause {load.longest_pause():.2f} s; {len(load.jobs)} jobs")
    assert load.longest_pause() < BUSY_SECONDS


@pytest.mark.long
def test_all_servers_killed_and_started_lose_nothing(service):
    with every_job_once(service) as load:
        service.kill(*SERVERS)
        time.sleep(2)
        service.start(*SERVERS)
        service.leader()
        time.sleep(2)
    tell(f"longest pause {load.longest_pause():.2f} s; {len(load.jobs)} jobs")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_takeovers(service):
    """The figure of docs/deploy/high-availability.md; `-s` shows it."""
    seconds = []
    for _ in range(20):
        leader = service.leader()
        with every_job_once(service) as load:
            died = service.kill(leader)
            wait_for_grants_besides(service, leader)
        seconds.append(load.first_start_after_death(died))
        service.start(leader)
    tell(f"first new grant after the kill: {' '.join(f'{each:.2f}' for each in sorted(seconds))} s")
    tell(f"median {statistics.median(seconds):.2f} s")
    assert statistics.median(seconds) < BUSY_SECONDS


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["stop", "handover"])
def test_ten_hand_overs(service, how):
    """The figures of docs/deploy/high-availability.md; `-s` shows them."""
    pauses = []
    for _ in range(10):
        leader = service.leader()
        wait_for(service.has_standby, 90, "there is a standby", every=0.5)
        with every_job_once(service) as load:
            if how == "stop":
                service.project.compose("stop", leader)
            else:
                service.project.cli("manager", "handover")
            wait_for_grants_besides(service, leader)
        pauses.append(load.longest_pause())
        service.start(leader)
    tell(f"longest pause of each hand-over by {how}: {' '.join(f'{each:.2f}' for each in sorted(pauses))} s")
    tell(f"median {statistics.median(pauses):.2f} s")
    assert statistics.median(pauses) < BUSY_SECONDS
