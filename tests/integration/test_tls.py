"""TLS on the manager's port: who gets in, who does not, and the relay that only it keeps out (T3, T4)."""

from __future__ import annotations

import pickle
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from svc.broker.manager import ManagerBroker
from svc.cli.certificates import make_authority
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk
from svc.errors import AuthenticationFailed, ConfigurationError, ManagerUnreachable
from svc.server.connection_limits import Bounds
from svc.wire import with_header
from tests.support.asking import chunk, submit
from tests.support.certificates import NAMES, dial, files
from tests.support.manager import running_manager
from tests.support.stranger import Stranger


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Certificates of an authority that nobody here believes."""
    certificates: Path = tmp_path_factory.mktemp("other")
    make_authority(certificates, NAMES)
    return certificates


@pytest.fixture
def manager(certificates):
    with running_manager(tls=files(certificates, "manager")) as running:
        yield running


def test_with_certificates_everything_is_as_without(manager, certificates):
    with dial(manager, files(certificates, "client")) as broker:
        assert submit(broker, chunk(count=3)) == []
        large = b"x" * 8_000_000
        assert broker.submit("large", [NewChunk(0, chunk().terms, [large])]) == []
        consumer = ManagerBroker(
            ("localhost", manager.endpoint[1]), manager.authkey, tls=files(certificates, "client"),
            hello=lambda: c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]),
        )  # fmt: skip
        with consumer:
            (first,) = consumer.lease(limit=3, wait=timedelta(0)).grant.deliveries
            assert first.bodies == [b"0", b"1", b"2"]
            (second,) = consumer.lease(limit=1, wait=timedelta(0)).grant.deliveries
            assert second.bodies == [large]


def test_a_wait_can_be_interrupted_from_another_thread(manager, certificates):
    hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])
    broker = ManagerBroker(
        manager.endpoint, manager.authkey, tls=files(certificates, "client"), hello=lambda: hello, timeout=20
    )
    broker.connect()
    grants: list[r.Grant] = []
    waiting = threading.Thread(
        target=lambda: grants.append(broker.lease(limit=1, wait=timedelta(minutes=1)).grant), daemon=True
    )
    waiting.start()
    manager.until(lambda: manager.waiting() == 1)
    broker.interrupt()
    waiting.join(45)
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
def test_who_is_not_of_the_authority_gets_no_challenge(manager, certificates, other, who, reason):
    client = files(certificates, "client")
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


def test_a_plain_client_gets_no_byte_from_a_port_that_asks_for_tls(certificates):
    with running_manager(tls=files(certificates, "manager"), bounds=Bounds(handshake_seconds=0.3)) as manager:
        with Stranger(manager.endpoint) as silent:
            assert silent.rest() == b""
        with Stranger(manager.endpoint) as talker:
            talker.send(with_header(b"#CHALLENGE#{sha256}" + b"x" * 40))
            assert b"CHALLENGE" not in talker.rest()
        with (
            dial(manager, None, timeout=3.0) as broker,
            pytest.raises(ManagerUnreachable, match="ask for TLS"),
        ):
            broker.connect()


def test_a_tls_client_never_speaks_plain(certificates):
    with (
        running_manager() as plain,
        dial(plain, files(certificates, "client")) as broker,
        pytest.raises(AuthenticationFailed, match="no TLS"),
    ):
        broker.connect()


def test_nothing_older_than_tls_1_3_is_spoken(manager, certificates):
    client = files(certificates, "client")
    context = ssl.create_default_context(cafile=str(client.ca))
    context.load_cert_chain(client.cert, client.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(manager.endpoint, timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


def test_a_file_that_is_no_certificate_is_a_clear_error(tmp_path, certificates):
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    broken.chmod(0o600)
    good = files(certificates, "client")
    for bad in (replace(good, cert=broken), replace(good, key=broken), replace(good, ca=broken)):
        with pytest.raises(ConfigurationError, match=r"broken\.pem"):
            bad.client_context()
    with pytest.raises(ConfigurationError, match="No such file"):
        replace(good, ca=tmp_path / "none").server_context()


# --- the relay ---------------------------------------------------------------------------------------


class Rogue:
    """Knows no key: forwards an honest client's handshake both ways, and then speaks for it (A5)."""

    def __init__(self, manager: tuple[str, int], patience: float) -> None:
        self._patience = patience
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10)
        self.endpoint: tuple[str, int] = self.listener.getsockname()
        self.answer: object = None
        self._manager = manager
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended(self) -> object:
        """Return the manager's answer to the rogue's own request; None if it never came to one."""
        self._thread.join(45)
        self.listener.close()
        return self.answer

    def _run(self) -> None:
        with suppress(OSError, AssertionError, ValueError):
            victim = Stranger(self.endpoint, self.listener.accept()[0])
            with victim, Stranger(self._manager) as manager:
                victim.socket.settimeout(self._patience)
                manager.socket.settimeout(self._patience)
                for source, target in ((manager, victim), (victim, manager)) * 2:
                    target.send(with_header(source.receive()))  # challenge, response, welcome, challenge
                victim.send(with_header(manager.receive()))  # response
                manager.send(with_header(b"#WELCOME#"))
                manager.send(with_header(pickle.dumps((None, "accept_connection", ("rogue",), {}))))
                manager.receive()
                manager.send(with_header(pickle.dumps(("tasks", "put", ("planted",), {}))))
                self.answer = pickle.loads(manager.receive())


def test_a_relay_of_the_handshake_gets_a_session_on_a_plain_port():
    """The purpose of TLS: without it, the very same relay owns the session."""
    with running_manager() as manager:
        rogue = Rogue(manager.endpoint, 15.0)
        with suppress(Exception):
            ManagerBroker(rogue.endpoint, manager.authkey, timeout=6).connect()
        assert rogue.ended() == ("#RETURN", None)


def test_a_relay_of_the_handshake_gets_no_session_on_a_tls_port(manager, certificates):
    rogue = Rogue(manager.endpoint, 3.0)
    victim = ManagerBroker(rogue.endpoint, manager.authkey, timeout=2, tls=files(certificates, "client"))
    with pytest.raises((AuthenticationFailed, ManagerUnreachable)), victim:
        victim.connect()
    assert rogue.ended() is None
    with dial(manager, files(certificates, "client")) as broker:
        assert broker.stats().queues == []


@pytest.mark.parametrize("place", [0, 7, 40])
def test_a_byte_changed_on_the_path_ends_the_connection_and_changes_nothing(manager, certificates, place):
    """Who sits between passes on everything, but changes one byte of a submission (T4)."""
    with _meddler(manager.endpoint) as (endpoint, meddle):
        broker = ManagerBroker(endpoint, manager.authkey, timeout=30, tls=files(certificates, "client"))
        broker.connect()
        broker._timeout = 1.0
        meddle(place)
        with pytest.raises((ManagerUnreachable, AuthenticationFailed)), broker:
            broker.submit("changed", [chunk()])
    with dial(manager, files(certificates, "client")) as honest:
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
