"""Dask at the two ends of a link: a scheduler here; its workers and its client at the far end.

A scheduler and its workers call each other, so each has an address of the link that stands for it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from distributed import Client

from benchmarks.peers.adapters import dask
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES
from benchmarks.proxy import Link

_START_SECONDS = 30.0
_DASK = str(Path(sys.executable).with_name("dask"))
# By default a worker has no more than two tasks, so that it would wait for the link between short ones.
_SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"}


class System(dask.System):
    """A scheduler process, and worker processes of one thread, with as many tasks ahead as there are."""

    def __enter__(self) -> Self:
        """Start all, and connect to the scheduler over the link."""
        self._stack = ExitStack()
        self._folder = self._stack.enter_context(TemporaryDirectory(prefix="dask-far-"))
        # What starts first ends last: the scheduler and the link outlive client and workers.
        scheduler = self._started_scheduler()
        ports = _free_ports(PROCESSES)
        targets = [scheduler, *(f"127.0.0.1:{port}" for port in ports)]
        link = self._stack.enter_context(Link(targets, float(os.environ["PEERS_DELAY"])))
        place, *contacts = link.addresses
        for port, contact in zip(ports, contacts, strict=True):
            self._child("worker", f"tcp://{place}", "--nthreads", "1", "--no-nanny", "--no-dashboard",
                        "--listen-address", f"tcp://127.0.0.1:{port}",
                        "--contact-address", f"tcp://{contact}")  # fmt: skip
        self._client = self._stack.enter_context(Client(f"tcp://{place}", timeout=_START_SECONDS))
        self._client.wait_for_workers(PROCESSES, timeout=PATIENCE)
        return self

    def __exit__(self, *exception: object) -> None:
        """End all."""
        self._stack.close()

    def _started_scheduler(self) -> str:
        place = Path(self._folder) / "scheduler.json"
        self._child("scheduler", "--host", "tcp://127.0.0.1", "--port", "0", "--no-dashboard",
                    "--scheduler-file", str(place))  # fmt: skip
        end = time.monotonic() + _START_SECONDS
        while not place.exists() or not place.read_text().rstrip().endswith("}"):
            if time.monotonic() > end:
                raise TimeoutError("the scheduler did not start")
            time.sleep(0.05)
        address: str = json.loads(place.read_text())["address"]
        return address.removeprefix("tcp://")

    def _child(self, *arguments: str) -> None:
        child = subprocess.Popen([_DASK, *arguments], cwd=self._folder, env=os.environ | _SETTINGS)
        self._stack.callback(_end, child)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]
