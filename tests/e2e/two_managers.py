"""Two managers and three NATS servers in Compose, a load on them, and what their containers say."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import docker
from docker.models.containers import Container

from svc.server.journal.jetstream.stream_form import BUCKET_SUFFIX
from tests.e2e.readings import fetch
from tests.support.docker import Project, wait_for

MANAGERS, SERVERS = ("manager-1", "manager-2"), ("nats-1", "nats-2", "nats-3")
#: The name of the stream in deploy/compose.ha.yaml, and of that of the bucket with the leader's key.
STREAM = "svc"
BUCKET = f"KV_{STREAM}{BUCKET_SUFFIX}"
_LOAD = Path(__file__).with_name("paced_load.py")
#: Prints the leader of a stream as one server says.
_STREAM_LEADER = """
import json, sys, urllib.request
found = json.load(urllib.request.urlopen(sys.argv[1] + "/jsz?accounts=true&streams=true", timeout=20))
for account in found.get("account_details", ()):
    for stream in account.get("stream_detail", ()):
        if stream["name"] == sys.argv[2]:
            print(stream.get("cluster", {}).get("leader", ""))
"""


@dataclass
class Load:
    """Jobs that were submitted at an even pace; complete once the block of `TwoManagers.load` has ended.

    Attributes:
        jobs: of each its number, and the times of day of its submission and of its start.
        ids: of all jobs.
    """

    jobs: list[tuple[int, float, float]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def first_start_after_death(self, moment: float) -> float:
        """Return the seconds from the death of a leader at *moment* to the first start by its successor.

        Its key lives on for more than two seconds, so a job that starts within one was granted by itself.
        """
        return min(started for _, _, started in self.jobs if started > moment + 1) - moment

    def longest_pause(self) -> float:
        """Return the most seconds between two starts."""
        starts = sorted(started for _, _, started in self.jobs)
        return max(later - earlier for earlier, later in pairwise(starts))


class TwoManagers:
    """The running service."""

    def __init__(self, project: Project, client: docker.DockerClient) -> None:
        """Look at the containers of *project*."""
        self.project = project
        self._client = client

    def container(self, service: str) -> Container:
        """Return the container of a service."""
        (found,) = self.project.containers(self._client, service)
        return found

    def ready(self, manager: str) -> bool:
        """Return whether a manager leads and serves."""
        asked = self.container(manager).exec_run(["svc", "health", "--quiet"])
        return bool(asked.exit_code == 0)

    def granted(self, manager: str) -> bool:
        """Return whether a manager has handed out jobs."""
        text = fetch(self.project.address(manager, 9100), "/metrics")
        return any(line.startswith("svc_jobs_started_total{") for line in text.splitlines())

    def leader(self) -> str:
        """Return the manager that leads, once one does."""
        led: list[str] = []

        def leads() -> bool:
            running = [name for name in MANAGERS if self.container(name).status == "running"]
            led.extend(name for name in running if self.ready(name))
            return bool(led)

        wait_for(leads, 90, "a manager leads", every=0.5)
        return led[0]

    def stream_leader(self) -> str:
        """Return the NATS server that leads the stream, once one does."""
        return self._leader_of(STREAM)

    def bucket_leader(self) -> str:
        """Return the NATS server that leads the bucket of the leader's key, once one does."""
        return self._leader_of(BUCKET)

    def _leader_of(self, stream: str) -> str:
        led: list[str] = []

        def leads() -> bool:
            manager = self.container(self.leader())
            for server in SERVERS:
                asked = manager.exec_run(["python", "-c", _STREAM_LEADER, f"http://{server}:8222", stream])
                if asked.exit_code == 0 and isinstance(asked.output, bytes) and asked.output.strip():
                    led.append(asked.output.decode().strip())
                    return True
            return False

        wait_for(leads, 90, f"a server leads {stream}", every=0.5)
        return led[0]

    def kill(self, *services: str) -> float:
        """Kill containers by SIGKILL; return the time of day at which the last of them has ended."""
        for service in services:
            self.container(service).kill("SIGKILL")
        for service in services:
            self.container(service).wait(timeout=90)
        ended = [self.container(service).attrs["State"]["FinishedAt"] for service in services]
        return max(datetime.fromisoformat(f"{each[:26]}+00:00").timestamp() for each in ended)

    def start(self, *services: str) -> None:
        """Start containers that have ended, and wait until they are as Compose wants them."""
        for service in services:
            self.container(service).start()
        self.project.up("--no-recreate", *MANAGERS, *SERVERS)

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state, by the leader."""
        told = json.loads(self.project.cli("status", "--json").stdout)
        states = ("ready", "leased", "scheduled", "succeeded", "dead", "cancelled")
        return {state: sum(queue[state] for queue in told["queues"]) for state in states}

    def has_standby(self) -> bool:
        """Return whether the leader knows of a standby."""
        return bool(json.loads(self.project.cli("status", "--json").stdout)["standbys"])

    @contextmanager
    def load(self, rate: float = 100) -> Iterator[Load]:
        """Submit jobs for the length of the block, and wait for the results of all."""
        name = f"{self.project.name}-load-{time.monotonic_ns()}"
        run = ("run", "--rm", "--no-TTY", "--name", name, "--entrypoint", "python", "cli", "-", str(rate))
        process = self.project.start(*run)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_LOAD.read_text())
        process.stdin.close()
        lines: list[str] = []
        begun = threading.Event()
        reader = threading.Thread(target=_read, args=(process, lines, begun))
        reader.start()
        made = Load()
        try:
            wait_for(lambda: begun.is_set() or process.poll() is not None, 90, "the load begins")
            assert lines[:1] == ["begun\n"], lines
            yield made
            self._client.containers.get(name).kill("SIGTERM")
            assert process.wait(120) == 0, lines[-20:]
        finally:
            process.kill()
            reader.join()
            process.stdout.close()
            process.wait()
        for line in lines[1:]:
            job = json.loads(line)
            made.jobs.append((job["number"], job["submitted"], job["started"]))
            made.ids.append(job["id"])


def _read(process: subprocess.Popen[str], lines: list[str], begun: threading.Event) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        begun.set()
