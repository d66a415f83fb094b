"""How workers scale and start, in one run: two workers against one, start to first unit, drain.

    python benchmarks/scaling.py [--events 2000000] [--jobs 6] [--json]

A service on this machine runs W jobs with all systematics over resampled W events, each a unit. One worker, two, two
and one do equally much: what else the machine does, or how warm it gets, is the same for both. What two processes that
fill the same files without any service gain over one is what the machine can give: its cores share their memory.
Then workers are started anew, with and without compiled kernels on disk, while a job waits; the time until its next
unit is done counts.
The command ends with an error that names the goals that were missed. What it means is told in
docs/explanation/workers.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from child import Child
from figures import Figure, judge, write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from service_toys import Running, service

from binworks.service.environment import KERNEL_CACHE
from binworks.service.model import JobRequest
from binworks.service.requests import resolve
from binworks.service.workforce import Bounds

HERE = Path(__file__).resolve().parent
PATIENCE = 1800.0
POOL = 50_000
STARTS = 3
ORDER = (1, 2, 2, 1)


class Bench:
    """A service whose workers come and go.

    Parameters
    ----------
    running : Running
    events : int
        Of all files.
    asked : callable
        Number -> request of a job that shares nothing with those of other numbers.
    """

    def __init__(self, running: Running, events: int, asked: Callable[[int], dict[str, Any]]) -> None:
        self.running, self.events, self._asked = running, events, asked
        self._numbers = count(1)

    def submit(self, unit_events: int) -> str:
        """Submit a job that is cut into such units."""
        request = JobRequest.model_validate(self._asked(next(self._numbers)))
        settings = self.running.settings.model_copy(update={"unit_events": unit_events})
        return self.running.jobs.create(resolve(request, settings), "bench")[0].id

    def finish(self, jobs: list[str]) -> None:
        """Wait until jobs are done."""
        for job in jobs:
            view = self.running.wait(job, PATIENCE)
            if not view.complete:
                raise RuntimeError(f"a job ended as {view.state}: {view.error}")

    def done(self, job: str) -> int:
        """Return how many units of a job are done."""
        return self.running.jobs.get(job).counts.units.done

    def workers(self, wanted: int) -> float:
        """Have so many workers; return the seconds until those that are not wanted have gone."""
        workforce, backend = self.running.service.workforce, self.running.service.backend
        begin = time.monotonic()
        workforce.ask(Bounds(wanted, wanted))
        workforce.step(begin)
        for leaving in backend.leaving:
            leaving.join(PATIENCE)
        return time.monotonic() - begin

    def start(self, job: str) -> float:
        """Start a worker; return the seconds until a unit of the waiting job is done."""
        before, begin = self.done(job), time.monotonic()
        self.workers(1)
        while self.done(job) == before:
            if time.monotonic() > begin + PATIENCE:
                raise RuntimeError("the worker does nothing")
            time.sleep(0.02)
        return time.monotonic() - begin

    def rate(self, workers: int, jobs: int) -> float:
        """Return events a second of so many workers that are warm, over all jobs together."""
        self.workers(workers)
        self.finish([self.submit(self.events) for _ in range(2 * workers)])
        begin = time.monotonic()
        self.finish([self.submit(self.events) for _ in range(jobs)])
        return jobs * self.events / (time.monotonic() - begin)


def scaling(bench: Bench, jobs: int, order: Sequence[int] = ORDER) -> list[Figure]:
    """Compare two workers with one."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for workers in order:
        rates[workers].append(bench.rate(workers, jobs))
        print(f"{workers} worker(s): {rates[workers][-1] / 1000:.0f} kHz", flush=True)
    one, two = (len(rates[n]) / sum(1 / rate for rate in rates[n]) for n in (1, 2))
    return [
        Figure("one worker", one / 1000, "kHz"),
        Figure("two workers", two / 1000, "kHz"),
        Figure("two workers over one", two / one, "", 1.9),
    ]


