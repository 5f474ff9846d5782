"""Two managers on one stream of real NATS servers, on loopback, with a worker and clients that know both."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from svc.app import Client
from tests.support.ports import lasting_ports
from tests.support.processes import ROOT
from tests.support.workers import until


class Managers:
    """Managers on one stream, a worker, and clients that know all of them."""

    def __init__(self, folder: Path, servers: list[str], name: str) -> None:
        self.folder = folder
        #: More options of all managers that start from now on.
        self.flags: tuple[str, ...] = ()
        self.listen = [f"127.0.0.1:{port}" for port in lasting_ports(2)]
        self.http = [f"127.0.0.1:{port}" for port in lasting_ports(2)]
        self.journal = f"nats://{','.join(servers)}/{name}"
        self.processes: list[subprocess.Popen[bytes]] = []
        key = folder / "authkey"
        key.write_text("k" * 40)
        key.chmod(0o600)
        #: The environment of all processes that start from now on.
        self.environment = {"SVC_AUTHKEY_FILE": str(key), "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}

    def start(self, number: int) -> subprocess.Popen[bytes]:
        announced = self.folder / f"m{number}.json"
        announced.unlink(missing_ok=True)
        process = self.begin(number, "--announce", str(announced))
        until(announced.exists, 60)
        return process

    def begin(self, number: int, *flags: str) -> subprocess.Popen[bytes]:
        """Start a manager, and return at once."""
        return self._run(
            self.log_of(number),
            *("manager", "--listen", self.listen[number], "--http", self.http[number]),
            *("--journal", self.journal, "--journal-replicas", "1"),
            *("--mirror", str(self.folder / f"mirror{number}"), *flags, *self.flags),
        )

    def start_without(self, protection: str, number: int) -> subprocess.Popen[bytes]:
        """Start a manager without one of its protections, see `tests/support/sabotage`."""
        whole = self.environment
        path = f"{ROOT / 'tests' / 'support' / 'sabotage'}:{ROOT}"
        self.environment = {**whole, "SVC_SABOTAGE": protection, "PYTHONPATH": path}
        try:
            return self.start(number)
        finally:
            self.environment = whole

    def worker(self, http: str = "off") -> subprocess.Popen[bytes]:
        return self._run(
            self.folder / "worker.log",
            *("worker", "--manager", ",".join(self.listen), "--http", http),
            *("--tasks", "tests.support.worker_tasks", "--consumers", "1"),
        )

    def client(self, *numbers: int, timeout: float = 30) -> Client:
        known = [self.listen[number] for number in numbers or (0, 1)]
        return Client(",".join(known), authkey_file=self.folder / "authkey", timeout=timeout)

    def ready(self, number: int) -> tuple[int, str]:
        """Return the status of a manager's /readyz, 0 if there is none, and its text."""
        return self.asked(number, "/readyz")

    def asked(self, number: int, path: str) -> tuple[int, str]:
        """Return the status of a *path* at a manager, 0 if there is none, and its text."""
        try:
            with urllib.request.urlopen(f"http://{self.http[number]}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def svc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of an operator who knows both managers."""
        return subprocess.run(
            [sys.executable, "-m", "svc", *arguments, "--manager", ",".join(self.listen)],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(60)

    def log_of(self, number: int) -> Path:
        """Return the file with the log of a manager, of all its starts."""
        return self.folder / f"m{number}.log"

    def events(self, number: int, name: str) -> list[dict[str, Any]]:
        """Return the records of one event in the log of a manager."""
        lines = self.log_of(number).read_text(encoding="utf-8").splitlines()
        return [record for line in lines if f'"{name}"' in line for record in [json.loads(line)]]

    def _run(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "svc", *arguments],
                env=self.environment,
                cwd=self.folder,
                stderr=stderr,
            )
        self.processes.append(process)
        return process


@contextmanager
def managers(folder: Path, nats: Any, name: str) -> Iterator[Managers]:
    made = Managers(folder, nats.addresses, name)
    try:
        yield made
    finally:
        made.close()


def metrics_of(address: str) -> dict[str, float]:
    """Return the samples of a manager's metrics by name and labels.

    Raises:
        OSError: there is no answer, or the manager asks to try again.
    """
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
