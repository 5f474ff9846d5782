"""How `svc dev` starts: on ports that others take meanwhile, and with tasks that cannot be imported."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from svc.cli.children import ChildFailed, running_service
from svc.cli.dev import dev
from tests.support.svc import DEADLINE, SVC, environment

WORKER = ("--name", "dev", "--tasks", "svc.cli.demo_tasks", "--consumers", "1", "--http", "127.0.0.1:0")


def flags(listen: int) -> tuple[str, ...]:
    return ("--listen", f"127.0.0.1:{listen}", "--http", "127.0.0.1:0")


def test_a_port_that_is_taken_after_it_was_chosen_is_changed_for_a_free_one(capfd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        choices = iter((flags(taken), flags(0)))
        with running_service(lambda: next(choices), WORKER, quiet=False) as service:
            assert ("127.0.0.1", taken) not in service.connection.manager.pairs()
    told = capfd.readouterr().err
    assert f"svc: cannot listen on 127.0.0.1:{taken}" in told
    assert "svc: the manager starts again, at addresses that are free\n" in told


def test_a_conflict_that_no_port_is_to_blame_for_ends_the_start(capfd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        same = flags(other.getsockname()[1])
        with (
            pytest.raises(ChildFailed, match="exit code 6"),
            running_service(lambda: same, WORKER, quiet=False),
        ):
            pass
    assert "starts again" not in capfd.readouterr().err


def test_it_does_not_say_that_it_is_ready_if_the_tasks_cannot_be_imported(tmp_path: Path):
    ended = subprocess.run(
        [*SVC, "dev", "--tasks", "shoop", "--consumers", "1"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "shoop" in ended.stderr
    assert "svc is ready" not in ended.stderr


def test_the_help_says_how_long_running_jobs_have_when_a_file_is_changed():
    from svc.cli.children import GRACE_SECONDS

    assert dev.__doc__ is not None
    assert f"have {GRACE_SECONDS:g} s to end" in dev.__doc__
