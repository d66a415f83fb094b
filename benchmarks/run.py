"""Throughput against peers, all in one run on one core: medians, ratios, a table, a plot, ``latest.json``.

    python benchmarks/run.py [--events 500000] [--rounds 3]

Every contender reads the same files of simulated W events from the page cache, in a process of its own that has
compiled what it compiles. The rounds are interleaved, so that a busy machine slows all alike; what is reported is the
median of the ratios of a round. docs/explanation/speed.md says what is compared, and why that is fair.

ROOT is asked for under this Python, or under the one that ``BINWORKS_BENCH_ROOT_PYTHON`` names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inputs
import plot
import product
import table
import wide_file
from child import Child, can_import
from inputs import Inputs
from product import Group, Product
from rounds import Rates, Task

from binworks.service.environment import WORKER

HERE = Path(__file__).resolve().parent
STEPS = (1, 10, 100, 1000)
"""Numbers of templates at which the growth of the cost is measured, before the full list."""
EFFICIENCIES = 48 * (2 * (4 + 3 + 4 + 12) + 12)
"""Elements of the dense efficiency tensor."""
AS_WORKER = {**WORKER, "PYTHONSAFEPATH": ""}
"""The environment of a service's worker, but for the path of these scripts."""
CHUNK = 100_000
"""Events of the idiom's chunk, coffea's default."""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--written",
        type=int,
        default=346,
        help="Templates for the coffea idiom as it is written: the time rises with the square.",
    )
    parser.add_argument("--out", type=Path, default=HERE / "latest.json")
    given = parser.parse_args()
    os.sched_setaffinity(
        0, {min(os.sched_getaffinity(0))}
    )  # of the children, too: read-ahead and kernel share it
    with tempfile.TemporaryDirectory(prefix="binworks-bench-") as folder:
        report = measure(Path(folder), given.events, given.rounds, given.written)
    given.out.write_text(json.dumps(report, indent=1) + "\n")
    plot.draw(report, given.out.with_suffix(".png"))
    print(table.of(report))


def measure(folder: Path, events: int, rounds: int, written: int) -> dict[str, Any]:
    """Return the figures of all contenders."""
    files = inputs.make(folder, events)
    as_worker = {**AS_WORKER, "BINWORKS_KERNEL_CACHE": str(folder / "kernels")}
    cold, cached = (fresh_worker(files, as_worker) for _ in range(2))
    made = Product(str(files.corrections))
    groups = made.groups(str(files.all))
    python, reason = root_python()
    with ExitStack() as stack:
        children = {
            kind: stack.enter_context(Child("contender.py", kind, str(files.corrections), environment=added))
            for kind, added in (("bare_read", {}), ("product", as_worker), ("coffea_idiom", {}))
        }
        if python is not None:
            elements = max(product.count(groups) - EFFICIENCIES, 318)
            children["rdataframe"] = stack.enter_context(Child("rdataframe.py", str(elements), python=python))
        contest = Contest(files, events, groups, children, made.branches(str(files.all)), written)
        rates = Rates(list(contest.tasks()), rounds)
    return {
        **ratios(rates),
        **wide_file.measure(folder),
        "peak_rss_mb": cached["peak_mb"],
        "peak_rss_cold_mb": cold["peak_mb"],
        "imported_rss_mb": cached["imported_mb"],
        "shared_rss_mb": cached["shared_mb"],
        "compile_cold_s": cold["compile_s"],
        "compile_cached_s": cached["compile_s"],
        "prepare_s": cached["prepare_s"],
        **{f"{name}_khz": rate for name, rate in rates.medians().items()},
        "rdataframe_missing": reason,
        "selected": {name: rates.result(name) for name in ("full", "rdataframe") if name in rates},
        "templates": product.count(groups),
        "groups": {name: group.templates for name, group in groups.items()},
        "events": events,
        "rounds": rounds,
        "clock_over_core_seconds": rates.stretch(),
        "growth": contest.growth(rates),
    }


