"""The real Prometheus with the shipped settings, looking at the running service."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.e2e.readings import Metrics, Prometheus, results, submit_naps
from tests.support.docker import ROOT, Project, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow]
NAP = "chores:nap"


@pytest.fixture(scope="module")
def prometheus(stack: Project, tmp_path_factory) -> Prometheus:
    """The shipped settings, but for intervals of a second."""
    folder = tmp_path_factory.mktemp("monitoring")
    settings = folder / "prometheus"
    shutil.copytree(ROOT / "deploy/prometheus", settings)
    main = settings / "prometheus.yml"
    main.write_text(re.sub(r"((?:scrape|evaluation|refresh)_interval): \w+", r"\1: 1s", main.read_text()))
    override = folder / "compose.yaml"
    override.write_text(f"services: {{prometheus: {{volumes: ['{settings}:/etc/prometheus:ro']}}}}\n")
    watched = stack.overridden(override)
    watched.up("--no-recreate", "prometheus")
    return Prometheus(watched.address("prometheus", 9090))


def test_prometheus_follows_the_workers_as_they_are_scaled(service, prometheus):
    for workers in (3, 4, 2):
        service.scale(workers)
        wait_for(
            lambda: len(prometheus.healthy().get("svc-worker", ())) == workers,  # noqa: B023 - called at once
            90,
            f"{workers} workers scraped",
        )
    wait_for(lambda: len(prometheus.healthy().get("svc-manager", ())) == 1, 90, "the manager scraped")


def test_the_counters_in_prometheus_equal_the_number_of_jobs(service, prometheus):
    metrics = Metrics(service)
    before = {
        name: metrics.total(name, task=NAP)
        for name in ("svc_jobs_submitted_total", "svc_jobs_finished_total")
    }
    ids = submit_naps(service, 250, seconds=0.01)
    assert results(service, ids) == list(range(250))
    for name, start in before.items():
        counted = f'sum({name}{{task="{NAP}"}})'
        wait_for(lambda: prometheus.query(counted) == start + 250, 90, f"{counted} = {start + 250:g}")  # noqa: B023


def test_the_shipped_rules_are_evaluated_without_an_error(service, prometheus):
    wait_for(lambda: "unknown" not in prometheus.rules().values(), 90, "all rules evaluated once")
    rules = prometheus.rules()
    assert "SvcManagerDown" in rules
    assert {name: health for name, health in rules.items() if health != "ok"} == {}
