"""What strangers and badly behaved clients can cost the manager (threats T1, T2, T7, T11, T17)."""

from __future__ import annotations

import hmac
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain.job import NewChunk
from svc.errors import AuthenticationFailed
from svc.server.connection_limits import Bounds
from svc.settings import parse_address
from svc.wire import HEADER, encode_request, with_header
from tests.support.asking import chunk
from tests.support.manager import running_manager
from tests.support.processes import ROOT, Service
from tests.support.pythons import interpreters
from tests.support.stranger import Stranger

FLOOD = 900
DRIPS = 40


@pytest.fixture
def manager():
    with running_manager() as running:
        yield running


@pytest.fixture
def descriptors():
    """Room for a flood of sockets in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def service(tmp_path):
    running = Service(tmp_path, "svc.cli.demo_tasks")
    running.start_manager("--durability", "memory")
    yield running
    running.close()


def call(typeid: str, method: str, *args: object) -> bytes:
    return with_header(pickle.dumps((typeid, method, args, {}), protocol=4))


def connected(running, source: str = "127.0.0.1") -> Stranger:
    sock = socket.create_connection(running.endpoint, timeout=20, source_address=(source, 0))
    return Stranger(running.endpoint, sock)


def serves(running) -> bool:
    with running.broker() as broker:
        return bool(broker.connect().version)


@contextmanager
def noted():
    with capture_logs() as logs:
        yield lambda event: [log["reason"] for log in logs if log["event"] == event]


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
            assert ended.wait(10)
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
        manager.until(lambda: manager.server.connection_count < 3)
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
        for _ in range(4):  # what it had taken is there again
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
        manager.until(lambda: manager.server.ask(lambda: bool(manager.server._connections.paused)).result(5))
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
        with connected(manager) as hoarder, connected(manager) as honest:
            for client in (hoarder, honest):
                client.serve(manager.authkey)
            hoarder.send(HEADER.pack(10 << 20) + b"x" * (2 << 20))
            assert hoarder.rest() == b""
            honest.send(call("tasks", "qsize"))
            assert pickle.loads(honest.receive()) == ("#RETURN", 0)
        assert len(reasons("connection_cut_off")) == 1


def test_a_connection_whose_host_has_vanished_is_found_by_the_kernel(manager):
    """An idle plain client is never asked anything: keepalive (25 s) and TCP_USER_TIMEOUT bound it."""
    with connected(manager) as idle:
        idle.serve(manager.authkey)

        def options() -> list[int]:
            (connection,) = manager.server._connection_limits.connections.values()
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            keep = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            return [keep, *(connection.sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)]

        assert manager.server.ask(options).result(5) == [1, 10, 5, 3, 25_000]


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


# --- a manager in a process of its own ---------------------------------------------------------------


def figures(pid: int) -> dict[str, int]:
    """Return a process's threads, descriptors and resident KiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "threads": int(status["Threads"]),
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "resident": int(status["VmRSS"].split()[0]),
    }


def settled(pid: int, before: dict[str, int], name: str) -> None:
    deadline = time.monotonic() + 30
    while figures(pid)[name] > before[name]:
        assert time.monotonic() < deadline, (before, figures(pid))
        time.sleep(0.05)


