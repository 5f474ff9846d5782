"""`svc` in processes of its own: a folder with an authkey, a manager, a worker, and a method for commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.ports import lasting_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SVC = (sys.executable, "-m", "svc")
DEADLINE = 120.0


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of a child, without the developer's own settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SVC_")}
    path = os.pathsep.join(filter(None, (str(ROOT), clean.get("PYTHONPATH"))))
    return {**clean, "PYTHONPATH": path, **{name: str(value) for name, value in settings.items()}}


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return the value of *condition* once it is true; for events that no signal reports."""
    end = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.02)
    return found


def first_line(process: subprocess.Popen[Any]) -> Any:
    """Return the next line that a process writes; end it if it writes none in time."""
    assert process.stdout is not None
    with ended_late(process):
        return process.stdout.readline()


@contextmanager
def ended_late(process: subprocess.Popen[Any], seconds: float = DEADLINE) -> Iterator[None]:
    """Kill a process that lets the block wait for too long, so that the wait has an end."""
    late = threading.Timer(seconds, process.kill)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def processes_with(text: str) -> list[int]:
    """Return the processes whose command line contains *text*."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@contextmanager
def running(*argv: str, cwd: Path, env: dict[str, str], **pipes: Any) -> Iterator[Any]:
    """Run a command, and end it afterwards."""
    process = subprocess.Popen(argv, cwd=cwd, env=env, text=True, **pipes)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()


class Host:
    """A folder with an authkey, a manager that can be killed and started again, and `svc` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = folder / "authkey"
        subprocess.run(
            [*SVC, "auth", "generate", "--output", str(key)], env=environment(), check=True, stdout=-3
        )
        self.env = environment(SVC_AUTHKEY_FILE=key)
        #: The words before the commands of managers and workers: the prefix of a control group, for instance.
        self.prefix: tuple[str, ...] = ()
        self.log = (folder / "log").open("ab")

    def start(self, verb: str, *flags: str) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
        """Start a manager or worker; return it with its addresses once it serves."""
        announced = self.folder / f"{verb}.json"
        announced.unlink(missing_ok=True)
        process = subprocess.Popen(
            [*self.prefix, *SVC, verb, "--http", "127.0.0.1:0", "--announce", str(announced), *flags],
            cwd=self.folder, env=self.env, stderr=self.log,
        )  # fmt: skip
        until(lambda: announced.exists() or process.poll() is not None, f"{verb} serves")
        assert process.poll() is None, (self.folder / "log").read_text()
        return process, json.loads(announced.read_text())

    def start_manager(self, listen: str = "", *flags: str) -> subprocess.Popen[bytes]:
        """Start a manager; without *listen* at a port that it finds free if it is started there again."""
        at = listen or f"127.0.0.1:{lasting_port()}"
        process, addresses = self.start("manager", "--listen", at, *flags)
        self.env |= {"SVC_MANAGER": addresses["listen"], "MANAGER_HTTP": addresses["http"]}
        return process

    def start_worker(self, *flags: str) -> subprocess.Popen[bytes]:
        flags = ("--tasks", "svc.cli.demo_tasks", "--consumers", "2", *flags)
        process, addresses = self.start("worker", *flags)
        self.env["WORKER_HTTP"] = addresses["http"]
        return process

    def svc(self, *argv: str, stdin: str = "", **settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SVC, *argv], cwd=self.folder, env={**self.env, **{k: str(v) for k, v in settings.items()}},
            input=stdin, capture_output=True, text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Ask processes to end, in order, and wait until they have ended."""
    for process in processes:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
