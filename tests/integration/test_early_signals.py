"""A signal that comes while a manager or a worker starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", [["worker", "--tasks", "mytasks"], ["manager"]])
def test_a_reload_that_comes_before_the_settings_are_read_ends_nothing(
    command: list[str], tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    os.mkfifo(settings)
    words = [sys.executable, "-m", "svc", "--config", str(settings), *command]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as starting:
        with settings.open("w") as written:  # it goes on as soon as the process reads its settings
            starting.send_signal(signal.SIGHUP)
            written.write("[nothing]\n")
        _, told = starting.communicate(timeout=60)
    assert (starting.returncode, "nothing" in told) == (2, True)
