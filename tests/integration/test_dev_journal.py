"""`svc dev --journal FILE` keeps its jobs."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.svc import DEADLINE, SVC, environment, running, until


@contextmanager
def dev(folder: Path) -> Iterator[dict[str, str]]:
    """Run it with a journal in *folder*; yield the settings that it prints for another terminal."""
    log = folder / "log"
    with (
        log.open("w") as output,
        running(*SVC, "dev", "--journal", "kept.journal", "--consumers", "1", cwd=folder, env=environment(),
                stdout=output, stderr=output) as process,
    ):  # fmt: skip
        until(lambda: "Ctrl-C here" in log.read_text() or process.poll() is not None, "svc dev is ready")
        assert "keeps the jobs in kept.journal" in log.read_text()
        yield dict(re.findall(r"export (\w+)=(\S+)", log.read_text()))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


def svc(settings: dict[str, str], *argv: str) -> str:
    env = environment(**settings)
    return subprocess.run(
        [*SVC, *argv], env=env, capture_output=True, text=True, timeout=DEADLINE, check=True
    ).stdout


@pytest.mark.slow
def test_jobs_of_a_named_journal_are_there_the_next_time(tmp_path: Path):
    with dev(tmp_path) as settings:
        job = svc(settings, "submit", "multiply", "6", "7", "--delay", "1d").strip()
    with dev(tmp_path) as settings:
        assert '"scheduled"' in svc(settings, "jobs", "show", job, "--json")