@dataclass(frozen=True)
class Contest:
    """Who runs on what.

    Parameters
    ----------
    files : Inputs
        Events as they come and, by the suffix ``_selected`` of a task, selected ones only.
    events : int
        In each file.
    groups : dict
        All variation groups.
    children : dict
        The contenders; ``rdataframe`` only where there is ROOT.
    branches : list of str
        That a pass reads.
    written : int
        Most templates for the coffea idiom as it is written.
    """

    files: Inputs
    events: int
    groups: dict[str, Group]
    children: dict[str, Child]
    branches: list[str]
    written: int

    def tasks(self) -> Iterator[Task]:
        """Give all that is run in a round."""
        some = product.subset(self.groups, self.written)
        # about as many selected events for the idiom in both files
        for path, suffix, few in (
            (self.files.all, "", CHUNK),
            (self.files.selected, "_selected", CHUNK // 3),
        ):
            yield self._bare_read(path, f"bare_read{suffix}")
            yield self._ours(path, f"full{suffix}", self.groups)
            yield self._ours(path, f"some{suffix}", some)
            yield self._idiom(path, few, f"coffea_idiom{suffix}", some, growing=True)
            yield self._idiom(path, few, f"coffea_tuned{suffix}", self.groups)
            yield from self._frame(path, f"rdataframe{suffix}", "dense")
            yield from self._frame(path, f"rdataframe_equal{suffix}", "equal")
        path = self.files.selected
        for tensors in ("none", "some"):
            yield from self._frame(path, f"rdataframe_{tensors}_selected", tensors)
        yield self._idiom(path, few, "coffea_tuned_some_selected", some)
        for step in STEPS:
            taken = product.subset(self.groups, step)
            yield self._ours(path, f"full_{step}", taken)
            yield self._idiom(path, few, f"coffea_tuned_{step}", taken)
            if step < self.written:
                yield self._idiom(path, few, f"coffea_idiom_{step}", taken, growing=True)

    def growth(self, rates: Rates) -> list[dict[str, Any]]:
        """Return the rates (kHz) by number of templates, in the file of selected events; None where not measured."""
        names = {
            product.count(product.subset(self.groups, step)): (
                f"full_{step}",
                f"tuned_{step}",
                f"idiom_{step}",
            )
            for step in STEPS
        }
        some = product.count(product.subset(self.groups, self.written))
        names[some] = ("some_selected", "tuned_some_selected", "idiom_selected")
        names[product.count(self.groups)] = ("full_selected", "tuned_selected", "")
        medians = rates.medians()
        return [
            {
                "templates": templates,
                "full_khz": medians[ours],
                "coffea_tuned_khz": medians[f"coffea_{tuned}"],
                "coffea_idiom_khz": medians.get(f"coffea_{idiom}"),
            }
            for templates, (ours, tuned, idiom) in sorted(names.items())
        ]

    def _bare_read(self, path: Path, name: str) -> Task:
        question = {"path": str(path), "branches": self.branches}
        return Task(name, self.children["bare_read"], self.events, question)

    def _ours(self, path: Path, name: str, groups: dict[str, Group]) -> Task:
        question = {"path": str(path), "systematics": list(groups)}
        return Task(name, self.children["product"], self.events, question)

    def _idiom(
        self, path: Path, events: int, name: str, groups: dict[str, Group], *, growing: bool = False
    ) -> Task:
        question = {"path": str(path), "groups": product.as_json(groups), "growing": growing}
        long = growing and product.count(groups) > STEPS[2]
        return Task(name, self.children["coffea_idiom"], min(events, self.events), question, once=long)

    def _frame(self, path: Path, name: str, tensors: str) -> Iterator[Task]:
        if "rdataframe" in self.children:
            question = {"path": str(path), "tensors": tensors}
            yield Task(name, self.children["rdataframe"], self.events, question)


def ratios(rates: Rates) -> dict[str, float | None]:
    """Return what the contest was for; None for a peer that is not here."""
    found = {}
    for suffix in ("", "_selected"):
        for ours, peer in (
            ("full", "bare_read"),
            ("full", "rdataframe"),
            ("full", "rdataframe_equal"),
            ("some", "coffea_idiom"),
            ("full", "coffea_tuned"),
        ):
            found[f"full_over_{peer}{suffix}"] = rates.ratio(ours + suffix, peer + suffix)
    return found


def fresh_worker(files: Inputs, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what a new worker needs, the kernels compiled or not."""
    command = [sys.executable, str(HERE / "fresh_worker.py"), str(files.all), str(files.corrections)]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def root_python() -> tuple[str | None, str | None]:
    """Return a Python that has ROOT, or why there is none."""
    python = os.environ.get("BINWORKS_BENCH_ROOT_PYTHON", sys.executable)
    if can_import(python, "ROOT"):
        return python, None
    return None, f"{python} has no ROOT; name one that has in BINWORKS_BENCH_ROOT_PYTHON"


if __name__ == "__main__":
    main()
