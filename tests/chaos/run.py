"""Kill a service at random moments, again and again, and count what is lost.

    python tests/chaos/run.py --kills 100 --seed 1 --out report.json

The service is real: ``binworks up`` with API, driver, scheduler, nannies and workers. Jobs come over REST. In the end
every job's sums are compared, bit by bit, with those of a serial run in this process.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import service_toys
import small_corrections
import small_nano
from service_toys import registered, serial

from binworks.corrections import sets
from chaos import journal, report
from chaos.journal import Fill
from chaos.kills import WEIGHTS, Killer, active, committed_since, recover
from chaos.upkept import Upkept, reach, upkept

FILE_EVENTS = 20_000
SETTINGS = {"lease_seconds": 3.0, "backoff_seconds": 0.2, "unit_timeout": 60.0, "snapshot_seconds": 2.0}
SMALL = 0.25
"""Chance that a small job is submitted after a kill."""


@dataclass
class Work:
    """Jobs that keep a service busy, and what must come out.

    Parameters
    ----------
    files : mapping
        Data set to files.
    request : mapping
        Of each job, but for the data sets' files.
    toy : bool
        Whether the processor is the toy, which keeps a journal.
    facts : mapping
        What else there is to say of a data set.
    """

    folder: Path
    files: Mapping[str, Sequence[str]]
    request: Mapping[str, Any]
    toy: bool
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    submitted: dict[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)

    def submit(self, service: Upkept, *, small: bool = False) -> str:
        """Submit another job, which reuses nothing of the others."""
        number = len(self.submitted)
        files = {name: list(paths)[:1] if small else list(paths) for name, paths in self.files.items()}
        request = dict(self.request)
        if self.toy:
            request["options"] = {**request["options"], "journal": str(self.folder / f"journal-{number}")}
        job = service.submit(files, f"chaos-{number}", facts=self.facts, **request)
        self.submitted[job] = files
        return job

    def fills(self) -> list[Fill]:
        """Return the fills of all jobs, told apart."""
        found: list[Fill] = []
        for number in range(len(self.submitted)):
            path = self.folder / f"journal-{number}"
            if self.toy and path.exists():
                mine = journal.read(path)
                for fill in mine:
                    fill.first += number * 10**9
                found += mine
        return sorted(found, key=lambda fill: fill.begun)


def toy_work(folder: Path, units: int, pause: float) -> Work:
    """Return jobs of toys that pause."""
    count = max(1, units * service_toys.UNIT_EVENTS // FILE_EVENTS)
    files = {"D": service_toys.write_all(folder / "data", count, FILE_EVENTS)}
    options = {"pause": pause / 2, "jitter": pause}
    return Work(folder, files, {"options": options}, toy=True)


def w_work(folder: Path, units: int) -> Work:
    """Return jobs of the W mass analysis over small files, data and two kinds of simulation."""
    data = folder / "data"
    data.mkdir()
    sets.write(data / "small", "small", small_corrections.documents())
    kinds = {
        "W": {"boson": "W", "cross_section": 10.0},
        "Z": {"boson": "Z", "cross_section": 1.0, "group": "Zmumu"},
        "data": {"kind": "data"},
    }
    files: dict[str, list[str]] = {name: [] for name in kinds}
    events = 3 * service_toys.UNIT_EVENTS
    for i in range(max(3, units // 3)):
        name = list(kinds)[i % 3]
        kind, boson = ("data", None) if name == "data" else ("mc", name)
        made = small_nano.events(events, i, kind=kind, boson=boson, pdf_members=5)
        files[name].append(str(small_nano.write(data / f"{i}.root", made, cluster=500)))
    request = {
        "processor": "w_mass",
        "corrections": "small",
        "luminosity": 7.0,
        "options": {"pdf_members": 5},
    }
    return Work(folder, files, request, toy=False, facts=kinds)


def storm(service: Upkept, work: Work, killer: Killer, order: Sequence[str]) -> None:
    """Kill what the order says, while there is always a job under way."""
    rng = random.Random(killer.rng.random())
    work.submit(service)
    reach(lambda: committed_since(service, 0.0), "the first unit is done: kernels are compiled", 900.0)
    for i, what in enumerate(order):
        if not _busy(service):
            reach(partial(_taken_up, service, work.submit(service)), "the next job has begun")
        elif rng.random() < SMALL:
            work.submit(service, small=True)
        time.sleep(rng.uniform(0.1, 2.0))  # the moment of the kill is random
        kill = killer.strike(what)
        recover(service, kill)
        print(f"{i + 1}/{len(order)} {what}: works again after {kill.recovery:.1f} s", flush=True)
    reach(lambda: not active(service), "all jobs end", 1800.0)


def _busy(service: Upkept) -> bool:
    """Whether some job has units to do for some seconds more."""
    views = [service.jobs.get(job) for job in active(service)]
    return any(view.counts.units.total - view.counts.units.done > 15 for view in views)


def _taken_up(service: Upkept, job: str) -> bool:
    view = service.jobs.get(job)
    assert view.error is None, view.error
    return view.counts.units.total > 0


def expected(service: Upkept, work: Work, files: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the digests of a serial run in this process."""
    job = next(job for job, asked in work.submitted.items() if asked == files)
    _, resolved = service.ledger.load(job)
    with tempfile.TemporaryDirectory(dir=work.folder) as folder:
        return {
            dataset.name: serial(Path(folder, dataset.name), dataset, resolved)
            for dataset in resolved.datasets
        }


