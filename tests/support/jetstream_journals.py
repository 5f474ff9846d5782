"""Replicated journals for tests, each in a stream of its own on one real NATS server."""

from __future__ import annotations

import atexit
import functools
import itertools
import tempfile
from pathlib import Path

from svc.broker.journal import Journal
from svc.journal_address import StreamAddress, parse_stream
from svc.server.journal.jetstream.opening import open_log
from svc.server.journal.jetstream.replication import Replication
from tests.support.nats_servers import NatsCluster

_names = itertools.count(1)


@functools.cache
def shared_server() -> NatsCluster:
    """Return one server, for all tests of this process."""
    folder = tempfile.TemporaryDirectory(prefix="svc-nats-")
    cluster = NatsCluster(Path(folder.name), 1)
    cluster.start()
    atexit.register(folder.cleanup)
    atexit.register(cluster.close)
    return cluster


def new_stream() -> StreamAddress:
    """Return the address of a stream that does not exist yet, on the shared server."""
    return parse_stream(f"nats://{','.join(shared_server().addresses)}/j{next(_names)}")


def opened(address: StreamAddress, folder: Path) -> Replication:
    """Return a standby of the journal at *address*, with its mirror in *folder*."""
    return Replication.open(lambda: open_log(address, replicas=1), folder, backups=folder.parent / "backups")


def led(address: StreamAddress, folder: Path) -> Journal:
    """Return the journal at *address*, led by this process."""
    standby = opened(address, folder)
    try:
        return standby.take_over()
    except BaseException:
        standby.close()
        raise
