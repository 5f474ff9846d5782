"""Many clients: eight processes, each of which submits a no-op job, waits for its result, and goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from benchmarks.far import far_service
from benchmarks.figures import Figures
from benchmarks.peers.environments import ROOT
from benchmarks.peers.far import CELERY, HUEY, FarPeer, far_peer
from benchmarks.processes import processor_clock
from benchmarks.systems import environment

CONSUMERS = 8
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Sizes:
    """The amounts of work.

    Attributes:
        delays: of the links, in seconds one way.
        producers: processes that submit.
        seconds: for which they do so.
        peers: systems that do the same.
    """

    delays: tuple[float, ...] = (0.0, 0.0005)
    producers: int = 8
    seconds: float = 5.0
    peers: tuple[FarPeer, ...] = (CELERY, HUEY)


FULL = Sizes()
QUICK = Sizes(seconds=2.0)
SMOKE = Sizes(delays=(0.0,), producers=2, seconds=0.1)


def measure(durability: str, sizes: Sizes, figures: Figures) -> None:
    """Do one round."""
    measure_name = f"{sizes.producers} clients, one job at a time each"
    for delay in sizes.delays:
        place = f"{delay * 1e3:g} ms one way"
        with far_service(durability, CONSUMERS, delay) as far:
            variables = environment() | {
                "PRODUCER_MANAGER": far.link.addresses[0],
                "PRODUCER_KEYFILE": str(far.service.keyfile),
            }
            clock = processor_clock(far.service.manager.pid)
            own = [sys.executable, "-m", "benchmarks.peers.producer", "benchmarks.own_client"]
            with Producers(own, variables, sizes.producers) as producers:
                spent = clock()
                jobs = producers.run(sizes.seconds)
                spent = (clock() - spent) / jobs
        name = f"svc, {durability}, {place}"
        figures.note(measure_name, "jobs/s", name, jobs / sizes.seconds)
        figures.note("CPU of manager, a job of many clients", "us", name, spent * 1e6)
        for peer in sizes.peers:
            with (
                far_peer(peer, CONSUMERS, delay) as remote,
                Producers(*remote.producer(), sizes.producers) as producers,
            ):
                jobs = producers.run(sizes.seconds)
            figures.note(measure_name, "jobs/s", f"{peer.title}, {place}", jobs / sizes.seconds)


class Producers:
    """Processes of `benchmarks.peers.producer`."""

    def __init__(self, command: list[str], variables: Mapping[str, str], count: int) -> None:
        """Prepare to run *command* so many times."""
        self._command, self._variables, self._count = command, variables, count
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start all, and wait until each has had a job done."""
        self._children = [self._stack.enter_context(self._child()) for _ in range(self._count)]
        for child in self._children:
            _line(child)
        return self

    def __exit__(self, *exception: object) -> None:
        """End all."""
        for child in self._children:
            child.communicate(timeout=_PATIENCE_SECONDS)
        self._stack.close()

    def run(self, seconds: float) -> int:
        """Let all submit for so many seconds; return the number of jobs that were done."""
        for child in self._children:
            if child.stdin is not None:
                child.stdin.write(f"{seconds}\n")
                child.stdin.flush()
        return sum(int(_line(child)) for child in self._children)

    def _child(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command, cwd=ROOT, env=dict(self._variables), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


def _line(child: subprocess.Popen[str]) -> str:
    line = child.stdout.readline() if child.stdout is not None else ""
    if not line:
        raise RuntimeError(f"a producer ended with {child.wait(_PATIENCE_SECONDS)}")
    return line
