"""At what scale the driver works: its own code against a made-up cluster, in virtual time.

    python benchmarks/simulate.py                          all scenarios, one after the other
    python benchmarks/simulate.py --list                   their names
    python benchmarks/simulate.py --scenario deaths        one of them; may be given several times
    python benchmarks/simulate.py --workers 300 --rate 50e3 --unit-events 500e3
                                                           one of your own
    python benchmarks/simulate.py --json out.json --plot out.png

Driver, conduct of jobs, ledger (SQLite on a disk), fair share and publishing are those of the service. Workers,
scheduler, files and sums are not there: each task takes the time that the model says (simulate_work.py). Time is
virtual, so hours take minutes. What the driver costs is measured as processor time of this process, without
what the model takes. docs/explanation/scale.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import simulate_plot
from simulate_run import Asked, Result, simulate
from simulate_work import Model

FAST, HEAVY, WRITTEN = 450e3, 20e3, 2.79e3
"""Events a second of a core: the W channel, a heavier processor, the coffea idiom as it is written."""
JOB = Asked()
LONG_AND_SHORT = (
    Asked(1_000_000_000, 1_000, unit_events=100_000, processor="heavy", awaited=False),
    Asked(675_000_000, 675, unit_events=2_000_000, at=120.0),
)
"""The first takes two hours on 50 workers, the second a minute on half of them."""


@dataclass(frozen=True)
class Scenario:
    """A run: its name, what is assumed, which jobs."""

    name: str
    model: Model
    jobs: tuple[Asked, ...]


def grid() -> list[Scenario]:
    """Return the same job on more and more workers, in smaller and smaller units."""
    return [
        own(rate, workers, unit_events, 1)
        for rate in (FAST, HEAVY)
        for workers in (100, 500, 2000)
        for unit_events in (5_000_000, 1_000_000)
    ]


def own(rate: float, workers: int, unit_events: int, seed: int) -> Scenario:
    """Return a calm run."""
    name = f"{rate / 1e3:g}kHz-{workers}-{unit_events / 1e6:g}M"
    model = Model(workers=workers, rates={"w_mass": rate}, seed=seed)
    return Scenario(name, model, (replace(JOB, unit_events=unit_events),))


def trouble() -> list[Scenario]:
    """Return one job on 2,000 workers with 20 kHz, and what may happen to it."""
    calm = Model(rates={"w_mass": HEAVY})
    changes: dict[str, dict[str, Any]] = {
        "calm": {},
        "late": {"ramp_seconds": 120.0},
        "deaths": {"lifetime": 3600.0},
        "restarts": {"restarts": (60.0, 120.0, 180.0)},
        "stragglers": {"stragglers": 0.01},
        "passing": {"passing": 0.02},
    }
    everything = {key: value for change in changes.values() for key, value in change.items()}
    return [
        Scenario(name, replace(calm, **change), (JOB,))
        for name, change in {**changes, "everything": everything}.items()
    ]


def two_jobs() -> Scenario:
    """Return a short job behind a long one."""
    model = Model(workers=50, rates={"heavy": WRITTEN, "w_mass": FAST})
    return Scenario("two-jobs", model, LONG_AND_SHORT)


def scenarios() -> list[Scenario]:
    """Return all that is on the page."""
    return [*grid(), *trouble(), two_jobs()]


def run(scenario: Scenario) -> dict[str, Any]:
    """Run a scenario in this process and return its figures."""
    with tempfile.TemporaryDirectory(prefix="binworks-simulate-") as folder:
        return figures(scenario, simulate(scenario.model, scenario.jobs, Path(folder)))


def figures(scenario: Scenario, result: Result) -> dict[str, Any]:
    """Return what is told of a run; of several jobs the last one's times."""
    job = result.jobs[-1]
    first, fraction = job.snapshots[0]
    return {
        "scenario": scenario.name,
        "workers": scenario.model.workers,
        "rate_khz": scenario.model.rates[scenario.jobs[-1].processor] / 1e3,
        "unit_events": scenario.jobs[-1].unit_events,
        "units": result.units,
        "ideal_s": job.ideal,
        "makespan_s": job.ended - job.submitted,
        "over_ideal": (job.ended - job.submitted) / job.ideal,
        "first_unit_s": job.began - job.submitted,
        "filled_s": job.filled - job.submitted,
        "summed_s": job.summed - job.submitted,
        "first_snapshot_s": first - job.submitted,
        "first_fraction": fraction,
        "snapshots": len(job.snapshots),
        "driver_ms_a_unit": 1e3 * result.driver_seconds / result.units,
        "ledger_ms_a_unit": 1e3 * result.ledger_seconds / result.units,
        "driver_load": result.driver_seconds / result.seconds,
        "transactions": result.transactions,
        "messages": result.messages,
        "redone": result.redone,
        "lost_worker_hours": result.busy["lost"] / 3600,
        "busy": sum(result.busy.values()) / result.seconds / scenario.model.workers,
        "partials_gb": result.written["partials"] / 1e9,
        "merge_read_gb": result.read["merges"] / 1e9,
        "merge_written_gb": result.written["merges"] / 1e9,
        "snapshot_read_gb": result.read["snapshots"] / 1e9,
        "snapshot_written_gb": result.written["snapshots"] / 1e9,
        "documents_mb": result.written["documents"] / 1e6,
        "objects": result.objects,
        "peak_mb": result.peak_mb,
        "wall_s": result.wall_seconds,
        "over_window": result.over_window,
    }


