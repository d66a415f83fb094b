"""The plot of simulated runs: ``python simulate_plot.py FIGURES.json PLOT.png`` draws one again."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#c4161c", "#5790fc", "#f89c20", "#717581")


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw time over workers for each rate and size of unit, and save it."""
    calm = [row for row in rows if row["scenario"][0].isdigit()]
    rates = sorted({row["rate_khz"] for row in calm}, reverse=True)
    figure, panels = plt.subplots(
        1, max(len(rates), 1), figsize=(4.4 * max(len(rates), 1), 4.2), layout="constrained", squeeze=False
    )
    for axes, rate in zip(panels[0], rates, strict=False):
        _panel(axes, [row for row in calm if row["rate_khz"] == rate], rate)
    panels[0][0].set_ylabel("From submission to the last snapshot (s)")
    figure.savefig(path, dpi=150)


def _panel(axes: Any, rows: Sequence[dict[str, Any]], rate: float) -> None:
    sizes = sorted({row["unit_events"] for row in rows}, reverse=True)
    for size, colour in zip(sizes, COLOURS, strict=False):
        mine = sorted((row for row in rows if row["unit_events"] == size), key=lambda row: row["workers"])
        workers = [row["workers"] for row in mine]
        axes.plot(
            workers,
            [row["makespan_s"] for row in mine],
            "o-",
            color=colour,
            label=f"units of {size / 1e6:g}M events",
        )
    ideal = {row["workers"]: row["ideal_s"] for row in rows}
    axes.plot(sorted(ideal), [ideal[workers] for workers in sorted(ideal)], "k--", lw=1, label="ideal")
    axes.set(xscale="log", yscale="log", xlabel="Workers", title=f"{rate:g} kHz a core")
    axes.legend(frameon=False)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
