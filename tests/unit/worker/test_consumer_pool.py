"""Starting consumers if the system has no room for them, and freeing what an ended one had."""

from __future__ import annotations

import functools
import os
import time
from multiprocessing import forkserver
from multiprocessing.connection import wait

from svc.worker.consumer_pool import ConsumerPool
from tests.support.resources import open_files
from tests.support.workers import KEY, configure_logging, connect, options


def test_a_forkserver_that_cannot_fork_delays_a_consumer_and_does_not_end_the_worker(monkeypatch):
    """A bound on processes makes the forkserver's fork fail; it takes the request and ends."""
    answer, answering = os.pipe()
    os.close(answering)
    requested, request = os.pipe()
    monkeypatch.setattr(forkserver, "connect_to_new_process", lambda _descriptors: (answer, request))
    nowhere = functools.partial(connect, ("127.0.0.1", 1), KEY)
    consumer_pool = ConsumerPool(options(1), nowhere, functools.partial(configure_logging, "error"))

    consumer_pool.fill_vacancies(now=5.0)

    os.close(requested)
    assert consumer_pool.children == []
    later = consumer_pool.next_start()
    assert later is not None
    assert later > 5.0


def slots() -> set[str]:
    """Return the descriptors of this process that are the memory of slots."""
    return {each for each in open_files(os.getpid()) if "memfd:svc-slot" in each}


def test_an_ended_consumer_leaves_no_descriptor_whatever_still_refers_to_it():
    """A cycle, such as the traceback of a broken connection, lives until the collector comes, if it does."""
    before = slots()
    nowhere = functools.partial(connect, ("127.0.0.1", 1), KEY)
    consumer_pool = ConsumerPool(options(2), nowhere, functools.partial(configure_logging, "critical"))
    consumer_pool.fill_vacancies(time.monotonic())
    ended = list(consumer_pool.children)
    assert len(slots() - before) == len(ended) == 2

    for child in ended:
        child.process.kill()
        wait([child.process.sentinel])
        consumer_pool.reap(child, time.monotonic())

    assert slots() <= before
    assert consumer_pool.count()[0] == {"busy": 0, "idle": 0, "starting": 0}