HEADINGS = {
    "scenario": "",
    "units": "{:d}",
    "ideal_s": "{:.0f}",
    "makespan_s": "{:.0f}",
    "over_ideal": "{:.2f}",
    "first_unit_s": "{:.1f}",
    "filled_s": "{:.0f}",
    "first_snapshot_s": "{:.0f}",
    "driver_ms_a_unit": "{:.2f}",
    "driver_load": "{:.1%}",
    "transactions": "{:d}",
    "redone": "{:d}",
    "partials_gb": "{:.0f}",
    "merge_read_gb": "{:.0f}",
    "snapshot_read_gb": "{:.0f}",
    "objects": "{:d}",
    "peak_mb": "{:.0f}",
}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in HEADINGS) + " |",
        "|---" * len(HEADINGS) + "|",
    ]
    lines += [
        "| "
        + " | ".join(form.format(row[name]) if form else row[name] for name, form in HEADINGS.items())
        + " |"
        for row in rows
    ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return what can be asked for."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--list", action="store_true", help="name the scenarios and do nothing")
    made.add_argument("--scenario", action="append", default=[], help="run this one; default: all")
    made.add_argument("--workers", type=int, help="a calm run of your own: workers with one thread")
    made.add_argument("--rate", type=float, default=FAST, help="its events a second of a core")
    made.add_argument("--unit-events", type=float, default=1e6, help="its events of a unit")
    made.add_argument("--seed", type=int, default=1, help="of its random numbers")
    made.add_argument("--processes", type=int, default=1, help="runs side by side")
    made.add_argument("--json", type=Path, help="write all figures to this file")
    made.add_argument("--plot", type=Path, help="draw the calm runs into this file")
    return made


def chosen(given: argparse.Namespace) -> list[Scenario]:
    """Return the scenarios that are asked for."""
    if given.workers is not None:
        return [own(given.rate, given.workers, int(given.unit_events), given.seed)]
    known = {scenario.name: scenario for scenario in scenarios()}
    unknown = set(given.scenario) - set(known)
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return [known[name] for name in given.scenario or known]


def main() -> None:
    """Run what is asked for, each in a process of its own, and tell."""
    given = parser().parse_args()
    asked = chosen(given)
    if given.list:
        print("\n".join(scenario.name for scenario in asked))
        return
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.processes, mp_context=fresh, max_tasks_per_child=1) as pool:
        rows = []
        for row in pool.map(run, asked):
            rows.append(row)
            print(
                f"{row['scenario']}: {row['makespan_s']:.0f} s, {row['over_ideal']:.2f} of the ideal",
                flush=True,
            )
    print(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    if given.plot is not None:
        simulate_plot.draw(rows, given.plot)


if __name__ == "__main__":
    main()
