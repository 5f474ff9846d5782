"""Draw the figures: `python plot.py FIGURES.json PLOT.png`, in the environment that has matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

_OURS, _OTHERS = "#c2410c", "#94a3b8"


def draw(figures: dict[str, Any], target: Path) -> None:
    """Write bars on a logarithmic scale: no-op jobs a second, and the round trip of one job."""
    plt.rcParams["font.size"] = 9
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.34 * len(figures["systems"]) + 1.1), sharey=True)
    _bars(axes[0], figures["systems"], "jobs/s", "no-op jobs a second (more is better)", "{:,.0f}")
    _bars(
        axes[1], figures["systems"], "p50 ms", "ms from submit to result, one job (less is better)", "{:.2f}"
    )
    note = f"4 processes, {figures['cpus']} cores, load average {figures['load']:.0f}; Redis without fsync"
    figure.supxlabel(note, fontsize=8, color="#475569")
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def _bars(axes: Any, systems: list[dict[str, Any]], measure: str, title: str, form: str) -> None:
    values = [each["median"][measure] for each in systems]
    names = [each["system"] for each in systems]
    colours = [_OURS if name.startswith("svc") else _OTHERS for name in names]
    axes.bar_label(axes.barh(names, values, color=colours, log=True), fmt=form.format, padding=3, fontsize=8)
    axes.set_xlim(min(values) / 3, max(values) * 5)
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
