"""The systems that are compared with svc, and their settings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).with_name("locks")
_IN_REDIS = "in Redis, not fsynced"


@dataclass(frozen=True)
class Peer:
    """One peer. Its name is also that of its adapter, its lock and its environment.

    Attributes:
        redis: whether it needs a Redis server.
        programs: whether it runs programs beside functions.
    """

    name: str
    title: str
    package: str
    durable: str
    settings: str
    redis: bool = True
    programs: bool = False

    @property
    def module(self) -> str:
        """The adapter's module."""
        return f"benchmarks.peers.adapters.{self.name}"

    @property
    def lock(self) -> Path:
        """The file that pins all packages of its environment by hashes."""
        return LOCKS / f"{self.name}.lock"

    @property
    def version(self) -> str:
        """The pinned version of its package."""
        found = re.search(rf"^{re.escape(self.package)}==([^\s;]+)", self.lock.read_text(), re.MULTILINE)
        if found is None:
            raise ValueError(f"{self.lock} does not pin {self.package}; make it anew with `make lock`")
        return found.group(1)


PEERS = (
    Peer(
        "celery", "Celery", "celery", _IN_REDIS,
        "prefork; late acks; prefetch 64 for each process; no gossip, mingle or heartbeat; results in Redis; "
        "logs errors alone",
    ),
    Peer(
        "rq", "RQ, SimpleWorker", "rq", _IN_REDIS,
        "SimpleWorker (the default forks for each job); enqueue_many; results by blocking read; "
        "logs errors alone",
    ),
    Peer(
        "dramatiq", "Dramatiq", "dramatiq", _IN_REDIS,
        "4 processes of 1 thread; default prefetch; acks after the job; results middleware on Redis",
    ),
    Peer(
        "huey", "Huey", "huey", _IN_REDIS + "; a job taken by a worker that dies is lost",
        "process workers; blocking pop; the client polls for results every 1 ms; --quiet",
    ),
    Peer(
        "taskiq", "TaskIQ", "taskiq", _IN_REDIS + "; a job taken by a worker that dies is lost",
        "Redis list broker (no acks); one job at a time in each process; the client polls every 1 ms; "
        "logs errors alone",
    ),
    Peer(
        "dask", "Dask distributed", "distributed", "no",
        "LocalCluster of 4 processes on TCP; map and gather; no dashboard", redis=False,
    ),
    Peer(
        "ray", "Ray", "ray", "no",
        "local, 4 processors; one get for all; no dashboard", redis=False,
    ),
    Peer(
        "hyperqueue", "HyperQueue", "hyperqueue", "no",
        "LocalCluster, one worker of 4 cores, no journal; one job of many tasks; a new Python for each call, "
        "whose result comes as a file; the client looks every 1 ms", redis=False, programs=True,
    ),
)  # fmt: skip
