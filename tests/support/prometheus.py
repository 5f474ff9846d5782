"""A real Prometheus on loopback, its promtool, and helpers for queries."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import promql_parser
import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "svc.json"


def program(name: str) -> str:
    """Return the path of a program of Prometheus; if it is missing, skip the test, or fail it in CI."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is missing: install Debian's package `prometheus`"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class Prometheus:
    """A running Prometheus; `address` is HOST:PORT."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an API call; an error of Prometheus fails the test."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{parameters}: {error.read().decode()}")

    def query(self, expr: str) -> list[Any]:
        """Return the current series of *expr*."""
        result: list[Any] = self.get("query", query=expr)["result"]
        return result


@contextmanager
def running(settings: Path, folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with *settings* and its data in *folder*, on a port that the system chooses."""
    log = folder / "prometheus.log"
    command = [
        program("prometheus"),
        f"--config.file={settings}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield Prometheus(_address(process, log))
    finally:
        process.terminate()
        process.wait(60)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address, once Prometheus is ready for queries; only its log has the port."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        found = re.search(r'msg="Listening on" address=(\S+)', text)
        if found and "Server is ready to receive web requests" in text:
            return found[1]
        time.sleep(0.02)
    pytest.fail(f"Prometheus did not start:\n{log.read_text()}")


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, rows among them."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the panels of each row."""
    found: dict[str, list[dict[str, Any]]] = {}
    for panel in panels():
        if panel["type"] == "row":
            title = panel["title"]
            found[title] = []
        else:
            found[title].append(panel)
    return found


def filled_in(expr: str, interval: str = "10s") -> str:
    """Return a panel's expression with values for Grafana's variables, which select everything."""
    return expr.replace("$__rate_interval", interval).replace("$queue", ".*").replace("$task", ".*")


def selectors(expr: str) -> set[tuple[str, str, str]]:
    """Return (metric, label, value) of every matcher in *expr*; (metric, "", "") if it has none."""
    found: set[tuple[str, str, str]] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql_parser.VectorSelector):
            found.add((str(node.name), "", ""))
            found.update((str(node.name), each.name, each.value) for each in node.matchers.matchers)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


def grouped_by(expr: str) -> set[str]:
    """Return the labels by which *expr* groups or matches."""
    lists = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expr)
    return {label.strip() for each in lists for label in each.split(",") if label.strip()}
