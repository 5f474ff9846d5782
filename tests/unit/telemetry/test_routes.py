"""The paths that a manager, a standby and a worker serve over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from svc.domain.job import Cause, Terms
from svc.domain.replies import QueueStats, Totals, WorkerView
from svc.telemetry.http import Response, text
from svc.telemetry.metrics import ManagerMetrics
from svc.telemetry.routes import (
    LABEL_CHARACTERS_MAX,
    discovered,
    manager_routes,
    scale_figures,
    standby_routes,
    worker_routes,
)
from tests.support.hostile_text import HOSTILE, raw_in


def view(name: str, http: str, host: str = "h1", address: str = "10.0.0.7") -> WorkerView:
    return WorkerView(
        name, host, 1, "0.1.0", 4, 1, 0, 0, ["default"], ["m:f"], 0.0, 0.0, False, http, address
    )


def test_a_worker_is_ready_when_it_says_so_and_alive_as_long_as_it_answers():
    state = (False, "no answer from the manager within 2 s")
    routes = worker_routes(exposition=lambda: b"", ready=lambda: state)
    assert routes["/livez"]().status == 200
    assert routes["/readyz"]() == text(503, "no answer from the manager within 2 s")
    state = (True, "")
    assert routes["/readyz"]().status == 200


def test_prometheus_finds_the_workers_that_serve_http():
    assert discovered([view("w1", "0.0.0.0:9101"), view("w2", "")]) == [
        {"targets": ["10.0.0.7:9101"], "labels": {"worker": "w1", "host": "h1", "version": "0.1.0"}}
    ]


@pytest.mark.parametrize(
    ("said", "seen", "target"),
    [
        ("0.0.0.0:9101", "10.0.0.7", "10.0.0.7:9101"),
        ("[::]:9101", "fd00::7", "[fd00::7]:9101"),
        (":9101", "::ffff:10.0.0.7", "10.0.0.7:9101"),
        ("127.0.0.1:9101", "127.0.0.1", "127.0.0.1:9101"),
        ("10.0.0.7:65535", "10.0.0.7", "10.0.0.7:65535"),
        # A worker's own report of its address is no reason to send Prometheus there.
        ("169.254.169.254:80", "10.0.0.7", "10.0.0.7:80"),
        ("metadata.internal:80", "10.0.0.7", "10.0.0.7:80"),
        ("10.0.0.1:9100", "10.0.0.7", "10.0.0.7:9100"),
        ("http://evil/:9101", "10.0.0.7", "10.0.0.7:9101"),
    ],
)
def test_a_worker_is_scraped_where_the_manager_sees_it(said: str, seen: str, target: str):
    assert [each["targets"] for each in discovered([view("w1", said, address=seen)])] == [[target]]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "h",
        "0.0.0.0:0",
        "0.0.0.0:65536",
        "0.0.0.0:-1",
        "0.0.0.0:+80",
        "0.0.0.0:9101/x",
        ":٩١٠١",
        "h:" + "9" * 5000,
    ],
)
def test_a_worker_that_says_no_port_is_left_out(said: str):
    assert discovered([view("w1", said)]) == []


def test_a_worker_that_others_cannot_reach_is_left_out():
    assert discovered([view("w1", "127.0.0.1:9101", address="10.0.0.7")]) == []
    assert discovered([view("w1", "0.0.0.0:9101", address="")]) == []


@pytest.mark.parametrize("said", [*HOSTILE.values(), "x" * 100_000, "a\udcff"])
def test_what_a_worker_is_called_is_a_bounded_label(said: str):
    (found,) = discovered([view(said, ":9101", said)])
    labels = found["labels"]
    assert isinstance(labels, dict)
    for label in labels.values():
        assert not raw_in(label)
        assert len(label) <= LABEL_CHARACTERS_MAX
    json.dumps(found).encode("ascii")


def manager(workers: list[WorkerView] | None) -> dict[str, Any]:
    routes = manager_routes(
        exposition=lambda: b"svc_workers 0\n",
        ready=lambda: (True, ""),
        workers=lambda: workers,
        scale=lambda: scale_figures(Totals([QueueStats("default", ready=3)]), {}),
    )
    return {path: route() for path, route in routes.items()}


def test_discovery_answers_an_empty_list_where_there_is_no_worker():
    assert manager([])["/sd/workers"] == Response(200, "application/json", b"[]")


def test_discovery_answers_503_while_workers_of_before_a_restart_are_expected():
    """To Prometheus an empty list says that there is no worker, and it drops all of them."""
    answer = manager(None)["/sd/workers"]
    assert (answer.status, answer.body) == (503, b"the workers are not known yet\n")


@pytest.mark.parametrize(("lists_nothing", "status"), [(True, 200), (False, 503)])
def test_a_standby_has_an_empty_list_only_if_the_workers_are_known_from_the_leader(lists_nothing, status):
    routes = standby_routes(exposition=bytes, said=str, lists_nothing=lambda: lists_nothing)
    assert routes["/sd/workers"]().status == status


def test_a_manager_serves_its_metrics_as_prometheus_text():
    answer = manager([])["/metrics"]
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    assert answer.body == b"svc_workers 0\n"


def test_an_autoscaler_reads_three_numbers():
    answer = manager([])["/api/v1/scale"]
    assert json.loads(answer.body) == {"ready": 3, "leased": 0, "desired_consumers": 1}


@pytest.mark.parametrize(
    ("ready", "mean", "busy", "desired"),
    [
        (0, 1.0, 0, 0),
        (1, 0.01, 0, 1),
        (600, 1.0, 0, 10),
        (600, 0.1, 0, 1),
        (0, 1.0, 5, 5),
        (601, 1.0, 2, 11),
        (7, 1e12, 2, 7),
        (7, 1.7e308, 2, 7),
        (7, float("inf"), 2, 7),
    ],
)
def test_consumers_are_asked_for_by_work_and_never_fewer_than_are_busy(
    ready: int, mean: float, busy: int, desired: int
):
    totals = Totals([QueueStats("default", ready=ready)], busy=busy)
    assert scale_figures(totals, {"default": mean})["desired_consumers"] == desired


@pytest.mark.parametrize("odd", [1.7e308, float("inf"), float("nan"), -1.0, 1e13, 5e-324])
def test_no_run_time_makes_the_figures_of_a_manager_fail(odd: float):
    metrics = ManagerMetrics()
    metrics.succeeded(Terms("t:f"), [odd, odd], odd)
    metrics.failed(Terms("t:f"), Cause.FAILED, "E", odd, False, odd)
    metrics.started(Terms("t:f"), 1, odd)
    totals = Totals([QueueStats("default", ready=3)])
    assert scale_figures(totals, metrics.mean_run_seconds())["desired_consumers"] <= 3
    text = "".join(metrics.collect(totals)).lower()
    assert "inf" not in text.replace('le="+inf"', "").replace("_info", "")
