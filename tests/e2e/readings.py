"""Readings of the running service: metrics, outcomes, and the series in Prometheus."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.docker import Project

#: Workers that the running service has when a test starts.
WORKERS = 3


def fetch(address: str, path: str) -> str:
    """Return the body at a path of a published port."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        body: bytes = answer.read()
    return body.decode()


class Metrics:
    """The manager's own exposition."""

    def __init__(self, service: Project) -> None:
        """Look up its published address."""
        self._address = service.address("manager", 9100)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a name that have these labels."""
        families = text_string_to_metric_families(self._fresh())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _fresh(self) -> str:
        """Return a text that was begun after this call.

        The manager makes one a second at most, and shares it. The second new one was begun after the first.
        """
        known = self._made()[1]
        for _ in range(2):
            deadline = time.monotonic() + 60.0
            text, made = self._made()
            while made == known:
                assert time.monotonic() < deadline, "the manager makes no new text of metrics"
                time.sleep(0.05)
                text, made = self._made()
            known = made
        return text

    def _made(self) -> tuple[str, str]:
        """Return the text that there is, and the manager's age when it was made."""
        text = fetch(self._address, "/metrics")
        return text, next(
            line for line in text.splitlines() if line.startswith("svc_manager_uptime_seconds ")
        )

    def finished(self, task: str) -> float:
        """Return how many jobs of a task have ended, in whatever way."""
        return self.total("svc_jobs_finished_total", task=task)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str) -> None:
        """Ask the one at HOST:PORT."""
        self._address = address

    def query(self, expression: str) -> float | None:
        """Return the value of an expression that gives one, or None if it gives nothing."""
        found = self._ask("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["result"]
        return float(found[0]["value"][1]) if found else None

    def healthy(self) -> dict[str, set[str]]:
        """Return the addresses that were scraped well the last time, by job."""
        healthy: dict[str, set[str]] = {}
        for target in self._ask("/api/v1/targets?state=active")["activeTargets"]:
            if target["health"] == "up":
                healthy.setdefault(target["labels"]["job"], set()).add(target["scrapeUrl"])
        return healthy

    def rules(self) -> dict[str, str]:
        """Return the health of every rule, by name."""
        groups = self._ask("/api/v1/rules")["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def _ask(self, path: str) -> Any:
        answer = json.loads(fetch(self._address, path))
        assert answer["status"] == "success", answer
        return answer["data"]


def submit_naps(service: Project, count: int, seconds: float) -> list[str]:
    """Submit jobs that sleep and return their number; give their ids, in order."""
    lines = [json.dumps({"task": "chores:nap", "args": [seconds, number]}) for number in range(count)]
    submitted = service.svc("submit", "--from", "-", stdin="\n".join(lines))
    ids = submitted.stdout.split()
    assert len(set(ids)) == len(ids) == count
    return ids


def results(service: Project, ids: Sequence[str], seconds: float = 200) -> list[Any]:
    """Return the results of jobs in order, waiting for them; each must be given exactly once."""
    told = service.svc("results", "--ndjson", *ids, seconds=seconds).stdout.splitlines()
    outcomes = [json.loads(line) for line in told]
    by_id = {outcome["id"]: outcome for outcome in outcomes}
    assert len(outcomes) == len(by_id) == len(ids)
    assert {outcome["state"] for outcome in outcomes} == {"succeeded"}
    return [by_id[each]["value"] for each in ids]