def judge(service: Upkept, work: Work, killer: Killer) -> dict[str, Any]:
    """Return the report."""
    known: dict[str, dict[str, str]] = {}
    jobs = []
    gc.freeze()  # a unit that is done collects garbage: not all of this process's each time
    for job, files in work.submitted.items():
        about = json.dumps(files)
        if about not in known:
            known[about] = expected(service, work, files)
        events = sum(dataset.events.total or 0 for dataset in service.jobs.get(job).datasets)
        jobs.append(report.job_facts(service, job, known[about], events))
    table = report.losses(killer.kills, work.fills())
    return {
        "sound": all(report.sound(facts) for facts in jobs),
        **report.summary(table),
        "by_victim": report.by_victim(table),
        "worker_seconds": report.shares(service),
        "starts_of_up": service.starts,
        "jobs": jobs,
        "table": table,
    }


@contextmanager
def arena(folder: Path, *, workers: int = 2, **settings: Any) -> Iterator[Upkept]:
    """Give a service that knows the toys and may read a folder."""
    options = ["--unit-events", service_toys.UNIT_EVENTS, "--data-root", folder / "data"]
    options += ["--corrections", folder / "data"] if (folder / "data" / "small").exists() else []
    with (
        registered(folder / "toys"),
        upkept(folder / "home", workers, options=options, **{**SETTINGS, **settings}) as service,
    ):
        yield service


@contextmanager
def folder_for(keep: Path | None) -> Iterator[Path]:
    """Give a folder for the storm."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="binworks-chaos-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def main() -> None:
    """Run the storm and write the report; the exit code says whether anything was lost."""
    parser = argparse.ArgumentParser(description="Kill a service at random moments and count what is lost.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--units", type=int, default=0, help="of a job; default: so many that one job meets all kills"
    )
    parser.add_argument("--pause", type=float, default=0.4, help="seconds of a toy's unit")
    parser.add_argument("--real", action="store_true", help="the W mass analysis instead of toys")
    parser.add_argument("--only", action="append", choices=list(WEIGHTS), help="kill these alone")
    parser.add_argument("--keep", type=Path, help="do it in this folder and leave it there")
    parser.add_argument(
        "--out", type=Path, default=Path("chaos.json"), help="report; the plot lies beside it"
    )
    given = parser.parse_args()
    with folder_for(given.keep) as folder:
        units = given.units or 15 * given.kills
        work = w_work(folder, units) if given.real else toy_work(folder, units, given.pause)
        with arena(folder, workers=given.workers) as service:
            killer = Killer(service, given.seed)
            weights = {what: WEIGHTS[what] for what in given.only or WEIGHTS}
            begun = time.monotonic()
            storm(service, work, killer, killer.order(given.kills, weights))
            found = {"seconds": round(time.monotonic() - begun, 1), **judge(service, work, killer)}
            report.plot(service, killer.kills, given.out.with_suffix(".png"))
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(
        json.dumps({name: value for name, value in found.items() if name not in ("jobs", "table")}, indent=1)
    )
    raise SystemExit(0 if found["sound"] else 1)


if __name__ == "__main__":
    main()
