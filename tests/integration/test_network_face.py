"""The cost of strangers and badly behaved clients to the manager (threats T1, T2, T7, T11, T17)."""

from __future__ import annotations

import hmac
import pickle
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from svc.domain import commands as c
from svc.domain.job import NewChunk
from svc.server.connection_limits import Bounds
from svc.wire import HEADER, encode_request, with_header
from tests.support.asking import chunk
from tests.support.inside import connection_count
from tests.support.manager import running_manager
from tests.support.pythons import interpreters
from tests.support.stranger import connected, noted, serves


@pytest.fixture
def manager():
    with running_manager() as running:
        yield running


def call(typeid: str, method: str, *args: object) -> bytes:
    return with_header(pickle.dumps((typeid, method, args, {}), protocol=4))


# --- strangers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        with_header(b"{sha256}" + b"\0" * 32),
        with_header(b"\0" * 16),
        with_header(b""),
        with_header(b"#CHALLENGE#" + b"x" * 20),
        with_header(b"\x80\x04cos\nsystem\n."),
        HEADER.pack(257) + b"x" * 257,
        HEADER.pack(-1) + b"\xff" * 8,
        HEADER.pack(-2),
        HEADER.pack(0x7FFFFFFF) + b"x" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_a_stranger_is_told_no_and_nothing_else(manager, said):
    """No version, no path, no traceback: after the challenge comes `#FAILURE#`, or nothing (T11)."""
    with connected(manager) as stranger:
        assert stranger.receive().startswith(b"#CHALLENGE#{sha256}")
        stranger.send(said)
        assert stranger.rest() in (b"", with_header(b"#FAILURE#"))
    assert serves(manager)


def test_a_silent_peer_and_one_that_drips_are_ended_at_the_deadline():
    with running_manager(bounds=Bounds(handshake_seconds=0.3)) as manager:
        begun = time.monotonic()
        with connected(manager) as silent, connected(manager) as drip:
            drip.receive()
            ended = threading.Event()

            def read() -> None:
                drip.rest()
                ended.set()

            threading.Thread(target=read).start()
            for byte in with_header(b"{sha256}" + b"x" * 200):
                try:
                    drip.send(bytes([byte]))
                except OSError:
                    break
                if ended.wait(0.05):
                    break
            assert ended.wait(30)
            silent.receive()
            assert silent.rest() == b""
            assert time.monotonic() - begun >= 0.3


def test_the_oldest_half_open_connection_of_the_same_address_makes_room():
    with running_manager(bounds=Bounds(address_half_open=3)) as manager, ExitStack() as stack:
        other = stack.enter_context(connected(manager, "127.0.0.2"))
        first, *_ = [stack.enter_context(connected(manager)) for _ in range(4)]
        first.receive()
        assert first.rest() == b""
        assert serves(manager)
        other.shake_hands(manager.authkey)  # it came first, but its address is not the one that floods


@pytest.mark.parametrize("bounds", [Bounds(address_half_open=2), Bounds(half_open=2)])
def test_who_has_proved_to_know_a_key_is_not_pushed_out_by_strangers(bounds):
    with running_manager(bounds=bounds) as manager, ExitStack() as stack:
        honest = stack.enter_context(connected(manager))
        honest.send(with_header(honest.response(manager.authkey)))
        assert honest.receive() == b"#WELCOME#"
        first, *_ = [stack.enter_context(connected(manager)) for _ in range(4)]
        first.receive()
        assert first.rest() == b""
        honest.finish()


def test_half_open_connections_that_know_a_key_are_bounded_too():
    with running_manager(bounds=Bounds(half_open=2)) as manager, ExitStack() as stack:
        known = [stack.enter_context(connected(manager)) for _ in range(2)]
        for each in known:
            each.send(with_header(each.response(manager.authkey)))
            assert each.receive() == b"#WELCOME#"
        stack.enter_context(connected(manager))
        assert known[0].rest() == b""


def test_above_all_half_open_connections_the_oldest_goes():
    with running_manager(bounds=Bounds(half_open=2)) as manager, ExitStack() as stack:
        addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
        first, *_ = [stack.enter_context(connected(manager, each)) for each in addresses]
        first.receive()
        assert first.rest() == b""


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(address_connections=3), "too many connections from this address"),
        (Bounds(connections=3), "too many connections"),
    ],
)
def test_connections_above_the_quota_are_closed_at_once(bounds, reason):
    with running_manager(bounds=bounds) as manager, ExitStack() as stack, noted() as reasons:
        honest = [stack.enter_context(connected(manager)) for _ in range(3)]
        for each in honest:
            each.serve(manager.authkey)
        with connected(manager) as fourth:
            assert fourth.rest() == b""
        assert reasons("connection_refused") == [reason]
        honest.pop().socket.close()
        manager.until(lambda: connection_count(manager.server) < 3)
        assert serves(manager)
        if bounds.address_connections == 3:
            with connected(manager, "127.0.0.2") as elsewhere:
                elsewhere.serve(manager.authkey)


# --- who has a key, and behaves badly ----------------------------------------------------------------


def test_a_client_that_never_reads_is_cut_off_and_others_go_on():
    bounds = Bounds(stalled_seconds=0.3, trickle=1 << 30)
    with running_manager(bounds=bounds) as manager, connected(manager) as rude, connected(manager) as honest:
        rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for client in (rude, honest):
            client.serve(manager.authkey)
        for _ in range(4):
            honest.send(call("tasks", "put", b"x" * 8_000_000))
            assert pickle.loads(honest.receive()) == ("#RETURN", None)
        with noted() as reasons:
            rude.send(call("tasks", "get", False) * 4)
            manager.until(lambda: bool(reasons("connection_cut_off")))
        limits = manager.server._connections.limits
        manager.server.ask(lambda: setattr(limits, "bounds", Bounds())).result(30)  # this reader may be slow
        for _ in range(4):  # its places are free again
            honest.send(call("tasks", "get"))
            assert len(pickle.loads(honest.receive())[1]) == 8_000_000


