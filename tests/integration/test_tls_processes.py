"""TLS between processes: the manager, a worker, the command line and the tunnel of stock clients."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from svc.addresses import parse_address
from svc.health import probe
from svc.wire import HEADER
from tests.support.certificates import files
from tests.support.processes import ROOT, Service
from tests.support.pythons import interpreters
from tests.support.stranger import Stranger
from tests.support.workers import until

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
def secured(certificates, tmp_path_factory):
    """A manager, a worker and a tunnel, all with certificates and each a process."""
    service = Service(tmp_path_factory.mktemp("secured"), "svc.cli.demo_tasks", consumers=1)
    own = files(certificates, "client")
    service.environment |= {
        "SVC_TLS_CERT": str(own.cert), "SVC_TLS_KEY": str(own.key), "SVC_TLS_CA": str(own.ca),
    }  # fmt: skip
    served = files(certificates, "manager")
    flags = ("--tls-cert", str(served.cert), "--tls-key", str(served.key), "--tls-ca", str(served.ca))
    announced = service.folder / "tunnel.json"
    try:
        service.start_manager("--durability", "memory", *flags)
        service.start_worker()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            hosts = f"127.0.0.1:1,127.0.0.1:{silent.getsockname()[1]},{service.listen}"
            yield from tunnelled(service, hosts, announced)
    finally:
        service.close()


def tunnelled(service, hosts, announced):
    """Run a tunnel to the first of *hosts* that answers; the others refuse, and stay silent."""
    tunnel = service.run(
        *("tunnel", "--listen", "127.0.0.1:0", "--announce", str(announced), "--manager", hosts)
    )
    try:
        service._await_file(announced, tunnel)
        host, _, port = json.loads(announced.read_text())["listen"].rpartition(":")
        yield service, (host, port)
    finally:
        tunnel.send_signal(signal.SIGTERM)
        assert tunnel.wait(45) == 0


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


def test_a_manager_with_tls_is_ready(tmp_path, certificates):
    """Its readiness check makes a handshake and a call, with its own certificate."""
    service = Service(tmp_path, "svc.cli.demo_tasks")
    own = files(certificates, "manager")
    flags = ("--tls-cert", str(own.cert), "--tls-key", str(own.key), "--tls-ca", str(own.ca))
    try:
        service.start_manager("--durability", "memory", "--http", "127.0.0.1:0", *flags)
        http = parse_address(json.loads((tmp_path / "manager.json").read_text())["http"])
        until(lambda: probe([(http.host, http.port)], "/readyz", 20) == (200, "ok"))
    finally:
        service.close()


def test_a_manager_that_serves_other_hosts_without_tls_says_so(tmp_path):
    service = Service(tmp_path, "svc.cli.demo_tasks")
    service.listen = service.listen.replace("127.0.0.1", "0.0.0.0")
    try:
        service.start_manager("--durability", "memory")
        warnings = [log["event"] for log in service.log("manager") if log["level"] == "warning"]
        assert warnings.count("listening_without_tls") == 1  # a busy machine gives others
    finally:
        service.close()


def test_the_tunnel_closes_what_the_manager_closes(secured):
    """An oversized greeting is cut off at the other end, and the hop passes that on."""
    _, (host, port) = secured
    with Stranger((host, int(port))) as client:
        client.receive()
        client.send(HEADER.pack(1 << 20))
        assert client.rest() == b""
