"""Several addresses of one manager: the first that answers wins, over real sockets."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from svc.broker.manager import ManagerBroker
from svc.errors import AuthenticationFailed, BadRequest, ManagerUnreachable
from svc.first_answer import SILENCE_SECONDS, STAGGER_SECONDS, Target, interleaved
from tests.support.certificates import files
from tests.support.manager import RunningManager, running_manager
from tests.support.networks import dropping
from tests.support.svc import Host, end, until

At = tuple[str, int]
#: Seconds that a dial may take here if no address has to be waited for; the host may be busy. The timeout of
#: a call is much longer.
SOON, TIMEOUT = 20.0, 60.0


class Listener:
    """A socket that listens on a port, and notes when connections come; it says *greeting*, if any."""

    def __init__(self, greeting: bytes | None = b"", at: At = ("127.0.0.1", 0)) -> None:
        self.times: list[float] = []
        self.accepted: list[socket.socket] = []
        self._socket = socket.create_server(at)
        self.at: At = self._socket.getsockname()[:2]
        self._greeting = greeting
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._socket.accept()
                self.times.append(time.monotonic())
                if self._greeting is None:
                    sock.close()
                    continue
                sock.sendall(self._greeting)
                self.accepted.append(sock)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)
        for sock in self.accepted:
            sock.close()


@contextmanager
def listener(greeting: bytes | None = b"", at: At = ("127.0.0.1", 0)) -> Iterator[Listener]:
    made = Listener(greeting, at)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def manager() -> Iterator[RunningManager]:
    with running_manager() as running:
        yield running


def broker(hosts: list[At], manager: RunningManager, timeout: float = TIMEOUT, **given) -> ManagerBroker:
    return ManagerBroker(hosts, given.pop("authkey", manager.authkey), timeout=timeout, **given)


def unused() -> At:
    with socket.create_server(("127.0.0.1", 0)) as free:
        at: At = free.getsockname()
        return at


def test_a_manager_at_an_ipv6_address_is_reached():
    with running_manager(at=("::1", 0)) as manager, broker([manager.endpoint], manager) as client:
        assert client.connect().version


def test_an_address_that_refuses_is_passed_over_at_once(manager):
    began = time.monotonic()
    with broker([unused(), ("::1", unused()[1]), manager.endpoint], manager) as client:
        client.connect()
    assert time.monotonic() - began < SOON


def test_a_host_that_does_not_answer_costs_a_quarter_of_a_second(manager):
    with dropping() as dead, broker([dead, manager.endpoint], manager) as client:
        began = time.monotonic()
        client.connect()
        assert STAGGER_SECONDS <= time.monotonic() - began < SOON


def test_an_address_that_accepts_and_stays_silent_hides_no_good_one_and_is_closed(manager):
    with listener() as silent, broker([silent.at, manager.endpoint], manager) as client:
        began = time.monotonic()
        client.connect()
        assert SILENCE_SECONDS <= time.monotonic() - began < SOON
        until(lambda: silent.accepted, "its thread has noted the connection")
        (loser,) = silent.accepted
        loser.settimeout(60)
        assert loser.recv(1) == b""
        # The one that has answered comes first from now on.
        client._discard()
        client.ping()
        assert len(silent.times) == 1


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n", b"\0\0\0\5hello", None])
def test_an_address_of_something_else_hides_no_good_one(manager, greeting):
    with listener(greeting) as other, broker([other.at, manager.endpoint], manager) as client:
        client.connect()
        until(lambda: other.times, "its thread has noted the connection")
    with listener(greeting) as other, pytest.raises((BadRequest, ManagerUnreachable)):
        broker([other.at], manager, timeout=0.2).connect()


def test_a_manager_with_another_key_hides_no_good_one(manager):
    with running_manager() as other, broker([other.endpoint, manager.endpoint], manager) as client:
        client.connect()


def test_a_refused_key_is_told_if_no_other_address_answers(manager):
    began = time.monotonic()
    with pytest.raises(AuthenticationFailed, match="refused the authkey"):
        broker([unused(), manager.endpoint, unused()], manager, authkey=secrets.token_bytes(32)).connect()
    assert time.monotonic() - began < SOON
    with dropping() as dead, pytest.raises(AuthenticationFailed, match="refused the authkey"):
        broker([dead, manager.endpoint], manager, authkey=b"k" * 32, timeout=4).connect()


def test_the_error_names_each_address_with_its_reason():
    first, second = unused(), unused()
    with listener() as silent, pytest.raises(ManagerUnreachable) as failed:
        ManagerBroker([first, second, silent.at], b"k" * 32, timeout=3).connect()
    told = str(failed.value)
    for host, port in (first, second, silent.at):
        assert f"{host}:{port}" in told.partition(": ")[0]
    assert told.count("Connection refused") == 2
    assert "no challenge came" in told


def test_a_name_with_several_addresses_is_tried_at_all_of_them(manager, monkeypatch):
    """The system has no way to give a name two addresses without a change of its files."""
    port = manager.endpoint[1]
    asked = []

    def addresses(host, port, *given, **named):
        asked.append(host)
        stream = (socket.SOCK_STREAM, 6, "")
        return [
            (socket.AF_INET6, *stream, ("::1", port, 0, 0)),
            (socket.AF_INET6, *stream, ("::1", port, 0, 0)),
            (socket.AF_INET, *stream, ("127.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    with broker([("manager.example", port)], manager) as client:
        client.connect()
    assert asked == [b"manager.example"]


def test_a_name_that_nobody_resolves_hides_no_other(manager, monkeypatch):
    system, answered = socket.getaddrinfo, threading.Event()

    def addresses(host, port, *given, **named):
        if host == b"slow.example":
            answered.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host == b"wrong.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return system("127.0.0.1" if host == b"good.example" else host, port, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    port = manager.endpoint[1]
    hosts = [("slow.example", port), ("wrong.example", port), ("good.example", port)]
    try:
        with broker(hosts, manager) as client:
            client.connect()
            client._discard()
            client._dialer._addresses._preferred = None
            client.ping()  # the slow look-up still goes on, and is not begun again
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("look-up of slow.example") == 1
    finally:
        answered.set()
    wrong = ("wrong.example", port)
    said = "'wrong.example' cannot be resolved: Name or service not known"
    assert said in error_of([wrong], manager, said)
    said = "Connection refused; the name 'wrong.example' cannot be"
    assert said in error_of([unused(), wrong], manager, said)


def error_of(hosts: list[At], manager: RunningManager, said: str) -> str:
    """Return the error of a call, which says *said*; its last attempt may be cut off, so try again."""
    for _ in range(5):
        with pytest.raises(ManagerUnreachable) as caught:
            broker(hosts, manager, timeout=1).connect()
        if said in str(caught.value):
            break
    return str(caught.value)


def test_addresses_come_with_the_families_in_turn():
    four, six = socket.AF_INET, socket.AF_INET6
    found = [
        Target(family, (str(place),), "h", 1) for place, family in enumerate((six, six, six, four, four))
    ]
    assert [target.sockaddr[0] for target in interleaved(found)] == ["0", "3", "1", "4", "2"]


def test_with_tls_an_address_without_it_and_one_that_is_silent_hide_no_good_one(certificates, manager):
    tls = files(certificates, "client")
    with (
        running_manager(tls=files(certificates, "manager")) as secure,
        listener() as silent,
        listener(b"220 mail\r\n") as other,
    ):
        with broker([manager.endpoint, other.at, silent.at, secure.endpoint], secure, tls=tls) as client:
            client.connect()
        with pytest.raises(AuthenticationFailed, match="no TLS with the manager"):
            broker([other.at, unused()], secure, tls=tls).connect()


@pytest.mark.slow
def test_worker_and_commands_find_the_manager_behind_dead_addresses_and_again_after_its_restart(tmp_path):
    host = Host(tmp_path)
    with host.log, ExitStack() as stack:
        manager = host.start_manager("127.0.0.1:0", "--journal", str(tmp_path / "jobs.db"))
        silent = stack.enter_context(listener())
        live, (_, dead) = host.env["SVC_MANAGER"], unused()
        host.env["SVC_MANAGER"] = f"127.0.0.1:{dead},[::1]:{dead},127.0.0.1:{silent.at[1]},{live}"
        worker = host.start_worker()
        try:
            submit = ("submit", "multiply", "6", "7", "--wait", "--wait-timeout", "60")
            assert host.svc(*submit).stdout == "42\n"
            end(manager)
            several = host.env["SVC_MANAGER"]
            manager = host.start_manager(live, "--journal", str(tmp_path / "jobs.db"))
            host.env["SVC_MANAGER"] = several
            assert host.svc(*submit).stdout == "42\n"
            (view,) = json.loads(host.svc("workers", "--json").stdout)
            assert 0 < view["round_trip_seconds"] < 60
        finally:
            end(worker, manager)


def test_the_first_retry_after_a_broken_connection_comes_at_once_and_the_others_soon(monkeypatch):
    """The pauses are those that the call asks for: how long they last is for a busy machine to say."""
    pauses: list[tuple[float, float]] = []
    with running_manager() as gone, ExitStack() as stack:
        client = stack.enter_context(ManagerBroker(gone.endpoint, gone.authkey, timeout=6))
        client.connect()
        gone.server.stop()
        gone.until_ended()
        away = stack.enter_context(listener(None, gone.endpoint))
        interrupted, wait = client._interrupted, client._interrupted.wait

        def note(seconds: float) -> bool:
            pauses.append((time.monotonic() - began, seconds))
            return wait(seconds)

        monkeypatch.setattr(interrupted, "wait", note)
        began = time.monotonic()
        with pytest.raises(ManagerUnreachable):
            client.ping()
    assert len(away.times) >= len(pauses) - 1 >= 1  # the last pause may end with the deadline
    assert pauses[0][1] <= 0.1
    for since, pause in pauses:
        assert pause <= max(0.1, 0.2 * since)