@pytest.mark.slow
def test_honest_clients_are_served_during_a_flood_and_nothing_of_it_stays(service, descriptors):
    """900 silent connections and 40 that drip, before and after they have a key, during load (T2)."""
    address = parse_address(service.listen)
    endpoint = (address.host, address.port)
    authkey = service.authkey_file.read_bytes()
    assert service.manager is not None
    pid = service.manager.pid
    with service.broker() as broker:
        broker.submit("warm", [chunk(count=1000)])
    before = figures(pid)
    stop = threading.Event()

    def drip(stranger: Stranger) -> None:
        message = iter(with_header(b"x" * 200) * 100)
        while not stop.wait(0.1):
            try:
                stranger.send(bytes([next(message)]))
            except OSError:
                return

    with ExitStack() as stack:
        drips = []
        for number in range(DRIPS):
            stranger = stack.enter_context(Stranger(endpoint))
            if number % 2:
                stranger.serve(authkey)
            drips.append(threading.Thread(target=drip, args=(stranger,)))
        for thread in drips:
            thread.start()
        silent = []
        for _ in range(FLOOD):
            silent.append(stack.enter_context(socket.create_connection(endpoint, timeout=20)))
            if len(silent) % 30 == 0:
                with ManagerBroker(endpoint, authkey, timeout=20) as honest:
                    assert not honest.submit(f"o{len(silent)}", [chunk(count=10)])
        during = figures(pid)
        stop.set()
        for thread in drips:
            thread.join()
    assert during["threads"] == before["threads"]
    assert during["descriptors"] <= before["descriptors"] + DRIPS + Bounds().half_open + 1
    assert during["resident"] <= before["resident"] + 20_000
    settled(pid, before, "descriptors")
    with service.broker() as broker:
        (queue,) = broker.stats().queues
        assert queue.ready == 1000 + 10 * (FLOOD // 30)


def test_a_long_message_takes_memory_only_as_it_comes(service):
    """A header that announces 64 MiB reserves nothing; the stdlib's server takes it all at once (A7)."""
    address = parse_address(service.listen)
    assert service.manager is not None
    with ExitStack() as stack:
        strangers = [stack.enter_context(Stranger((address.host, address.port))) for _ in range(20)]
        for each in strangers:
            each.serve(service.authkey_file.read_bytes())
        before = figures(service.manager.pid)
        for each in strangers:
            each.send(HEADER.pack(64 << 20) + b"x" * 10_000)
        with service.broker() as broker:
            broker.stats()
        assert figures(service.manager.pid)["resident"] <= before["resident"] + 10_000


def test_without_descriptors_the_manager_waits_and_does_not_spin(tmp_path):
    """The stdlib's accept loop takes a whole CPU then (A4)."""
    service = Service(tmp_path, "svc.cli.demo_tasks")
    command = [sys.executable, "-m", "svc", "manager", "--listen", service.listen, "--http", "off"]
    announced = tmp_path / "manager.json"
    own = ["--durability", "memory", "--announce", str(announced)]
    with (tmp_path / "log").open("wb") as log:
        manager = subprocess.Popen(
            ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *command, *own],
            env=service.environment, cwd=ROOT, stderr=log,
        )  # fmt: skip
    try:
        service._await_file(announced, manager)
        address = parse_address(service.listen)
        with ExitStack() as stack:
            for _ in range(80):
                stack.enter_context(socket.create_connection((address.host, address.port), timeout=20))
            _logged(tmp_path / "log", "accept_paused")
            before = _cpu_seconds(manager.pid)
            time.sleep(1.0)  # the measure is what it does when there is nothing that it could do
            assert _cpu_seconds(manager.pid) - before < 0.5
        with service.broker() as broker:
            assert broker.connect().version
    finally:
        manager.send_signal(signal.SIGTERM)
        assert manager.wait(20) == 0


def _logged(path: Path, event: str) -> None:
    deadline = time.monotonic() + 20
    while event not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.02)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_keys_are_changed_without_a_pause(tmp_path):
    """Rotation: both keys work, then only the new one, and who came with the old one is sent away."""
    keys = tmp_path / "keys"
    service = Service(tmp_path, "svc.cli.demo_tasks")
    assert service.run("auth", "generate", "--all", str(keys)).wait(30) == 0
    service.start_manager("--durability", "memory", "--role-keys", str(keys))
    manager = service.manager
    assert manager is not None
    try:
        old = (keys / "work.key").read_bytes().strip()
        new = b"n" * 40
        before = _broker(service, old)
        before.connect()
        assert not _is_let_in(service, new)
        _replace(keys / "work.key.next", new)
        _renewed(service, times=1)
        assert _is_let_in(service, new)
        assert before.call([c.Ping()])
        assert before.reconnects == 0
        (keys / "work.key.next").replace(keys / "work.key")
        _renewed(service, times=2)
        with pytest.raises(AuthenticationFailed):
            before.call([c.Ping()])
        assert _is_let_in(service, new)
        _replace(keys / "work.key", b"short")  # a slip of the operator's locks nobody out
        manager.send_signal(signal.SIGHUP)
        _logged(tmp_path / "manager.log", "keys_not_read")
        assert _is_let_in(service, new)
    finally:
        service.close()


def _broker(service: Service, key: bytes) -> ManagerBroker:
    address = parse_address(service.listen)
    return ManagerBroker((address.host, address.port), key, timeout=10)


def _is_let_in(service: Service, key: bytes) -> bool:
    with _broker(service, key) as broker:
        try:
            broker.connect()
        except AuthenticationFailed:
            return False
    return True


def _replace(path: Path, key: bytes) -> None:
    path.write_bytes(key)
    path.chmod(0o600)


def _renewed(service: Service, times: int) -> None:
    assert service.manager is not None
    service.manager.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while sum(record["event"] == "keys_read" for record in service.log("manager")) < times:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_frame_of_our_own_is_no_way_around_the_handshake(manager):
    with connected(manager) as stranger:
        stranger.receive()
        stranger.send(encode_request(1, [c.Drain()]))
        assert stranger.rest() in (b"", with_header(b"#FAILURE#"))
