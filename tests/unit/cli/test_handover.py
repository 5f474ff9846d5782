"""`svc manager handover` waits for the standby also while nobody serves; each call has its timeout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from svc.addresses import ManagerAddresses
from svc.broker.local import LocalBroker, LocalQueue
from svc.cli import handover
from svc.cli.program import run
from svc.cli.wiring import Wiring
from svc.domain import commands as c
from svc.domain.replies import Totals
from svc.errors import ManagerUnreachable
from svc.wire import PROTOCOL_VERSION


class LeftBroker(LocalBroker):
    """A connection to a leader that ends; for some calls nobody serves, and then a new leader does."""

    unreached = 0
    ended = False
    successor = "b:7077"

    def hand_over(self) -> None:
        """See `Broker.hand_over`."""
        self.ended = True

    def stats(self) -> Totals:
        """See `Broker.stats`."""
        if not self.ended:
            return Totals([], leader="a:7077")
        self.unreached -= 1
        if self.unreached >= 0:
            raise ManagerUnreachable("it is a standby, and knows no leader at present")
        return Totals([], leader=self.successor)


@pytest.fixture
def handed(queue: LocalQueue, authkey_file: Path, monkeypatch: pytest.MonkeyPatch):
    """Run `svc manager handover` with options; for so many calls nobody serves. Return code and timeouts."""
    monkeypatch.setattr(handover, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(handover, "SERVES_SECONDS", 0.2)

    def call(unreached: int, *options: str) -> tuple[int, list[float]]:
        timeouts: list[float] = []

        def connect(
            address: ManagerAddresses, authkey: bytes, timeout: float, *, tls: object = None
        ) -> LocalBroker:
            timeouts.append(timeout)
            broker = LeftBroker(queue, lambda: c.Hello(PROTOCOL_VERSION, "client"))
            broker.unreached = unreached
            return broker

        unused: Callable[..., int] = lambda settings: 0  # noqa: E731
        return run(("manager", "handover", *options), Wiring(connect, unused, unused)), timeouts

    return call


def test_a_hand_over_has_succeeded_once_the_standby_serves(handed, capfd):
    assert handed(3, "--timeout", "0.01") == (0, [0.01])
    assert capfd.readouterr().out.startswith("a standby leads, after ")


def test_a_hand_over_after_which_the_old_leader_leads_again_has_failed(handed, monkeypatch, capfd):
    monkeypatch.setattr(LeftBroker, "successor", "a:7077")
    assert handed(3)[0] == 6
    assert "no standby has taken the lead; a:7077 leads again" in capfd.readouterr().err


def test_a_hand_over_ends_with_124_if_nobody_serves_in_time(handed, capfd):
    assert handed(1_000_000, "--timeout", "0.01")[0] == 124
    assert "no standby serves after 0.2 s; see the managers' logs" in capfd.readouterr().err


def test_the_time_of_a_call_is_that_of_the_other_commands(handed, monkeypatch):
    assert handed(0)[1] == [10.0]
    monkeypatch.setenv("SVC_TIMEOUT", "5s")
    assert handed(0)[1] == [5.0]
