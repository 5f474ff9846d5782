"""Draw bars: `python plot.py PANELS.json PLOT.png`, in the environment that has matplotlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

#: If the largest figure is more than this many times the smallest, the scale is logarithmic.
_WIDE = 30
_OURS, _OTHERS = "#c2410c", "#94a3b8"


def draw(panels: list[dict[str, Any]], note: str, target: Path) -> None:
    """Write the panels side by side, ours in another colour."""
    plt.rcParams["font.size"] = 9
    names = [name for panel in panels for name in panel["bars"]]
    names = list(dict.fromkeys(names))
    size = (4.5 * len(panels), 0.34 * len(names) + 1.1)
    figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
    for place, panel in zip(axes[0], panels, strict=True):
        _bars(place, names, panel)
    axes[0][0].invert_yaxis()  # of all panels: the first name is at the top
    figure.supxlabel(note, fontsize=8, color="#475569")
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def _bars(axes: Any, names: list[str], panel: dict[str, Any]) -> None:
    values = [panel["bars"].get(name) for name in names]
    known = [value for value in values if value]
    colours = [_OURS if name.startswith("svc") else _OTHERS for name in names]
    wide = max(known) > _WIDE * min(known)
    bars = axes.barh(names, [value or 0 for value in values], color=colours, log=wide)
    labels = ["" if value is None else panel["form"].format(value) for value in values]
    for bar, value in zip(bars, values, strict=True):
        bar.set_visible(value is not None)
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_xlim(*((min(known) / 3, max(known) * 5) if wide else (0, max(known) * 1.3)))
    axes.set_title(panel["title"], fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text())
    draw(document["panels"], document["note"], Path(sys.argv[2]))
