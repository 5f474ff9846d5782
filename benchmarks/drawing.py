"""Draws bars with matplotlib, which has an environment of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.peers.environments import interpreter
from benchmarks.peers.table import LOCKS


class Panel(NamedTuple):
    """The bars of one measure: its title, the format of a figure (`str.format`), and each system's figure."""

    title: str
    form: str
    bars: Mapping[str, float]


def draw(panels: list[Panel], note: str, target: Path) -> None:
    """Write *panels* side by side to *target*, a PNG, with *note* below.

    Raises:
        subprocess.CalledProcessError: matplotlib could not be installed, or the file could not be written.
    """
    python = interpreter(LOCKS / "plot.lock")
    script = Path(__file__).with_name("plot.py")
    with TemporaryDirectory(prefix="svc-plot-") as folder:
        document = Path(folder) / "panels.json"
        document.write_text(json.dumps({"panels": [each._asdict() for each in panels], "note": note}))
        subprocess.run([str(python), str(script), str(document), str(target)], check=True)
