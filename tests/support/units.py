"""The units of systemd in deploy/systemd, read as far as tests compare them with the code."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.svc import ROOT

UNITS = ROOT / "deploy" / "systemd"
MANAGER, WORKER = UNITS / "svc-manager.service", UNITS / "svc-worker.service"


def values(unit: Path, name: str) -> list[str]:
    """Return the values that a unit gives to a name, in their order."""
    pairs = [line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line]
    return [value for key, value in pairs if key == name]


def value(unit: Path, name: str) -> str:
    """Return the only value of a name."""
    (found,) = values(unit, name)
    return found


def analysed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `systemd-analyze`.

    Raises:
        OSError: there is none here.
    """
    if shutil.which("systemd-analyze") is None:
        raise OSError("there is no `systemd-analyze`")
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_EMOJI": "0"},
    )
