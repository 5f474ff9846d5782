"""Thousands that come at once are let in in turn; nobody is pushed out, and a flood holds nobody up."""

from __future__ import annotations

import resource
import select
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import pytest

from svc.addresses import Address
from svc.app.manager_http import ManagerHttp, serving_answers
from svc.domain import commands as c
from svc.health import probe
from svc.server import pace
from svc.server.connection_limits import Bounds
from svc.server.pace import FLOOD_SECONDS, PATIENCE_SECONDS, Pace
from svc.settings import ManagerSettings
from svc.telemetry.metrics import ManagerMetrics
from tests.support.asking import chunk, submit
from tests.support.manager import RunningManager, running_manager
from tests.support.processes import Service
from tests.support.stranger import Stranger
from tests.support.workers import until

#: Connections that come at once, in hundreds of workers.
COMING = 1_500


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Room for both ends of all connections in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 3 * COMING), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class StockManager(BaseManager):
    """A client with nothing but the standard library."""


StockManager.register("results")


def jobs_seen_by_a_stock_client(manager: RunningManager) -> int:
    client: Any = StockManager(manager.endpoint, authkey=manager.authkey)
    client.connect()
    return int(client.results().qsize())


def half_open(manager: RunningManager) -> int:
    return manager.server.ask(lambda: len(manager.server._connections.limits.half_open)).result(20)


def greeted(strangers: list[Stranger]) -> set[int]:
    """Return the places of those that have got their challenge."""
    poll = select.poll()
    for each in strangers:
        poll.register(each.socket, select.POLLIN)
    ready = {fd for fd, _ in poll.poll(0)}
    return {place for place, each in enumerate(strangers) if each.socket.fileno() in ready}


def test_all_that_come_at_once_are_let_in_in_their_order_and_none_is_pushed_out(descriptors, monkeypatch):
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", 600.0)
    at_once = Bounds().handshakes
    slow = Bounds(handshake_seconds=100.0)  # the first ones wait until all are there
    with running_manager(bounds=slow) as manager, ExitStack() as stack, manager.broker() as before:
        before.connect()
        coming = [stack.enter_context(Stranger(manager.endpoint)) for _ in range(COMING)]
        manager.until(lambda: half_open(manager) == at_once)
        assert greeted(coming) == set(range(at_once))
        # Who is there already is served meanwhile, and a stock client gets its turn like the others.
        assert submit(before, chunk()) == []
        stock = ThreadPoolExecutor(1).submit(jobs_seen_by_a_stock_client, manager)
        for place, each in enumerate(coming):
            each.shake_hands(manager.authkey)
            if place % 100 == 0:
                assert half_open(manager) <= at_once
        assert stock.result(60) == 0
        limits = manager.server.ask(lambda: manager.server._connections.limits.open).result(20)
        assert limits >= COMING + 1
        with manager.broker() as after:
            after.connect()


def test_a_flood_of_silent_peers_holds_nobody_up_for_longer_than_the_patience(descriptors, monkeypatch):
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", 0.1)
    with running_manager() as manager, ExitStack() as stack:
        for _ in range(3 * Bounds().handshakes):
            stack.enter_context(Stranger(manager.endpoint))
        with manager.broker() as honest:
            honest.connect()
            honest.call([c.Ping()])


def test_a_manager_that_lets_many_in_in_turn_is_ready(descriptors, monkeypatch, tmp_path):
    """Its own check of its readiness does not wait behind all of them."""
    monkeypatch.setattr(pace, "PATIENCE_SECONDS", 600.0)
    key = tmp_path / "authkey"
    key.write_text("0123456789abcdef")
    key.chmod(0o600)
    settings = ManagerSettings(authkey_file=key, http=Address("127.0.0.1", 0))
    metrics = ManagerMetrics("0", "0")
    with running_manager(observer=metrics) as manager, ExitStack() as stack:
        for _ in range(2 * Bounds().handshakes):
            stack.enter_context(Stranger(manager.endpoint))
        manager.until(lambda: manager.server.ask(lambda: manager.server.pacing).result(20))
        answers = serving_answers(settings, manager.server, manager.host, metrics)
        with ManagerHttp(settings).showing(answers) as http:
            assert http is not None
            until(lambda: probe([(http.host, http.port)], "/readyz", 20) == (200, "ok"))


class TestPace:
    def test_with_room_nobody_waits(self) -> None:
        assert not Pace(2).waits(1, 100.0)

    def test_without_room_the_next_one_waits_while_some_prove_themselves(self) -> None:
        pace = Pace(2)
        now = 100.0
        assert not pace.waits(1, now)
        for _ in range(50):
            now += 0.9 * PATIENCE_SECONDS
            assert pace.waits(2, now)
            assert now < pace.until <= now + PATIENCE_SECONDS
            pace.moved(now)

    def test_if_none_does_they_are_a_flood_for_a_while(self) -> None:
        pace = Pace(2)
        assert not pace.waits(1, 100.0)
        assert pace.waits(2, 100.0)
        flood = 100.0 + PATIENCE_SECONDS
        assert not pace.waits(2, flood)
        assert not pace.waits(200, flood + 0.99 * FLOOD_SECONDS)
        pace.moved(flood + FLOOD_SECONDS)
        assert pace.waits(200, flood + FLOOD_SECONDS)


def test_the_default_bounds_have_room_for_a_thousand_workers_of_two_consumers():
    workers = 3 * 1000
    assert ManagerSettings().max_connections >= workers + 1000
    bounds = Bounds()
    assert bounds.handshakes <= bounds.address_half_open <= bounds.half_open


@pytest.mark.parametrize(
    ("limit", "short"), [("ulimit -S -n 256", False), ("ulimit -n 1200", True)], ids=["soft", "hard"]
)
def test_a_limit_of_descriptors_is_raised_if_it_may_be_and_told_if_not(
    tmp_path: Path, limit: str, short: bool
):
    service = Service(tmp_path, "svc.cli.demo_tasks")
    try:
        service.start_manager("--durability", "memory", prefix=("sh", "-c", f'{limit} && exec "$@"', "sh"))
        assert service.manager is not None
        told = [line for line in service.log("manager") if line["event"] == "descriptors_short"]
        needed = ManagerSettings().max_connections + Bounds().half_open
        soft, _ = resource.prlimit(service.manager.pid, resource.RLIMIT_NOFILE)
        if short:
            (line,) = told
            assert (line["limit"], soft) == (1200, 1200)
            assert int(str(line["connections"])) < 1200
            assert int(str(line["needed"])) > needed
        else:
            assert told == []
            assert soft > needed
        with service.broker() as client:
            client.connect()
    finally:
        service.close()
