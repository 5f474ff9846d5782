"""Peers at the far end of a link: their workers and their client reach Redis, or the scheduler, over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.peers.environments import FOLDER, interpreter
from benchmarks.peers.redis_server import RedisServer
from benchmarks.peers.remote import Remote
from benchmarks.peers.table import PEERS
from benchmarks.proxy import Link


@dataclass(frozen=True)
class FarPeer:
    """A peer that can be at the far end of a link.

    Attributes:
        name: the name of the peer, as in the table of peers.
        adapter: its adapter, if it has another one for a link.
    """

    name: str
    adapter: str = ""

    @property
    def title(self) -> str:
        """Its name for people."""
        return next(each.title for each in PEERS if each.name == self.name)


#: Jobs before the first measure: few, since each may take several round trips of the link.
_WARM_UP = "40"
CELERY, DASK, HUEY = FarPeer("celery"), FarPeer("dask", "dask_far"), FarPeer("huey")


@contextmanager
def far_peer(peer: FarPeer, processes: int, delay: float) -> Iterator[Remote]:
    """Run a peer with so many worker processes over a link of *delay* seconds each way.

    Raises:
        subprocess.CalledProcessError: it could not be installed.
        FileNotFoundError: there is no Redis server.
        RuntimeError: it did not start; see its log in `.bench`.
    """
    entry = next(each for each in PEERS if each.name == peer.name)
    FOLDER.mkdir(exist_ok=True)
    python = interpreter(entry.lock)
    log = FOLDER / f"{peer.name}-far.log"
    module = f"benchmarks.peers.adapters.{peer.adapter or peer.name}"
    settings = {"PEERS_PROCESSES": str(processes), "PEERS_DELAY": str(delay), "PEERS_WARM_UP": _WARM_UP}
    if not entry.redis:
        with Remote(module, python, log, settings=settings) as remote:
            yield remote
        return
    with RedisServer() as redis, Link([redis.url.removeprefix("redis://")], delay) as link:
        settings["PEERS_REDIS"] = f"redis://{link.addresses[0]}"
        with Remote(module, python, log, redis, settings) as remote:
            yield remote
