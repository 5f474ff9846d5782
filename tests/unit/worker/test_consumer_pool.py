"""Starting consumers if the system has no room for them."""

from __future__ import annotations

import functools
import os
from multiprocessing import forkserver

from svc.worker.consumer_pool import ConsumerPool
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
