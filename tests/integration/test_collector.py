"""The garbage collector of a manager: what it looks at, and that nothing is left to it."""

from __future__ import annotations

import contextlib
import gc
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.errors import ServiceError
from svc.server import protocol
from svc.server.backlog import Backlog
from svc.server.collector import freeze_survivors
from svc.server.connection import Connection
from svc.wire import decode_request, with_header
from tests.support.asking import ERROR, chunk
from tests.support.manager import RunningManager, running_manager
from tests.support.stranger import Stranger

ROOT = Path(__file__).parents[2]
SECOND = timedelta(seconds=1)


@pytest.fixture
def frozen() -> Iterator[None]:
    before, thresholds = list(gc.callbacks), gc.get_threshold()
    freeze_survivors()
    freeze_survivors()
    yield
    gc.callbacks[:] = before
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.fixture
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_a_full_collection_looks_at_nothing_that_has_outlived_one(frozen):
    """300,000 submits since the start made each of them take 0.3 s of one turn."""
    gc.collect()
    kept = [[number] for number in range(10_000)]
    assert len(gc.get_objects()) > len(kept)
    gc.collect()
    assert len(gc.get_objects()) < len(kept) / 10
    assert len(gc.callbacks) == len(set(gc.callbacks))


def test_a_full_collection_looks_at_a_bounded_number_of_objects_that_are_new(frozen):
    looked: list[int] = []

    def note(phase: str, about: Mapping[str, int]) -> None:
        if phase == "start" and about["generation"] == 2:
            looked.append(len(gc.get_objects()))

    gc.collect()
    gc.collect()  # the next one comes after a quarter of the objects that the last one has left
    gc.callbacks.insert(0, note)
    kept = [[number] for number in range(300_000)]
    assert len(kept) > 8 * max(looked)
    assert len(looked) > 6


def test_cycles_that_die_young_are_still_collected(frozen):
    gc.collect()
    loop: list[object] = []
    loop.append(loop)
    del loop
    assert gc.collect() >= 1


@pytest.mark.parametrize(("jobs", "long"), [(3, False), (1000, True)])
def test_a_long_frame_is_never_looked_at_and_is_carried_out_in_a_later_turn(
    jobs, long, unfrozen, monkeypatch
):
    """A frame of 1 MiB took twice as long with looks in between, and its first command came on top."""
    looks: list[bool] = []
    deferred: list[object] = []
    decode, defer = decode_request, Backlog.defer

    def decoding(frame: memoryview) -> tuple[int, list[c.AnyCommand]]:
        looks.append(gc.isenabled())
        return decode(frame)

    def deferring(backlog: Backlog, connection: Connection, work: Callable[[float], bool]) -> None:
        deferred.append(connection)
        defer(backlog, connection, work)

    with running_manager() as manager:
        client = manager.consumer()
        monkeypatch.setattr(protocol, "LONG_DECODE_SECONDS", 0.0)
        monkeypatch.setattr(protocol, "LONG_FRAME_BYTES", 16 * 1024)
        monkeypatch.setattr(protocol, "decode_request", decoding)
        monkeypatch.setattr(Backlog, "defer", deferring)
        chunks = [chunk(2 * number) for number in range(jobs)]
        before = gc.get_freeze_count()
        assert client.submit("o", chunks) == []
        client._discard()

        spared = gc.get_freeze_count() - before

    assert looks[-1] is not long
    assert (spared > jobs) is long
    assert bool(deferred) is long
    assert gc.isenabled()


def consumer_with_jobs(manager: RunningManager, number: int) -> None:
    consumer = manager.consumer(f"w-{number}")
    origin = f"o{number}"
    key = NewChunk(9, Terms("m:f"), [b"9"], key=f"k{number}")
    consumer.submit(origin, [chunk(0, 6), chunk(10, 2, delay=60.0), key])
    granted = consumer.lease(limit=1024, wait=SECOND).grant.deliveries
    for each in granted:
        consumer.call(
            [c.Yield(each.token, each.first, 0, [b"v"]), c.Checkpoint(each.token, each.first, b"c")]
        )
        consumer.call([c.Ack(each.token, each.first, [b"r"], [0.1])])
        consumer.call([c.Nack(each.token, each.first + 1, ERROR)])
    consumer.cancel([f"{origin}-{each}" for each in (2, 3, 10)], running=True)
    consumer.call([c.Get([f"{origin}-0", f"{origin}-1"]), c.Feed(origin), c.Stats(), c.Lease(1, 0.0)])
    with contextlib.suppress(ServiceError):
        consumer.purge(c.Purge(ids=[f"{origin}-0"]))
    consumer._discard()


def plain_client(manager: RunningManager) -> None:
    with Stranger(manager.endpoint) as stranger:
        stranger.serve(manager.authkey)
        for call in (("tasks", "put", (("m:f", (1,)),)), ("tasks", "get", ()), ("tasks", "nothing", ())):
            stranger.send(with_header(pickle.dumps((*call, {}))))
            stranger.receive()


def serve_without_a_cycle() -> None:
    """Serve a few clients: no object of svc may be left that only the collector would free."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    with running_manager() as manager:
        for number in range(5):
            consumer_with_jobs(manager, number)
            plain_client(manager)
        manager.until(lambda: not manager.host.state.workers)
        gc.collect()
    left = [type(each) for each in gc.garbage]
    assert [each for each in left if each.__module__.startswith("svc.")] == []


def test_a_manager_leaves_no_cycle_to_the_collector():
    """What is frozen while it is in use, and is part of a cycle when it goes, would never be freed.

    A process of its own, as a cycle that another test has left would be found here, too.
    """
    script = f"from {__name__} import serve_without_a_cycle; serve_without_a_cycle()"
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, check=False, text=True, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
