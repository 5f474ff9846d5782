"""One NATS server of three is lost under a steady load: how long no job starts, and who leads afterwards."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.support.lost_servers import BUCKET, Servers, servers_of
from tests.support.replicated_service import JOURNAL

#: The length of a load after a loss: an election of NATS takes 4 to 9 s.
ELECTION_SECONDS = 11.0
ROUNDS = 10
#: Bound on the shortest pause of so many tries; each may be longer if the machine is busy with other tests.
#: The medians have bounds of their own.
BUSY_SECONDS, TRIES = 1.8, 4


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Servers]:
    with servers_of(tmp_path_factory.mktemp("lost")) as running:
        yield running


@dataclass(frozen=True)
class Loss:
    """A server that is lost.

    Attributes:
        choose: puts the roles in their places, and returns the server.
        most: the bound on the median of the pauses, besides NATS' election of the stream, in seconds.
        in_order: whether it is stopped by lame duck mode, and not killed.
        seconds: the length of the load after it.
    """

    choose: Callable[[Servers], int]
    most: float
    in_order: bool = False
    seconds: float = ELECTION_SECONDS


def idle(servers: Servers) -> int:
    """Return a server that leads nothing, and that the leading manager does not use."""
    (unused, *_) = set(range(3)) - servers.connected
    used = next(iter(servers.connected))
    servers.lead(JOURNAL, used)
    servers.lead(BUCKET, used)
    return unused


def connected(servers: Servers) -> int:
    """Return a server that the leading manager uses, and that leads nothing."""
    (used, *_) = servers.connected
    servers.lead(JOURNAL, (used + 1) % 3)
    servers.lead(BUCKET, (used + 1) % 3)
    return used


def leads_bucket(servers: Servers) -> int:
    """Return a server that leads the bucket alone."""
    servers.lead(JOURNAL, 0)
    servers.lead(BUCKET, 1)
    return 1


def leads_stream(servers: Servers) -> int:
    """Return the server that leads the stream."""
    return servers.cluster.wait_leader(JOURNAL)


LOSSES = {
    "idle": Loss(idle, 1.0, seconds=3.0),
    "connected": Loss(connected, 1.0, seconds=3.0),
    "leads the bucket": Loss(leads_bucket, 1.0),
    "leads the stream, in order": Loss(leads_stream, 1.5, in_order=True, seconds=5.0),
    "leads the stream": Loss(leads_stream, 1.0),
}


def tell(what: str, pauses: list[float]) -> None:
    """Show figures, if the test runs with `-s`."""
    middle = statistics.median(pauses)
    sys.stderr.write(f"{what}: median {middle:.2f}, {min(pauses):.2f} to {max(pauses):.2f} s\n")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["leads the bucket", "leads the stream, in order"])
def test_a_lost_server_that_leads_no_log_for_long_is_hardly_noticed(servers: Servers, name: str):
    loss, told = LOSSES[name], []
    for _ in range(TRIES):
        before = servers.takeovers
        # The key keeps a leader valid for 2.5 s; an election of the bucket takes at least 4.
        pause = servers.pause(loss.choose(servers), 4.5, in_order=loss.in_order)
        if pause.seconds < BUSY_SECONDS and servers.takeovers == before:
            return
        told.append((pause, servers.takeovers - before))
    pytest.fail(f"each of {TRIES} losses was noticed: {told}")


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", LOSSES)
def test_ten_lost_servers(servers: Servers, name: str):
    """The figures of docs/deploy/high-availability.md; `-s` shows them."""
    loss, before = LOSSES[name], servers.takeovers
    pauses = []
    for _ in range(ROUNDS):
        pause = servers.pause(loss.choose(servers), loss.seconds, in_order=loss.in_order)
        pauses.append(pause)
        sys.stderr.write(f"{name}: {pause}\n")
    tell(f"{name}, in all", [pause.seconds for pause in pauses])
    own = [pause.seconds - pause.election for pause in pauses]
    tell(f"{name}, besides NATS' election of the stream", own)
    assert servers.takeovers == before, "the loss of a server changes no leading manager"
    assert statistics.median(own) < loss.most
