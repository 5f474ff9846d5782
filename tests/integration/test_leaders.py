"""Clients and workers find the leader by way of a standby, over real sockets."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from svc.broker import lookups, manager
from svc.broker.manager import ManagerBroker
from svc.errors import AuthenticationFailed, ManagerUnreachable
from svc.first_answer import Target, resolved
from svc.server.keys import KeyRing
from svc.server.manager import listen
from svc.server.standby import StandbyListener
from tests.support.certificates import files
from tests.support.manager import running_manager
from tests.support.networks import dropping

At = tuple[str, int]
#: Seconds within which a leader is found; an attempt that waits for an answer takes longer, see `patient`.
SOON = 25.0


class Standby:
    """A standby that names what a test says."""

    def __init__(self, tls=None) -> None:
        listener = listen("127.0.0.1", 0)
        self.at: At = listener.getsockname()[:2]
        self.leader: tuple[str, ...] = ()
        self.asked = 0
        self._listener = StandbyListener(listener, self._named, tls)
        self._listener.start()

    def _named(self) -> tuple[str, ...]:
        self.asked += 1
        return self.leader

    def names(self, *ats: At) -> None:
        self.leader = tuple(f"{host}:{port}" for host, port in ats)

    def close(self) -> None:
        self._listener.stop().close()


@contextmanager
def standbys(number: int = 1, tls=None) -> Iterator[list[Standby]]:
    made = [Standby(tls) for _ in range(number)]
    try:
        yield made
    finally:
        for each in made:
            each.close()


@pytest.fixture
def leader():
    with running_manager() as running:
        yield running


@pytest.fixture
def patient(monkeypatch) -> float:
    """Let an attempt to connect wait for longer than any busy machine needs; return the timeout of a call."""
    monkeypatch.setattr(manager, "CONNECT_SECONDS", 60.0)
    return 60.0


def test_a_client_that_knows_only_a_standby_finds_the_leader(leader, patient):
    with standbys() as (standby,), ManagerBroker(standby.at, leader.authkey, timeout=patient) as broker:
        standby.names(leader.endpoint)
        begun = time.monotonic()
        assert broker.connect().version
        assert time.monotonic() - begun < SOON


def test_among_several_addresses_the_leader_is_found_without_a_pause(leader):
    with standbys(2) as both:
        ats = [each.at for each in both] + [leader.endpoint]
        with ManagerBroker(ats, leader.authkey) as broker:
            assert broker.connect().version


def test_a_standby_that_names_a_dead_host_is_soon_asked_again(leader, patient):
    """Until the key of a lost leader vanishes, its standby names it; nobody is to wait for it meanwhile."""
    with (
        standbys() as (standby,),
        dropping() as dead,
        ManagerBroker(standby.at, leader.authkey, timeout=patient) as broker,
    ):
        standby.names(dead)
        takeover = threading.Timer(0.5, standby.names, [leader.endpoint])
        takeover.start()
        begun = time.monotonic()
        assert broker.connect().version
        assert time.monotonic() - begun < SOON
        takeover.join()


def test_with_tls_the_question_goes_after_the_handshake(certificates):
    manager_files = files(certificates, "manager")
    with running_manager(tls=manager_files) as leader, standbys(tls=manager_files.server_context()) as made:
        made[0].names(leader.endpoint)
        broker = ManagerBroker(made[0].at, leader.authkey, tls=files(certificates, "client"))
        with broker:
            assert broker.connect().version


def test_a_leader_that_has_another_key_is_not_served(leader):
    with standbys() as (standby,):
        standby.names(leader.endpoint)
        with (
            ManagerBroker(standby.at, secrets.token_bytes(16), timeout=20) as broker,
            pytest.raises(AuthenticationFailed, match="refused the authkey"),
        ):
            broker.connect()


def test_a_lie_leads_one_hop_and_no_further(leader):
    """The second one would name the leader, but nobody asks it: the first has named it."""
    with standbys(2) as (first, second):
        first.names(second.at)
        second.names(leader.endpoint)
        with (
            ManagerBroker(first.at, leader.authkey, timeout=3) as broker,
            pytest.raises(ManagerUnreachable),
        ):
            broker.connect()
        # The listener asks once for the log of each connection that it turned away, and never for an answer.
        assert second.asked > 0
        assert first.asked > 0


def error_of(*standbys: Standby, said: str) -> str:
    """Return the error of a call, which says *said*; its last attempt may be cut off, so try again."""
    for _ in range(5):
        with (
            ManagerBroker([each.at for each in standbys], b"k" * 16, timeout=1) as broker,
            pytest.raises(ManagerUnreachable) as caught,
        ):
            broker.connect()
        if said in str(caught.value):
            break
    return str(caught.value)


def test_the_error_names_the_standby_and_the_leader():
    with standbys() as (standby,):
        standby.names(("127.0.0.1", 1))
        error = error_of(standby, said="127.0.0.1:1: [Errno 111] Connection refused")

    assert f"127.0.0.1:{standby.at[1]}: it is a standby; the leader is 127.0.0.1:1" in error
    assert "127.0.0.1:1: [Errno 111] Connection refused" in error
    assert "no challenge" not in error


def test_a_standby_that_knows_no_leader_says_so():
    with standbys() as (standby,):
        error = error_of(standby, said="knows no leader at present")
    assert "it is a standby, and knows no leader at present" in error
    assert "is it running" not in error


def test_a_leader_at_an_address_of_another_network_is_to_be_named_in_the_flag():
    with standbys() as (standby,):
        standby.leader = ("manager-2.invalid:7077",)
        error = error_of(standby, said="name all managers in --manager")
    assert "it is a standby; the leader is manager-2.invalid:7077" in error
    assert error.endswith(
        "from here nothing answers at manager-2.invalid:7077; name all managers in --manager"
    )


def test_a_lost_leader_whose_address_was_named_in_the_flag_is_to_be_tried_again():
    with standbys(2) as (first, second):
        first.names(second.at)
        error = error_of(first, second, said="a standby leads within seconds")
    assert error.endswith("if the leader is lost, a standby leads within seconds: try again")


def test_a_leader_is_forgotten_once_it_is_not_reachable():
    with standbys() as (standby,):
        with running_manager() as first:
            standby.names(first.endpoint)
            broker = ManagerBroker(standby.at, first.authkey, timeout=30)
            assert broker.connect().version
        with running_manager(keys=KeyRing.of_authkey(first.authkey)) as second:
            standby.names(second.endpoint)
            assert broker.connect().version
            assert broker.reconnects == 1
            broker.close()


@pytest.mark.parametrize("named", [("",), ("no address",), ("x" * 300 + ":1",), ("127.0.0.1:0",)])
def test_an_answer_that_is_no_address_leads_nowhere(named):
    with standbys() as (standby,):
        standby.leader = named
        with (
            ManagerBroker(standby.at, b"k" * 16, timeout=1) as broker,
            pytest.raises(ManagerUnreachable),
        ):
            broker.connect()


def test_a_name_in_the_answer_is_looked_up_without_blocking_the_dial(leader):
    with standbys() as (standby,), ManagerBroker(standby.at, leader.authkey) as broker:
        standby.leader = (f"localhost:{leader.endpoint[1]}",)
        assert broker.connect().version


@pytest.mark.parametrize("known", [1, 2])
def test_a_name_whose_look_up_takes_long_keeps_nobody_from_the_next_leader(
    leader, patient, monkeypatch, known
):
    """A standby names the leader that hands over, perhaps by a name of another network."""
    answered = threading.Event()

    def slow(host: str, port: int) -> list[Target]:
        if host == "manager-1.invalid":
            answered.wait(2 * patient)
        return resolved(host, port)

    monkeypatch.setattr(lookups, "resolved", slow)
    with standbys(known) as both:
        for each in both:
            each.leader = ("manager-1.invalid:7077",)
        with ManagerBroker([each.at for each in both], leader.authkey, timeout=patient) as broker:
            takeovers = [threading.Timer(0.3, each.names, [leader.endpoint]) for each in both]
            for takeover in takeovers:
                takeover.start()
            begun = time.monotonic()
            assert broker.connect().version
            assert time.monotonic() - begun < SOON
            for takeover in takeovers:
                takeover.join()
    answered.set()
