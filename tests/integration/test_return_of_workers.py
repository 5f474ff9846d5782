"""A manager that is killed and started again waits for its workers until they are back, and no longer."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.support.svc import DEADLINE, Host, end, until


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.log.close()


def discovered(host: Host) -> list[dict[str, object]] | None:
    """Return the targets that Prometheus would get; None if it is told to keep those that it has."""
    try:
        with urlopen(f"http://{host.env['MANAGER_HTTP']}/sd/workers", timeout=DEADLINE) as answer:
            found: list[dict[str, object]] = json.loads(answer.read())
            return found
    except HTTPError as error:
        if error.code != 503:
            raise
        return None


def complete(host: Host) -> list[list[dict[str, object]]]:
    """Return the list that Prometheus would get, in a list; nothing if there is none yet."""
    found = discovered(host)
    return [] if found is None else [found]


def test_prometheus_is_never_told_that_there_is_no_worker_after_a_restart(host):
    manager = host.start_manager()
    worker = host.start_worker("--name", "w")
    try:
        until(lambda: discovered(host), "the worker is known")
        manager.kill()
        manager.wait(30)

        manager = host.start_manager(host.env["SVC_MANAGER"])
        (first,) = until(lambda: complete(host), "the manager gives a list of workers")

        assert [target["labels"] for target in first]
    finally:
        end(worker, manager)


def test_a_manager_whose_workers_left_before_has_an_empty_list_at_once(host):
    manager = host.start_manager()
    worker = host.start_worker("--name", "w")
    until(lambda: discovered(host), "the worker is known")
    end(worker)
    until(lambda: discovered(host) == [], "the worker has left")
    end(manager)
    manager = host.start_manager(host.env["SVC_MANAGER"])
    try:
        assert discovered(host) == []
    finally:
        end(manager)
