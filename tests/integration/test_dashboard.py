"""Every query of the dashboard, asked of a real Prometheus that scraped a real manager and a real worker."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from svc.app import Client
from svc.errors import JobFailed
from svc.telemetry.cgroup import read_memory
from tests.support.prometheus import DASHBOARD, ROOT, RULES, Prometheus, filled_in, program, rows, running

TASKS = "tests.support.worker_tasks"
SUCCEEDING, FAILING = 40, 2

QUERIES = [
    pytest.param(target["expr"], panel["type"], id=f"{row}: {panel['title']} {target['refId']}")
    for row, shown in rows().items()
    for panel in shown
    for target in panel["targets"]
]
CORE = [
    pytest.param(target["expr"], id=panel["title"])
    for panel in rows()["Is it all right?"]
    for target in panel["targets"]
]
#: Series that the kernel of this very host does not have, for instance a memory limit if there is none.
UNKNOWN_HERE = {
    name
    for name, number in zip(
        ("svc_worker_memory_bytes", "svc_worker_memory_limit_bytes"), read_memory(), strict=True
    )
    if number is None
}
#: Queries that are about managers on one stream; the manager of this test has its journal in a file.
OF_STREAMS = {'svc_manager_role{role="leader"} == 1', "max by (job) (svc_manager_term) > 0"}


class Service(NamedTuple):
    """The addresses (HOST:PORT) of a running manager and worker."""

    manager_http: str
    worker_http: str


def until(claim: Callable[[], object], what: str, seconds: float = 60.0) -> Any:
    """Return the value of *claim* once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := claim():
            return found
        time.sleep(0.05)
    pytest.fail(f"not within {seconds} s: {what}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("dashboard")
    key = path / "authkey"
    key.touch(0o600)
    key.write_text("k" * 40)
    return path


def start(folder: Path, name: str, *arguments: object) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
    """Start `svc NAME`; return it and its addresses."""
    announced = folder / f"{name}.json"
    common = ["--http", "127.0.0.1:0", "--authkey-file", folder / "authkey", "--announce", announced]
    command = [sys.executable, "-m", "svc", name, *map(str, [*common, *arguments])]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stderr=log)
    until(lambda: announced.exists() or process.poll() is not None, f"svc {name} has started")
    assert process.poll() is None, (folder / f"{name}.log").read_text()
    return process, json.loads(announced.read_text())


@pytest.fixture(scope="module")
def service(folder) -> Iterator[Service]:
    """A run with jobs that succeed, fail, and kill their consumer; all have ended."""
    manager, at = start(folder, "manager", "--listen", "127.0.0.1:0", "--journal", folder / "journal.sqlite")
    try:
        worker, at_worker = start(
            folder, "worker", "--manager", at["listen"], "--consumers", 2, "--tasks", TASKS
        )
        try:
            submit(at["listen"], folder / "authkey")
            yield Service(at["http"], at_worker["http"])
        finally:
            worker.terminate()
            worker.wait(60)
    finally:
        manager.terminate()
        manager.wait(60)


def submit(manager: str, key: Path) -> None:
    with Client(manager, authkey_file=key) as client:
        jobs = client.submit_many(f"{TASKS}:sleep", [(0.01,)] * SUCCEEDING)
        client.results(jobs, timeout=60)
        for task in ("leave", "too_long"):
            with pytest.raises(JobFailed):
                client.submit(f"{TASKS}:{task}", *([9.0] if task == "too_long" else [])).result(60)