def test_backpressure_loses_no_answer_and_no_request(manager):
    """A client that sends 400 requests before it reads gets 400 answers, in order, though not all at once."""
    with connected(manager) as eager:
        eager.serve(manager.authkey)
        sender = threading.Thread(
            target=lambda: eager.send(
                b"".join(call("tasks", "put", [number] * 9000) for number in range(200))
            )
        )
        sender.start()
        for _ in range(200):
            assert pickle.loads(eager.receive()) == ("#RETURN", None)
        sender.join()
        eager.send(call("tasks", "get") * 200)
        manager.until(lambda: manager.server.ask(lambda: bool(manager.server._connections.paused)).result(30))
        for number in range(200):
            assert pickle.loads(eager.receive()) == ("#RETURN", [number] * 9000)


def test_requests_that_wait_are_bounded_and_die_with_their_connection(manager):
    with connected(manager) as greedy:
        greedy.serve(manager.authkey)
        greedy.send(call("tasks", "get") * 1000)
        manager.until(lambda: manager.waiting() == 64)
    manager.until(lambda: manager.waiting() == 0)
    with connected(manager) as honest:
        honest.serve(manager.authkey)
        honest.send(call("tasks", "put", 1) + call("tasks", "get"))
        assert [pickle.loads(honest.receive())[1] for _ in range(2)] == [None, 1]


def test_an_answer_that_cannot_be_pickled_is_replaced_by_its_id_and_codec(manager):
    """MessagePack nests deeper than a pickle may; such a job, got by a plain client, ended the manager."""
    body = b"\x92" + b"\x91" * 800 + b"\x01\x80"
    with manager.broker() as broker, connected(manager) as plain:
        assert not broker.submit("deep", [NewChunk(0, chunk().terms, [body])])
        plain.serve(manager.authkey)
        plain.send(call("tasks", "get"))
        kind, job = pickle.loads(plain.receive())
        assert (kind, job["id"], job["codec"]) == ("#RETURN", "deep-0", "plain")
        plain.send(call("tasks", "qsize"))
        assert pickle.loads(plain.receive()) == ("#RETURN", 0)
    manager.until(lambda: serves(manager))


def test_unfinished_messages_are_bounded_in_sum():
    with running_manager(bounds=Bounds(buffered_bytes=1 << 20)) as manager, noted() as reasons:
        with connected(manager) as greedy, connected(manager) as honest:
            for client in (greedy, honest):
                client.serve(manager.authkey)
            greedy.send(HEADER.pack(10 << 20) + b"x" * (2 << 20))
            assert greedy.rest() == b""
            honest.send(call("tasks", "qsize"))
            assert pickle.loads(honest.receive()) == ("#RETURN", 0)
        assert len(reasons("connection_cut_off")) == 1


def test_a_connection_whose_host_has_vanished_is_found_by_the_kernel(manager):
    """An idle plain client is never asked anything: keepalive (25 s) and TCP_USER_TIMEOUT bound it."""
    with connected(manager) as idle:
        idle.serve(manager.authkey)

        def options() -> list[int]:
            (connection,) = manager.server._connections.limits.connections.values()
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            keep = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return [keep, *(connection.sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)]

        assert manager.server.ask(options).result(30) == [1, 10, 5, 3, 25_000]


# --- strict handshakes -------------------------------------------------------------------------------

STOCK = """
import sys
from multiprocessing.managers import BaseManager
class Manager(BaseManager): pass
Manager.register("tasks")
manager = Manager((sys.argv[1], int(sys.argv[2])), authkey=bytes.fromhex(sys.argv[3]))
manager.connect()
manager.tasks().put(1)
print("served")
"""


def stock_client(python: str, endpoint: tuple[str, int], authkey: bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-I", "-c", STOCK, endpoint[0], str(endpoint[1]), authkey.hex()],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).parts[-3])
def test_strict_authentication_refuses_clients_from_before_sha256(python):
    """CPython 3.11 and older prove the key with HMAC-MD5 (T17)."""
    asked = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info.minor)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    with running_manager(strict=True) as manager, noted() as reasons:
        done = stock_client(python, manager.endpoint, manager.authkey)
        if int(asked.stdout) >= 12:
            assert done.stdout == "served\n", done.stderr
        else:
            assert "AuthenticationError" in done.stderr
            (reason,) = reasons("connection_refused")
            assert "--strict-auth" in reason
        assert serves(manager)  # our own clients use SHA-256 on every Python


@pytest.mark.parametrize("digest", ["{md5}", ""])
def test_strict_authentication_refuses_a_right_answer_of_the_old_digest(digest):
    with running_manager(strict=True) as manager, connected(manager) as client:
        challenge = client.receive().removeprefix(b"#CHALLENGE#")
        client.send(with_header(digest.encode() + hmac.new(manager.authkey, challenge, "md5").digest()))
        assert client.rest() == with_header(b"#FAILURE#")


def test_a_frame_of_our_own_is_no_way_around_the_handshake(manager):
    with connected(manager) as stranger:
        stranger.receive()
        stranger.send(encode_request(1, [c.Drain()]))
        assert stranger.rest() in (b"", with_header(b"#FAILURE#"))
