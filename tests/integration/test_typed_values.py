"""Values that need extension types: the same rule in Client, Executor, command line and plain clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal

import pytest

from svc import Client, Executor
from tests.support.svc import ROOT, Host, end
from tests.support.workers import TASKS

LOCAL = datetime.fromisoformat("2026-03-01T12:30")
VALUES = [(1, "a"), {3}, Decimal("1.10"), date(2026, 3, 1), LOCAL, [{"deep": (2**70,)}]]
ECHO = f"{TASKS}:echo"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("typed"))
    manager = host.start_manager()
    (host.folder / "media.py").write_text("def thumbnail(image: bytes) -> bytes:\n    return image[::-1]\n")
    host.env["PYTHONPATH"] += f"{os.pathsep}{host.folder}"
    worker = host.start_worker("--tasks", f"{TASKS},media")
    yield host
    end(worker, manager)
    host.log.close()


def test_a_client_gets_back_the_values_that_it_sent(host):
    with Client(host.env["SVC_MANAGER"], authkey_file=host.folder / "authkey") as client:
        assert [client.submit(ECHO, value).result(30) for value in VALUES] == VALUES


def test_an_executor_gets_back_the_values_that_it_sent(host):
    with Executor(host.env["SVC_MANAGER"], authkey_file=host.folder / "authkey") as executor:
        assert list(executor.map(ECHO, VALUES, timeout=30)) == VALUES


def test_the_command_line_shows_them_in_json(host):
    with Client(host.env["SVC_MANAGER"], authkey_file=host.folder / "authkey") as client:
        ids = [client.submit(ECHO, value).id for value in [*VALUES, float("nan"), -float("inf")]]
    shown = [json.loads(line) for line in host.svc("results", *ids, "--ndjson").stdout.splitlines()]
    found = {each["id"]: each["value"] for each in shown}

    assert [found[name] for name in ids] == [
        [1, "a"], [3], "1.10", "2026-03-01", "2026-03-01T12:30:00", [{"deep": [2**70]}], "NaN", "-Infinity",
    ]  # fmt: skip


def test_the_documented_commands_carry_a_file_there_and_back(host):
    block = (
        (ROOT / "docs" / "cli.md")
        .read_text()
        .partition("## Files as arguments and results")[2]
        .split("```")[1]
    )
    content = bytes(range(256)) * 5000
    (host.folder / "photo.jpg").write_bytes(content)
    script = f'set -e; svc() {{ "{sys.executable}" -m svc "$@"; }}\n{block}'
    subprocess.run(["sh", "-c", script], cwd=host.folder, env=host.env, check=True, timeout=60)

    assert (host.folder / "thumbnail.jpg").read_bytes() == content[::-1]
