"""Throughput against peers, all in one run on one core: medians, ratios, a table, ``latest.json``.

    python benchmarks/run.py [--events 500000] [--rounds 3]

Every contender reads the same file of simulated W events from the page cache. The rounds are interleaved, so that a
busy machine slows all alike; what is reported is the median of the ratios of a round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import coffea_idiom
import uproot
import wide_file

from binworks.corrections import sets
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect
from binworks.processors.run import Range, fill_ranges

CHUNK = 50_000
HERE = Path(__file__).resolve().parent


def make_inputs(folder: Path, events: int) -> tuple[Path, Path]:
    """Make a file of W events and a correction set with the product's own commands."""
    call = [str(Path(sys.executable).with_name("binworks")), "sample"]
    size = str(events)
    made = ["resample", "Wplusmunu", "-n", size, "--file-events", size, "--out", str(folder / "w"), "--json"]
    for arguments in (made, ["demo", "--events", "2000", "--out", str(folder / "demo"), "--json"]):
        subprocess.run([*call, *arguments], check=True, stdout=subprocess.DEVNULL)
    return folder / "w" / "Wplusmunu_0.root", folder / "demo" / "corrections" / "demo"


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def bare_read(path: Path, branches: list[str], events: int) -> None:
    """Read the branches with uproot into awkward arrays and do nothing with them."""
    with uproot.open(path) as file:
        for start in range(0, events, CHUNK):
            file["Events"].arrays(
                branches, entry_start=start, entry_stop=min(start + CHUNK, events), library="ak"
            )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE / "latest.json")
    given = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # read-ahead and kernel share one core
    with tempfile.TemporaryDirectory(prefix="binworks-bench-") as folder:
        report = measure(Path(folder), given.events, given.rounds)
    given.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, value in report.items():
        print(f"{name:32} {value}")


def measure(folder: Path, events: int, rounds: int) -> dict[str, float | int | None]:
    """Return the figures of all contenders."""
    path, corrections = make_inputs(folder, events)
    facts = inspect(str(path))
    dataset = Dataset(name="W", files=(str(path),), boson="W")
    whole = [Range(facts.path, facts.uuid, 0, facts.entries)]
    full = registry.create("w_mass", {}, sets.load(corrections))
    dense = registry.create("w_mass", {}, None, ["mass", "pdf"])
    wanted = {branch for field in full.fields(dataset) for branch in field.branches}
    with uproot.open(path) as file:
        branches = sorted(wanted & set(file["Events"].keys()))
    compile_seconds = seconds(lambda: fill_ranges(full, dataset, [Range(facts.path, facts.uuid, 0, 10)]))
    idiom_events = min(events, CHUNK)
    contenders: dict[str, tuple[int, Callable[[], object]]] = {
        "bare_read": (events, lambda: bare_read(path, branches, events)),
        "full": (events, lambda: fill_ranges(full, dataset, whole)),
        "dense": (events, lambda: fill_ranges(dense, dataset, whole)),
        "coffea_idiom": (idiom_events, lambda: coffea_idiom.run(path, idiom_events)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (n, work) in contenders.items():
            rates[name].append(n / seconds(work))

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 3)

    variations = sum(len(expansion.variations) for expansion in full.expansions())
    return {
        **{f"{name}_khz": round(statistics.median(values) / 1e3, 2) for name, values in rates.items()},
        "full_over_bare_read": ratio("full", "bare_read"),
        "full_over_rdataframe": None,
        "full_over_coffea_idiom": ratio("dense", "coffea_idiom"),
        "chunk_fixed_ms": round(wide_file.fixed_ms(folder), 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "first_call_seconds": round(compile_seconds, 2),
        "variations": variations,
        "events": events,
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
