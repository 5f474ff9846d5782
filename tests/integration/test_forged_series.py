"""A real Prometheus with the shipped settings takes what a task says as series of its worker alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus import RULES, Prometheus, running

SETTINGS = sorted(path.name for path in RULES.glob("prometheus*.yml"))
#: The labels that the manager's list gives to the target.
LISTED = {"worker": "w", "host": "here", "version": "1"}
#: What whoever holds the worker's port may say: series of others, of other metrics, and of other times.
FORGED = """\
svc_worker_info{worker="w"} 1
svc_worker_a{job="svc-manager"} 7
svc_worker_b{instance="manager:9100"} 7
svc_worker_c{worker="other",host="there",version="9"} 7
svc_worker_d{exported_worker="other",exported_exported_job="svc-manager"} 7
svc_worker_e 7 946684800000
svc_worker_f{job="svc-manager",instance="manager:9100",worker=""} 7 4102444800000
process_resident_memory_bytes{job="svc-manager",instance="manager:9100"} 7
svc_jobs_finished_total{job="svc-manager",queue="default",task="m:f",outcome="dead"} 7
svc_manager_role{job="svc-manager",instance="manager:9100",role="leader"} 7
up{job="svc-manager",instance="manager:9100"} 0
ALERTS{alertname="SvcManagerDown",alertstate="firing"} 1
x_svc_worker_g 7
"""
#: Those of them that a worker has.
OWN = {
    *(f"svc_worker_{each}" for each in ("info", "a", "b", "c", "d", "e", "f")),
    "process_resident_memory_bytes",
}


class Worker(BaseHTTPRequestHandler):
    """Serves the manager's list of workers, and the port of the only worker in it."""

    def do_GET(self) -> None:
        listed = json.dumps([{"targets": [self.headers["Host"]], "labels": LISTED}])
        is_list = self.path == "/sd/workers"
        body = (listed if is_list else FORGED).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if is_list else "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Worker) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def of_this_run(name: str, address: str) -> str:
    """Return shipped settings whose only change is in addresses and intervals."""
    settings = yaml.safe_load((RULES / name).read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in settings["scrape_configs"]:
        for listed in job.get("static_configs", ()):
            listed["targets"] = []
        for listed in job.get("http_sd_configs", ()):
            listed.update(url=f"http://{address}/sd/workers", refresh_interval="1s")
    return yaml.safe_dump(settings)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, "Prometheus has not scraped the worker"
        time.sleep(0.1)
    return found


def series(prometheus: Prometheus, selector: str) -> list[dict[str, str]]:
    return [each["metric"] for each in prometheus.query(selector)]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_task_forges_no_series_of_others_nor_of_other_metrics(name, address, tmp_path: Path):
    file = tmp_path / name
    file.write_text(of_this_run(name, address))
    with running(file, tmp_path) as prometheus:
        until(lambda: prometheus.query("svc_worker_info"))
        found = series(prometheus, '{__name__=~".+",__name__!~"scrape_.+"}')

    target = {"job": "svc-worker", "instance": address, **LISTED}
    assert {each["__name__"] for each in found} == OWN | {"up"}
    assert [each for each in found if each != {"__name__": each["__name__"], **target}] == []
    assert len(found) == len(OWN) + 1
