"""TLS on the manager's port: who gets in, who does not, and the relay that only it keeps out (T3, T4)."""

from __future__ import annotations

import json
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from svc.broker.manager import ManagerBroker
from svc.cli.authority import make_authority, renew_certificates
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk
from svc.errors import AuthenticationFailed, ConfigurationError, Conflict, ManagerUnreachable
from svc.health import probe
from svc.server.connection_limits import Bounds
from svc.settings import parse_address
from svc.wire import HEADER, with_header
from svc.wire_tls import TlsFiles
from tests.support.asking import chunk, submit
from tests.support.manager import running_manager
from tests.support.processes import ROOT, Service
from tests.support.pythons import interpreters
from tests.support.stranger import Stranger

NAMES = ("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("tls")
    make_authority(folder, NAMES)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Certificates of an authority that nobody here believes."""
    folder: Path = tmp_path_factory.mktemp("other")
    make_authority(folder, NAMES)
    return folder


def files(folder: Path, who: str) -> TlsFiles:
    return TlsFiles(folder / f"{who}.pem", folder / f"{who}.key", folder / "ca.pem")


@pytest.fixture
def manager(folder):
    with running_manager(tls=files(folder, "manager")) as running:
        yield running


def dial(manager, tls: TlsFiles | None, timeout: float = 10.0, host: str = "127.0.0.1") -> ManagerBroker:
    return ManagerBroker((host, manager.endpoint[1]), manager.authkey, timeout=timeout, tls=tls)


def test_with_certificates_everything_is_as_without(manager, folder):
    with dial(manager, files(folder, "client")) as broker:
        assert submit(broker, chunk(count=3)) == []
        large = b"x" * 8_000_000
        assert broker.submit("large", [NewChunk(0, chunk().terms, [large])]) == []
        consumer = ManagerBroker(
            ("localhost", manager.endpoint[1]), manager.authkey, tls=files(folder, "client"),
            hello=lambda: c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]),
        )  # fmt: skip
        with consumer:
            (first,) = consumer.lease(limit=3, wait=timedelta(0)).grant.deliveries
            assert first.bodies == [b"0", b"1", b"2"]
            (second,) = consumer.lease(limit=1, wait=timedelta(0)).grant.deliveries
            assert second.bodies == [large]


def test_a_wait_can_be_interrupted_from_another_thread(manager, folder):
    hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])
    broker = ManagerBroker(
        manager.endpoint, manager.authkey, tls=files(folder, "client"), hello=lambda: hello, timeout=20
    )
    broker.connect()
    grants: list[r.Grant] = []
    waiting = threading.Thread(
        target=lambda: grants.append(broker.lease(limit=1, wait=timedelta(minutes=1)).grant)
    )
    waiting.start()
    manager.until(lambda: manager.waiting() == 1)
    broker.interrupt()
    waiting.join(20)
    assert [grant.deliveries for grant in grants] == [[]]
    broker.close()


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("nobody", "certificate"),
        ("other client", "unknown ca"),
        ("other authority", "certificate"),
        ("other name", "Hostname mismatch"),
    ],
)
def test_who_is_not_of_the_authority_gets_no_challenge(manager, folder, other, who, reason):
    client = files(folder, "client")
    tls = {
        "other client": replace(files(other, "client"), ca=client.ca),
        "other authority": replace(client, ca=other / "ca.pem"),
        "other name": replace(client, name="elsewhere"),
    }
    if who == "nobody":
        context = ssl.create_default_context(cafile=str(client.ca))
        with socket.create_connection(manager.endpoint, timeout=10) as plain, capture_logs() as logs:
            with (
                pytest.raises(ssl.SSLError, match=r"(?i)certificate required"),
                context.wrap_socket(plain, server_hostname="localhost") as secured,
            ):
                secured.recv(100)
            manager.until(lambda: any("certificate" in log.get("reason", "") for log in logs))
    else:
        with dial(manager, tls[who]) as broker, pytest.raises(AuthenticationFailed, match=reason):
            broker.connect()
    with dial(manager, client) as broker:
        assert broker.connect().version


def test_a_plain_client_gets_no_byte_from_a_port_that_asks_for_tls(folder):
    with running_manager(tls=files(folder, "manager"), bounds=Bounds(handshake_seconds=0.3)) as manager:
        with Stranger(manager.endpoint) as silent:
            assert silent.rest() == b""
        with Stranger(manager.endpoint) as talker:
            talker.send(with_header(b"#CHALLENGE#{sha256}" + b"x" * 40))
            assert b"CHALLENGE" not in talker.rest()
        with (
            dial(manager, None, timeout=1.0) as broker,
            pytest.raises(ManagerUnreachable, match="ask for TLS"),
        ):
            broker.connect()


def test_a_tls_client_never_speaks_plain(folder):
    with (
        running_manager() as plain,
        dial(plain, files(folder, "client")) as broker,
        pytest.raises(AuthenticationFailed, match="no TLS"),
    ):
        broker.connect()


def test_nothing_older_than_tls_1_3_is_spoken(manager, folder):
    client = files(folder, "client")
    context = ssl.create_default_context(cafile=str(client.ca))
    context.load_cert_chain(client.cert, client.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(manager.endpoint, timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


def test_a_file_that_is_no_certificate_is_a_clear_error(tmp_path, folder):
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    broken.chmod(0o600)
    good = files(folder, "client")
    for bad in (replace(good, cert=broken), replace(good, key=broken), replace(good, ca=broken)):
        with pytest.raises(ConfigurationError, match=r"broken\.pem"):
            bad.client_context()
    with pytest.raises(ConfigurationError, match="No such file"):
        replace(good, ca=tmp_path / "none").server_context()


# --- the relay ---------------------------------------------------------------------------------------


class Rogue:
    """Knows no key: forwards an honest client's handshake both ways, and then speaks for it (A5)."""

    def __init__(self, manager: tuple[str, int]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.endpoint: tuple[str, int] = self.listener.getsockname()
        self.answer: object = None
        self._manager = manager
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def ended(self) -> object:
        """Return what the manager answered to the rogue's own request; None where it never came to one."""
        self._thread.join(20)
        self.listener.close()
        return self.answer

    def _run(self) -> None:
        with suppress(OSError, AssertionError, ValueError):
            victim = Stranger(self.endpoint, self.listener.accept()[0])
            with victim, Stranger(self._manager) as manager:
                victim.socket.settimeout(3)
                manager.socket.settimeout(3)
                for source, target in ((manager, victim), (victim, manager)) * 2:
                    target.send(with_header(source.receive()))  # challenge, response, welcome, challenge
                victim.send(with_header(manager.receive()))  # response
                manager.send(with_header(b"#WELCOME#"))
                manager.send(with_header(pickle.dumps((None, "accept_connection", ("rogue",), {}))))
                manager.receive()
                manager.send(with_header(pickle.dumps(("tasks", "put", ("planted",), {}))))
                self.answer = pickle.loads(manager.receive())


def test_a_relay_of_the_handshake_gets_a_session_on_a_plain_port():
    """This is what TLS is for: without it, the very same relay owns the session."""
    with running_manager() as manager:
        rogue = Rogue(manager.endpoint)
        with suppress(Exception):
            ManagerBroker(rogue.endpoint, manager.authkey, timeout=2).connect()
        assert rogue.ended() == ("#RETURN", None)


def test_a_relay_of_the_handshake_gets_no_session_on_a_tls_port(manager, folder):
    rogue = Rogue(manager.endpoint)
    victim = ManagerBroker(rogue.endpoint, manager.authkey, timeout=2, tls=files(folder, "client"))
    with pytest.raises((AuthenticationFailed, ManagerUnreachable)), victim:
        victim.connect()
    assert rogue.ended() is None
    with dial(manager, files(folder, "client")) as broker:
        assert broker.stats().queues == []


@pytest.mark.parametrize("place", [0, 7, 40])
def test_a_byte_changed_on_the_path_ends_the_connection_and_changes_nothing(manager, folder, place):
    """Who sits between passes on everything, but changes one byte of a submission (T4)."""
    with _meddler(manager.endpoint) as (endpoint, meddle):
        broker = ManagerBroker(endpoint, manager.authkey, timeout=1, tls=files(folder, "client"))
        broker.connect()
        meddle(place)
        with pytest.raises((ManagerUnreachable, AuthenticationFailed)), broker:
            broker.submit("changed", [chunk()])
    with dial(manager, files(folder, "client")) as honest:
        assert honest.stats().queues == []


@contextmanager
def _meddler(  # noqa: C901 - one relay
    target: tuple[str, int],
) -> Iterator[tuple[tuple[str, int], Callable[[int], None]]]:
    """Relay connections to *target*; once told to, change one byte of each chunk that goes there."""
    places: list[int] = []
    sockets: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket, *, there: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if there and places:
                    place = places[0] % len(data)
                    data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(target)
                sockets.extend((client, server))
                threads.append(threading.Thread(target=pump, args=(client, server), kwargs={"there": True}))
                threads.append(threading.Thread(target=pump, args=(server, client), kwargs={"there": False}))
                for thread in threads[-2:]:
                    thread.start()

    threads = [threading.Thread(target=accept)]
    threads[0].start()
    try:
        yield listener.getsockname(), places.append
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        threads[0].join(10)
        for each in (listener, *sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads[1:]:
            thread.join(10)
        for each in (listener, *sockets):
            each.close()


# --- processes ---------------------------------------------------------------------------------------

STOCK = """
import sys
from multiprocessing.managers import BaseManager
class Manager(BaseManager): pass
for name in ("tasks", "results"): Manager.register(name)
manager = Manager((sys.argv[1], int(sys.argv[2])), authkey=b"k" * 40)
manager.connect()
manager.tasks().put(("svc.cli.demo_tasks:multiply", [6, 7]))
print(manager.results().get(True, 40))
"""


@pytest.fixture(scope="module")
def secured(folder, tmp_path_factory):
    """A manager, a worker and a tunnel, all with certificates and each a process."""
    service = Service(tmp_path_factory.mktemp("secured"), "svc.cli.demo_tasks", consumers=1)
    own = files(folder, "client")
    service.environment |= {
        "SVC_TLS_CERT": str(own.cert), "SVC_TLS_KEY": str(own.key), "SVC_TLS_CA": str(own.ca),
    }  # fmt: skip
    served = files(folder, "manager")
    flags = ("--tls-cert", str(served.cert), "--tls-key", str(served.key), "--tls-ca", str(served.ca))
    announced = service.folder / "tunnel.json"
    try:
        service.start_manager("--durability", "memory", *flags)
        service.start_worker()
        tunnel = service.run("tunnel", "--listen", "127.0.0.1:0", "--announce", str(announced))
        try:
            service._await_file(announced, tunnel)
            host, _, port = json.loads(announced.read_text())["listen"].rpartition(":")
            yield service, (host, port)
        finally:
            tunnel.send_signal(signal.SIGTERM)
            assert tunnel.wait(20) == 0
    finally:
        service.close()


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: Path(path).parts[-3])
def test_a_stock_client_works_through_the_tunnel(secured, python):
    _, tunnel = secured
    done = subprocess.run(
        [python, "-I", "-c", STOCK, *tunnel], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "42\n", done.stderr


def test_the_command_line_and_the_worker_take_their_certificates_from_the_environment(secured):
    service, _ = secured
    command = [sys.executable, "-m", "svc", "submit", "multiply", "6", "7", "--wait"]
    done = subprocess.run(
        command, env=service.environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    plain = {name: value for name, value in service.environment.items() if not name.startswith("SVC_TLS")}
    done = subprocess.run(
        [*command, "--timeout", "1"],
        env=plain,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3


def test_a_manager_with_tls_is_ready(tmp_path, folder):
    """Its readiness check makes a handshake and a call, with its own certificate."""
    service = Service(tmp_path, "svc.cli.demo_tasks")
    own = files(folder, "manager")
    flags = ("--tls-cert", str(own.cert), "--tls-key", str(own.key), "--tls-ca", str(own.ca))
    try:
        service.start_manager("--durability", "memory", "--http", "127.0.0.1:0", *flags)
        http = parse_address(json.loads((tmp_path / "manager.json").read_text())["http"])
        assert probe(http.host, http.port, "/readyz", 20) == (200, "ok")
    finally:
        service.close()


def test_a_manager_that_serves_other_hosts_without_tls_says_so(tmp_path):
    service = Service(tmp_path, "svc.cli.demo_tasks")
    service.listen = service.listen.replace("127.0.0.1", "0.0.0.0")
    try:
        service.start_manager("--durability", "memory")
        assert [log["event"] for log in service.log("manager") if log["level"] == "warning"] == [
            "listening_without_tls"
        ]
    finally:
        service.close()


def test_the_tunnel_closes_what_the_manager_closes(secured):
    """An oversized greeting is cut off at the other end, and the hop passes that on."""
    _, (host, port) = secured
    with Stranger((host, int(port))) as client:
        client.receive()
        client.send(HEADER.pack(1 << 20))
        assert client.rest() == b""


def test_an_authority_is_made_once_and_its_keys_are_private(folder):
    for key in folder.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
    with pytest.raises(Conflict):
        make_authority(folder, NAMES)


def test_renewed_certificates_fit_the_same_keys_and_the_new_names(tmp_path):
    made = make_authority(tmp_path, ("localhost",), ("worker", "cli"))
    assert {file.name for file in made} == {
        f"{owner}.{kind}" for owner in ("ca", "manager", "worker", "cli") for kind in ("pem", "key")
    }
    before = {file: file.read_bytes() for file in made}
    renewed = renew_certificates(tmp_path, NAMES)
    assert {file.name for file in renewed} == {"manager.pem", "worker.pem", "cli.pem"}
    assert {file for file in made if file.read_bytes() != before[file]} == set(renewed)
    with (
        running_manager(tls=files(tmp_path, "manager")) as running,
        dial(running, files(tmp_path, "worker")) as broker,
    ):
        assert broker.connect().version


@pytest.mark.parametrize("client", ["ca", "manager", "../up", ""])
def test_a_clients_name_is_no_path_and_not_taken(tmp_path, client):
    with pytest.raises(ConfigurationError, match="is no name for a client"):
        make_authority(tmp_path, NAMES, (client,))


def test_only_an_authority_can_renew(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no ca\.key"):
        renew_certificates(tmp_path, NAMES)
