"""Who scrapes needs no key, and may ask as often as he likes; those who work must not wait for it."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.addresses import parse_address
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from tests.support.svc import Host, end, until

QUEUES = 2_000
#: Chunks of one submit.
CHUNKS = 500
SCRAPERS = 16
PINGS, SLOW_MAX = 100, 5
#: Seconds for one ping; without contention it takes a fraction of a millisecond.
PING_SECONDS_MAX = 2.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    running = Host(tmp_path)
    manager = running.start_manager("127.0.0.1:0", "--durability", "memory")
    yield running
    end(manager)
    running.log.close()


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/scale", "/sd/workers", "/readyz"])
def test_16_scrapers_of_2000_queues_in_a_closed_loop_hold_nobody_up(host: Host, path: str):
    key = (host.folder / "authkey").read_bytes().strip()
    address = parse_address(host.env["SVC_MANAGER"])
    with ManagerBroker((address.host, address.port), key, timeout=30.0) as broker:
        submit(broker)
        with scraped(host.env["MANAGER_HTTP"], path):
            taken = [ping(broker) for _ in range(PINGS)]
    # One after the other, so a machine that stands still delays only few of them.
    assert sorted(taken)[-SLOW_MAX - 1] < PING_SECONDS_MAX


def submit(broker: ManagerBroker) -> None:
    for first in range(0, QUEUES, CHUNKS):
        numbers = range(first, min(QUEUES, first + CHUNKS))
        chunks = [NewChunk(number, Terms("m:f", queue=f"q{number}"), [b"x"]) for number in numbers]
        assert broker.call([c.Submit("o", chunks)]) == [r.Accepted([])]


def ping(broker: ManagerBroker) -> float:
    began = time.monotonic()
    broker.call([c.Wake()])
    return time.monotonic() - began


@contextlib.contextmanager
def scraped(address: str, path: str) -> Iterator[None]:
    """Scrape in a closed loop from many threads, from the first answer to each of them on."""
    stop = threading.Event()
    asked = [0] * SCRAPERS

    def scrape(number: int) -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection(address, timeout=20)
            with contextlib.suppress(OSError, http.client.HTTPException):  # a slow manager cuts it off
                connection.request("GET", path)
                connection.getresponse().read()
            asked[number] += 1
            connection.close()

    threads = [threading.Thread(target=scrape, args=(number,), daemon=True) for number in range(SCRAPERS)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(asked), "each scraper has an answer")
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(45)
