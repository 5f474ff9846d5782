"""A Docker engine and Compose projects for tests: real ones with unique names, which are all removed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from docker.models.containers import Container

ROOT = Path(__file__).resolve().parents[2]

#: The files of two managers on a journal that NATS servers keep.
TWO_MANAGERS = ("compose.yaml", "deploy/compose.ha.yaml")
#: An empty file, so that a developer's own settings cannot affect a test.
_NO_ENV_FILE = "/dev/null"
#: Waits for the end of its input, which also comes if the test process is killed, then removes the project.
_REAP = 'cat >/dev/null; exec docker compose "$@" down --volumes --remove-orphans --timeout 1'


def engine() -> docker.DockerClient:
    """Return a client of the Docker engine; without an engine skip the test, or fail it if CI=true."""
    try:
        client = docker.from_env(timeout=180)
        client.ping()
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True, timeout=90)
    except (DockerException, OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true and there is no Docker engine with Compose: {error}")
        pytest.skip(f"there is no Docker engine with Compose: {error}")
    return client


def wait_for(condition: Callable[[], object], seconds: float, what: str, every: float = 0.1) -> None:
    """Return when *condition* is true; after *seconds* fail with *what* and the last value."""
    deadline = time.monotonic() + seconds
    while not (last := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s (last seen: {last!r})")
        time.sleep(every)


@dataclass(frozen=True)
class Project:
    """A Compose project of this repository.

    Attributes:
        name: the project's name; all its containers, networks and volumes have it.
        environment: values of the variables in the compose files.
        files: the compose files, relative to the root.
    """

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[str | Path] = ("compose.yaml",)

    def overridden(self, *files: str | Path, **environment: str) -> Project:
        """Return the same project with further compose files and variables."""
        merged = {**self.environment, **environment}
        return replace(self, files=(*self.files, *files), environment=merged)

    def compose(
        self, *arguments: str, stdin: str = "", seconds: float = 250, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `docker compose`; if *check* is set, a failure fails the test and shows the output."""
        command = ["docker", "compose", *self._selection(), *arguments]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environ(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(
                f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}{self.logs()}"
            )
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `docker compose` with pipes for its input and its output, and return at once."""
        return subprocess.Popen(
            ["docker", "compose", *self._selection(), *arguments],
            cwd=ROOT,
            env=self._environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def up(self, *arguments: str) -> None:
        """Start services and wait until they are healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", "200", *arguments)

    def heal(self, workers: int) -> None:
        """Wait for a healthy manager and so many healthy workers; running containers stay untouched."""
        scale = ("--no-deps", "--no-recreate", "--scale", f"worker={workers}")
        self.up(*scale, "manager", "worker")

    def scale(self, workers: int) -> None:
        """Change the number of workers; the remaining ones stay untouched."""
        scale = f"worker={workers}"
        self.compose("up", "--detach", "--no-deps", "--no-recreate", "--scale", scale, "worker")

    def svc(self, *arguments: str, stdin: str = "", seconds: float = 250) -> subprocess.CompletedProcess[str]:
        """Run `svc` in the manager's container: the fast way, for steps that a test does not check."""
        return self.compose("exec", "--no-TTY", "manager", "svc", *arguments, stdin=stdin, seconds=seconds)

    def cli(self, *arguments: str, stdin: str = "", seconds: float = 250) -> subprocess.CompletedProcess[str]:
        """Run `svc` in a container of its own, like `docker compose run --rm cli …` in the docs."""
        run = ("run", "--rm", "--no-TTY", "cli")
        return self.compose(*run, *arguments, stdin=stdin, seconds=seconds)

    def logs(self) -> str:
        """Return the last log lines of all services."""
        logs = ["docker", "compose", *self._selection(), "logs", "--no-color", "--tail", "40"]
        done = subprocess.run(
            logs, cwd=ROOT, env=self._environ(), capture_output=True, text=True, timeout=120, check=False
        )
        return f"\n--- logs\n{done.stdout}"

    def config(self) -> dict[str, Any]:
        """Return the whole model in Compose's form, with all profiles."""
        done = self.compose("--profile", "*", "config", "--format", "json")
        model: dict[str, Any] = json.loads(done.stdout)
        return model

    def address(self, service: str, port: int) -> str:
        """Return the HOST:PORT of a published port on this host."""
        return self.compose("port", service, str(port)).stdout.strip()

    def containers(self, client: docker.DockerClient, service: str) -> list[Container]:
        """Return the containers of a service, stopped ones included, by number."""
        labels = [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]
        found = client.containers.list(
            all=True, filters={"label": [*labels, "com.docker.compose.oneoff=False"]}
        )
        return sorted(found, key=lambda each: int(each.labels["com.docker.compose.container-number"]))

    @contextmanager
    def reaped(self) -> Iterator[Project]:
        """Remove everything of the project when the block ends, and also if this process is killed."""
        selection = [*self._selection(), "--profile", "*"]
        reaper = subprocess.Popen(
            ["sh", "-c", _REAP, "sh", *selection],
            cwd=ROOT,
            env=self._environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield self
        finally:
            reaper.communicate(timeout=250)

    def _selection(self) -> list[str]:
        files = [argument for file in self.files for argument in ("--file", str(file))]
        return ["--project-name", self.name, "--env-file", _NO_ENV_FILE, *files]

    def _environ(self) -> dict[str, str]:
        foreign = ("SVC_", "COMPOSE_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return {**kept, **self.environment}
