"""The plot of a report: rates by number of templates. ``python plot.py REPORT.json PLOT.png`` draws one again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

OURS, WRITTEN, TUNED, FRAME, READING = "#c4161c", "#92c5ff", "#5790fc", "#f89c20", "#717581"
ELEMENTS = {"_none": 1, "_some": 1 + 317, "": 1 + 317 + 2784}
"""Of RDataFrame's tensors and the nominal."""


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw a report of `run`, for the file in which every event is selected, and save it."""
    growth = report["growth"]
    figure, axes = plt.subplots(figsize=(6.6, 4.4), layout="constrained")
    reading = report["bare_read_selected_khz"]
    axes.axhline(reading, color=READING, ls="--", lw=1.2)
    axes.text(1, 1.15 * reading, "uproot, only reading", color=READING)
    _curve(axes, growth, "full_khz", "o-", OURS, "binworks")
    if report["full_over_rdataframe"] is not None:
        rates = {n: report[f"rdataframe{name}_selected_khz"] for name, n in ELEMENTS.items()}
        rates[report["templates"]] = report["rdataframe_equal_selected_khz"]
        axes.plot(
            list(rates), list(rates.values()), "s-", color=FRAME, label="RDataFrame, dense tensors in C++"
        )
    _curve(axes, growth, "coffea_tuned_khz", "^-", TUNED, "coffea, a histogram for each template")
    _curve(axes, growth, "coffea_idiom_khz", "v-", WRITTEN, "coffea, one growing category axis")
    axes.set(
        xscale="log", yscale="log", xlabel="Templates", ylabel="Selected events a second, one core (kHz)"
    )
    axes.set_ylim(top=3 * reading)
    axes.legend(frameon=False, loc="lower left")
    axes.grid(alpha=0.25)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _curve(axes: Any, growth: list[dict[str, Any]], key: str, style: str, colour: str, label: str) -> None:
    points = [(row["templates"], row[key]) for row in growth if row[key] is not None]
    axes.plot(*zip(*points, strict=True), style, color=colour, label=label)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