def starts(bench: Bench, empty: Path, unit_events: int, rounds: int = STARTS) -> list[Figure]:
    """Start and drain workers while a job of small units waits for them; at last one whose kernel cache is empty."""
    drains, warm, jobs = [], [], []
    for _ in range(rounds + 1):
        job = bench.submit(unit_events)
        jobs.append(job)
        bench.workers(1)
        bench.running.until(job, lambda view: view.counts.units.done >= 1, PATIENCE)
        drains.append(bench.workers(0))
        if len(warm) < rounds:
            warm.append(bench.start(job))
        else:
            with kernels_in(empty):
                cold = bench.start(job)
        bench.running.jobs.cancel(job)
    attempts = [unit.attempts for job in jobs for unit in bench.running.units(job)]
    return [
        Figure("worker start to first unit, kernels on disk", min(warm), "s", 10, at_most=True),
        Figure("  the slowest", max(warm), "s"),
        Figure("worker start to first unit, nothing compiled", cold, "s"),
        Figure("drain of a worker with units of a second", max(drains), "s"),
        Figure("units begun again by drains", sum(n > 1 for n in attempts), "units", 0, at_most=True),
    ]


def bare(files: Sequence[str], corrections: Path, order: Sequence[int] = ORDER) -> float:
    """Return what two processes that fill files without a service gain over one."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        words = ("contender.py", "product", str(corrections))
        children = [stack.enter_context(Child(*words)) for _ in range(2)]

        def fill(child: Child) -> None:
            for path in files:
                child.ask(path=path, events=None, systematics=None)

        list(pool.map(fill, children))  # what compiles, compiles now
        seconds = dict.fromkeys(order, 0.0)
        for processes in order:
            begin = time.monotonic()
            list(pool.map(fill, children[:processes]))
            seconds[processes] += time.monotonic() - begin
    return 2 * seconds[1] / seconds[2]


@contextmanager
def kernels_in(folder: Path) -> Iterator[None]:
    """Let workers that start keep their kernels in a folder."""
    before = os.environ.get(KERNEL_CACHE)
    os.environ[KERNEL_CACHE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[KERNEL_CACHE]
        else:
            os.environ[KERNEL_CACHE] = before


def make(folder: Path, events: int) -> None:
    """Make events and corrections with the product's own commands."""
    size = str(events // 4)
    resample = ("resample", "Wplusmunu", "-n", str(events), "--pool", str(min(events, POOL)))
    for words in (
        (*resample, "--file-events", size, "--out", str(folder / "w")),
        ("demo", "--events", "2000", "--out", str(folder / "demo")),
    ):
        command = [str(Path(sys.executable).with_name("binworks")), "sample", *words, "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def files(folder: Path) -> list[str]:
    """Return the files that all fill."""
    return [str(path) for path in sorted((folder / "w").glob("*.root"))]


def request(folder: Path) -> Callable[[int], dict[str, Any]]:
    """Return how a W job over all files is asked for; the option says nothing unless replicas are asked for."""
    dataset = {"name": "W", "files": files(folder), "boson": "W", "cross_section": 1.0}
    common = {"processor": "w_mass", "corrections": "demo", "datasets": [dataset]}
    return lambda number: {**common, "options": {"replicas": number}}


def measure(events: int, jobs: int) -> list[Figure]:
    """Measure all in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, events)
        given: dict[str, Any] = {
            "data_roots": (str(folder),),
            "corrections": (folder / "demo" / "corrections",),
            "snapshot_seconds": PATIENCE,
        }
        with kernels_in(folder / "kernels"), service(folder / "home", workers=0, **given) as running:
            bench = Bench(running, events, request(folder))
            figures = starts(bench, folder / "empty", max(events // 200, 100)) + scaling(bench, jobs)
            bench.workers(0)
            limit = bare(files(folder), folder / "demo" / "corrections" / "demo")
    return [*figures, Figure("  two processes over one, without a service", limit, "")]


def main() -> int:
    """Measure, print, and say what was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=2_000_000, help="of a job (default: %(default)d)")
    parser.add_argument("--jobs", type=int, default=6, help="of each measurement (default: %(default)d)")
    parser.add_argument("--json", action="store_true", help="write benchmarks/scaling.json, too")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load of this machine before: {load:.2f} on {os.cpu_count()} cores")
    figures = measure(given.events, given.jobs)
    print("\n".join(figure.row() for figure in figures), flush=True)
    if given.json:
        write(HERE / "scaling.json", figures, load)
    return judge(figures)


if __name__ == "__main__":
    sys.exit(main())