@pytest.fixture(scope="module")
def prometheus(folder, service) -> Iterator[Prometheus]:
    """The shipped settings and rules, with the addresses of this run and intervals of a second."""
    shutil.copytree(RULES / "rules", folder / "rules")
    settings = yaml.safe_load((RULES / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    jobs = {job["job_name"]: job for job in settings["scrape_configs"]}
    jobs["svc-manager"]["static_configs"][0]["targets"] = [service.manager_http]
    jobs["svc-worker"]["http_sd_configs"][0] = {
        "url": f"http://{service.manager_http}/sd/workers",
        "refresh_interval": "1s",
    }
    settings["scrape_configs"] = [jobs["svc-manager"], jobs["svc-worker"]]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(settings))
    with running(file, folder) as server:
        until(
            lambda: server.query("count_over_time(svc_worker_info[1m]) >= 3"), "three scrapes of the worker"
        )
        yield server


@pytest.mark.parametrize(("expr", "kind"), QUERIES)
def test_a_query_of_the_dashboard_gives_data(prometheus: Prometheus, expr: str, kind: str):
    """As Grafana asks: over time for a graph, once for a number or a table."""
    query = filled_in(expr)
    if expr in UNKNOWN_HERE | OF_STREAMS:
        assert prometheus.query(query) == [], "nobody knows the number, but the query must be valid"
        return

    def asked() -> Any:
        if kind != "timeseries":
            return prometheus.query(query)
        now = time.time()
        return prometheus.get("query_range", query=query, start=str(now - 60), end=str(now), step="5")[
            "result"
        ]

    until(asked, f"data for {query}")


@pytest.mark.parametrize("expr", CORE)
def test_the_first_row_shows_one_number_each(prometheus: Prometheus, expr: str):
    (series,) = until(lambda: prometheus.query(filled_in(expr)), expr)
    assert float(series["value"][1]) >= 0


def number(prometheus: Prometheus, expr: str) -> float:
    found = prometheus.query(expr)
    return float(found[0]["value"][1]) if found else 0.0


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("sum(svc_jobs_submitted_total)", SUCCEEDING + FAILING),
        ('sum(svc_jobs_finished_total{outcome="succeeded"})', SUCCEEDING),
        ('sum(svc_jobs_finished_total{outcome="dead"})', FAILING),
        ('sum(svc_job_attempts_total{outcome="timed_out"})', 1),
        ("sum(svc_job_run_seconds_count)", SUCCEEDING + FAILING),
        ('sum(svc_queue_jobs{state="dead"})', FAILING),
        ('svc_worker_consumer_restarts_total{reason="timed_out"}', 1),
        ("sum(svc_consumers)", 2),
        ("svc_workers", 1),
    ],
)
def test_the_counters_equal_what_was_done(prometheus: Prometheus, expr: str, expected: float):
    until(lambda: number(prometheus, expr) == expected, f"{expr} = {expected}")


def test_a_worker_found_by_the_manager_carries_its_name_once(prometheus: Prometheus):
    (series,) = prometheus.query('up{job="svc-worker"}')
    (info,) = prometheus.query("svc_worker_info")
    assert series["metric"]["worker"] == info["metric"]["worker"]
    assert not [label for label in info["metric"] if label.startswith("exported_")]


@pytest.mark.parametrize("variable", ["queue", "task"])
def test_a_variable_of_the_dashboard_has_values(prometheus: Prometheus, variable: str):
    listed = json.loads(DASHBOARD.read_text())["templating"]["list"]
    (query,) = [each["query"]["query"] for each in listed if each["name"] == variable]
    metric, label = query.removeprefix("label_values(").removesuffix(")").split(", ")
    assert prometheus.get(f"label/{label}/values", **{"match[]": metric})


def test_the_drains_of_the_dashboard_can_be_asked_for(prometheus: Prometheus):
    (annotation,) = json.loads(DASHBOARD.read_text())["annotations"]["list"]
    assert prometheus.query(annotation["expr"]) == []


def test_the_rules_are_evaluated_without_error(prometheus: Prometheus):
    groups = prometheus.get("rules")["groups"]
    assert len(groups) == 5
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert not [rule for group in groups for rule in group["rules"] if rule.get("lastError")]


@pytest.mark.parametrize("process", ["manager_http", "worker_http"])
def test_the_exposition_of_a_real_run_keeps_the_conventions(service: Service, process: str):
    with urllib.request.urlopen(f"http://{getattr(service, process)}/metrics", timeout=60) as answer:
        exposition = answer.read()
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=exposition, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
