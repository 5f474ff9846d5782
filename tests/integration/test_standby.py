"""A standby's listening socket: stock clients are turned away at once, and ours learn who leads."""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import structlog
from structlog.testing import capture_logs

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.server.manager import Server, listen
from svc.server.standby import OPEN_MAX, QUESTION_SECONDS, StandbyListener
from svc.wire import with_header
from svc.wire_handshake import LEADER_QUESTION, leader_named
from tests.support.certificates import files
from tests.support.manager import RunningManager, running_manager
from tests.support.stranger import Stranger, connected, noted

LEADER = ("10.0.0.2:7077", "10.0.0.3:7077")
#: Seconds by which a busy host may be late.
SLACK = 9.0


@contextmanager
def standing_by(
    leader: tuple[str, ...] = LEADER, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[StandbyListener, tuple[str, int]]]:
    listener = listen("127.0.0.1", 0)
    standby = StandbyListener(listener, lambda: leader, tls)
    standby.start()
    try:
        yield standby, listener.getsockname()[:2]
    finally:
        if standby._thread.is_alive():
            standby.stop().close()


def asked(at: tuple[str, int]) -> str | None:
    """Ask until there is an answer, as our clients do: on a busy machine the question may come too late."""
    for _ in range(100):
        with suppress(AssertionError, OSError), Stranger(at) as stranger:
            stranger.send(with_header(LEADER_QUESTION))
            return leader_named(stranger.receive())
    raise AssertionError("no question has been answered")


def test_a_stock_client_gets_the_end_of_the_connection_at_once():
    with standing_by() as (_, at), Stranger(at) as client:
        begun = time.monotonic()
        assert client.rest() == b""
        assert time.monotonic() - begun < QUESTION_SECONDS + SLACK


def test_the_question_gets_the_addresses_of_the_leader():
    with standing_by() as (_, at):
        assert asked(at) == "10.0.0.2:7077,10.0.0.3:7077"


def test_the_question_gets_no_address_if_no_leader_is_known():
    with standing_by(()) as (_, at):
        assert asked(at) == ""


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.0\r\n\r\n", with_header(b"#LEADER?"), b"\xff" * 70_000, with_header(LEADER_QUESTION)[:5]],
)
def test_anything_else_is_turned_away_without_an_answer(data):
    with standing_by() as (_, at), Stranger(at) as stranger:
        begun = time.monotonic()
        with_reset = b""
        try:
            stranger.send(data)
            with_reset = stranger.rest()
        except OSError:
            pass
        assert with_reset == b""
        assert time.monotonic() - begun < QUESTION_SECONDS + SLACK
        assert asked(at) == ",".join(LEADER)


def test_a_flood_waits_in_turn_and_the_question_behind_it_is_answered():
    with standing_by() as (standby, at):
        flood = [socket.create_connection(at, timeout=20) for _ in range(3 * OPEN_MAX)]
        try:
            assert len(standby._guests) <= OPEN_MAX
            assert asked(at) == ",".join(LEADER)
        finally:
            for each in flood:
                each.close()


@pytest.fixture
def shows_info():
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(**before)


def test_who_is_turned_away_is_logged_with_the_leader(shows_info):
    with capture_logs() as logs, standing_by() as (_, at), Stranger(at) as client:
        client.rest()
    (log,) = [log for log in logs if log["event"] == "peer_turned_away"]
    assert log["leader"] == ",".join(LEADER)


def test_after_a_takeover_nobody_is_refused_who_connected_before_it():
    authkey = secrets.token_bytes(16)
    with standing_by() as (standby, at):
        listener = standby.stop()
        # Nobody accepts at this moment: the connection waits in the kernel's queue.
        with Stranger(at) as early:
            host = QueueHost(MemoryJournal())
            server = Server(host, listener, authkey)
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                early.serve(authkey)
                with RunningManager(server, host, authkey).broker() as broker:
                    assert broker.connect().version
            finally:
                server.stop()
                thread.join(30)


def test_a_manager_that_serves_does_not_take_the_question_for_a_wrong_key():
    with running_manager() as running, noted() as reasons, connected(running) as stranger:
        assert stranger.receive().startswith(b"#CHALLENGE#")
        stranger.send(with_header(LEADER_QUESTION))
        assert stranger.rest() == b""
        assert reasons("connection_refused") == []


class TestTls:
    """With TLS the question comes after the TLS handshake."""

    def test_the_question_is_answered_after_the_handshake(self, certificates):
        server, client = (files(certificates, who) for who in ("manager", "client"))
        with standing_by(tls=server.server_context()) as (_, at):
            for _ in range(100):  # on a busy machine the question may come too late
                raw = socket.create_connection(at, timeout=20)
                with (
                    suppress(AssertionError, OSError),
                    client.client_context().wrap_socket(raw, server_hostname="localhost") as sock,
                ):
                    answer = asked_over(sock, at)
                    break
            assert answer == ",".join(LEADER)

    def test_without_a_question_the_connection_ends_after_the_handshake(self, certificates):
        server, client = (files(certificates, who) for who in ("manager", "client"))
        with standing_by(tls=server.server_context()) as (_, at):
            raw = socket.create_connection(at, timeout=10)
            with client.client_context().wrap_socket(raw, server_hostname="localhost") as sock:
                begun = time.monotonic()
                assert sock.recv(1) == b""
                assert time.monotonic() - begun < QUESTION_SECONDS + SLACK

    def test_who_has_no_certificate_gets_no_answer(self, certificates):
        server = files(certificates, "manager")
        with standing_by(tls=server.server_context()) as (_, at), Stranger(at) as stranger:
            stranger.send(with_header(LEADER_QUESTION))
            assert with_header(b"") not in stranger.rest()


def asked_over(sock: ssl.SSLSocket, at: tuple[str, int]) -> str | None:
    stranger = Stranger(at, sock)
    stranger.send(with_header(LEADER_QUESTION))
    return leader_named(stranger.receive())
