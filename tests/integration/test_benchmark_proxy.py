"""The proxy of the link benchmark holds bytes for its delay, and changes nothing else."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from benchmarks.far import echo, trip_seconds
from benchmarks.proxy import Link

DELAY = 0.02


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while data := connection.recv(2**20):
        parts.append(data)
    return b"".join(parts)


def test_a_round_trip_takes_the_delay_twice_and_the_first_one_also_a_handshake():
    with echo() as target, Link([target], DELAY) as link:
        started = time.perf_counter()
        taken = trip_seconds(link.addresses[0], 3)
        assert time.perf_counter() - started >= 2 * DELAY + sum(taken) + 2 * DELAY
        assert min(taken) >= 2 * DELAY


@pytest.mark.parametrize("delay", [0.0, DELAY])
def test_many_bytes_come_back_in_order_and_the_end_comes_after_them(delay):
    content = os.urandom(2**23)
    with echo() as target, Link([target], delay) as link, connected(link.addresses[0]) as connection:

        def send() -> None:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert read_all(connection) == content
        sender.join()


def test_bytes_that_were_sent_at_once_are_not_held_one_after_the_other():
    with echo() as target, Link([target], DELAY) as link, connected(link.addresses[0]) as connection:
        for _ in range(500):
            connection.sendall(b"x" * 1000)
        connection.shutdown(socket.SHUT_WR)
        started = time.perf_counter()
        assert len(read_all(connection)) == 500_000
        assert time.perf_counter() - started < 500 * DELAY


def test_each_target_has_an_address_and_connections_do_not_mix():
    with ExitStack() as stack:
        targets = [stack.enter_context(echo()) for _ in range(2)]
        link = stack.enter_context(Link(targets, 0.001))
        assert len(set(link.addresses)) == 2
        connections = [stack.enter_context(connected(address)) for address in link.addresses]
        for number, connection in enumerate(connections):
            connection.sendall(bytes([number]))
        assert [connection.recv(10) for connection in connections] == [b"\0", b"\1"]


def test_a_target_that_refuses_resets_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        target = f"127.0.0.1:{closed.getsockname()[1]}"
    with Link([target], 0.001) as link, connected(link.addresses[0]) as connection:
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        with echo() as living, Link([living], 0.0) as other:
            assert len(trip_seconds(other.addresses[0], 1)) == 1


def test_a_caller_that_breaks_off_ends_the_connection_at_the_target_and_the_proxy_goes_on():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        with Link([target], 0.001) as link:
            caller = connected(link.addresses[0])
            caller.sendall(b"first")
            served, _ = listener.accept()
            served.settimeout(20)
            assert served.recv(10) == b"first"
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            caller.close()
            with served, pytest.raises(ConnectionResetError):
                served.recv(1)
            with connected(link.addresses[0]) as again:
                again.sendall(b"second")
                served, _ = listener.accept()
                with served:
                    assert served.recv(10) == b"second"
