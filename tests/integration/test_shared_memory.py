"""Workers on a host whose /dev/shm is missing, full or closed, or is emptied while they run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.svc import SVC, Host, end, until

TASKS = "tests.support.worker_tasks"
FULL = "mount -t tmpfs -o size=8k none /dev/shm && head -c 8192 /dev/zero > /dev/shm/x"
STATES = {
    "missing": (
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9",
        "is missing",
    ),
    "no memory": ("mount -t proc none /dev/shm", "/dev/shm"),
    "full": (FULL, "is full"),
    "read-only": ("mount -t tmpfs -o ro none /dev/shm", "cannot be written"),
}


def inside(setup: str) -> tuple[str, ...]:
    """Return the first words of a command that alone sees *setup*'s mounts; takes root."""
    return ("unshare", "--mount", "sh", "-ec", f'{setup}; exec "$@"', "sh")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    if subprocess.run(
        ["unshare", "--mount", "true"], check=False, capture_output=True, timeout=60
    ).returncode:
        message = "a mount namespace takes root"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    host = Host(tmp_path)
    yield host
    host.log.close()


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", ["worker", "dev"])
def test_it_is_said_in_one_clear_line(host: Host, state: str, verb: str):
    setup, expected = STATES[state]
    flags = ("--manager", "127.0.0.1:1", "--http", "off") if verb == "worker" else ()
    done = subprocess.run(
        [*inside(setup), *SVC, verb, "--tasks", "svc.cli.demo_tasks", *flags],
        env=host.env, cwd=host.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "no consumer can be started: /dev/shm" in done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["rm -rf /dev/shm/*", "head -c 99999999 /dev/zero > /dev/shm/x || true"])
def test_a_worker_whose_shared_memory_is_emptied_or_filled_goes_on_with_what_it_has(host: Host, loss: str):
    manager = host.start_manager()
    host.prefix = inside("mount -t tmpfs -o size=1m none /dev/shm")
    worker = host.start_worker("--tasks", TASKS)
    subprocess.run(
        ["nsenter", "--mount", "--target", str(worker.pid), "sh", "-c", loss], check=True, timeout=60
    )
    job = json.loads(host.svc("submit", f"{TASKS}:kill_self", "--json").stdout)["id"]
    if "head" in loss:
        until(lambda: "/dev/shm is full" in (host.folder / "log").read_text(), "the log says so")
        free = ["nsenter", "--mount", "--target", str(worker.pid), "rm", "/dev/shm/x"]
        subprocess.run(free, check=True, timeout=60)
    assert until(lambda: _ended(host, job), "the job that kills its consumers is dead") == "dead"
    done = host.svc("submit", f"{TASKS}:echo", "5", "--wait")
    assert (done.returncode, done.stdout.strip()) == (0, "5")
    end(worker, manager)


def _ended(host: Host, job: str) -> str:
    state = str(json.loads(host.svc("jobs", "show", job, "--json").stdout)["state"])
    return state if state in ("dead", "succeeded") else ""
