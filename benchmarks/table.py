"""A report as Markdown, for docs/explanation/speed.md. ``python table.py REPORT.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PEERS = {
    "bare_read": "uproot, only reading the same branches",
    "rdataframe": "RDataFrame in C++, dense tensors of 317 + 2784 elements",
    "rdataframe_equal": "RDataFrame in C++, dense tensors, as many elements as templates",
    "coffea_idiom": "coffea idiom as it is written, one category axis that grows",
    "coffea_tuned": "coffea idiom tuned, a histogram for each template",
}
FIGURES = {
    "chunk_fixed_ms": "fixed cost of a chunk, 20 columns of a file with 1700 branches, open (ms)",
    "chunk_cold_ms": "the same, the file not open (ms)",
    "chunk_new_worker_ms": "the same, in a new worker, with the service's index of the file (ms)",
    "chunk_new_worker_without_index_ms": "the same, without (ms)",
    "chunk_coffea_ms": "the same, coffea's NanoEvents (ms)",
    "peak_rss_mb": "largest resident memory of a new worker with one thread, full pass (MB)",
    "imported_rss_mb": "of it, once everything is imported (MB)",
    "shared_rss_mb": "of it, libraries that all processes of a machine share (MB)",
    "peak_rss_cold_mb": "the same, if it compiles the kernels before (MB)",
    "compile_cold_s": "compiling all kernels (s)",
    "compile_cached_s": "loading them from the cache (s)",
    "prepare_s": "reading and checking the correction set (s)",
}


def of(report: dict[str, Any]) -> str:
    """Return the tables of a report of `run`."""
    lines = ["| | kHz | binworks is faster by | kHz, all selected | by |", "|---|---|---|---|---|"]
    ours = "binworks, all {} templates".format(report["templates"])
    lines.append(f"| **{ours}** | {report['full_khz']:.0f} | | {report['full_selected_khz']:.0f} | |")
    for name, label in PEERS.items():
        cells = []
        for suffix in ("", "_selected"):
            rate, ratio = report.get(f"{name}{suffix}_khz"), report[f"full_over_{name}{suffix}"]
            cells += ["", ""] if ratio is None else [f"{rate:.3g}", f"{ratio:.2g}"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    lines += ["", "| templates | binworks | coffea tuned | coffea as written |", "|---|---|---|---|"]
    for row in report["growth"]:
        rates = [row[key] for key in ("full_khz", "coffea_tuned_khz", "coffea_idiom_khz")]
        numbers = ["" if rate is None else f"{rate:.3g}" for rate in rates]
        lines.append(f"| {row['templates']} | " + " | ".join(numbers) + " |")
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {label} | {report[name]:.3g} |" for name, label in FIGURES.items()]
    if report["rdataframe_missing"]:
        lines += ["", f"No RDataFrame: {report['rdataframe_missing']}."]
    return "\n".join(lines)


if __name__ == "__main__":
    print(of(json.loads(Path(sys.argv[1]).read_text())))
