"""What the API can take, in one run: status, streams, stored bytes, templates, an export, the first snapshot of a job.

    python benchmarks/api.py [--only status,streams,bytes,template,export,snapshot] [--json]

One API process with a finished W job of full size (`full_w`) is asked by clients in another process; on a machine of
two cores each has one. Every figure has its goal; the command ends with an error that names what was missed. What is
measured, and why so, is told in docs/explanation/api-speed.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import export_rabbit
import full_w
import httpx
import numpy as np
from figures import Figure, judge, write
from full_w import DATASET, FullW
from hand_made_service import ApiProcess

from binworks.client.children import running_service, sample
from binworks.service.model import JobState

HERE = Path(__file__).resolve().parent
ROUNDS = 3
CLIENTS, STREAMS, EVENTS = 16, 500, 10
SAMPLE_EVENTS = 20_000
NPY = {"Accept": "application/x-npy"}


class Bench:
    """The service under test: a process with one core of its own, if there are two."""

    def __init__(self, full: FullW, api: ApiProcess) -> None:
        self.full, self.api = full, api
        self.cores = sorted(os.sched_getaffinity(0))
        if len(self.cores) > 1:
            os.sched_setaffinity(api.pid, self.cores[:1])
            for thread in Path(f"/proc/{api.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), self.cores[:1])

    @property
    def token(self) -> str:
        """Alice's."""
        return self.full.made.tokens["alice"]

    def load(self, what: str, path: str, *, clients: int, seconds: float, ranges: Sequence[str] = ()) -> Any:
        """Return a process that asks, on the other core."""
        asked = {"what": what, "port": self.full.made.settings.port, "token": self.token, "path": path}
        asked |= {"clients": clients, "seconds": seconds, "ranges": list(ranges)}
        command = [sys.executable, str(HERE / "api_load.py"), json.dumps(asked)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if len(self.cores) > 1:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, self.cores[1:])
        return process

    def processor_seconds(self) -> float:
        """Return what the process has used; another busy process changes it little."""
        fields = Path(f"/proc/{self.api.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def http(self) -> httpx.Client:
        """Return a client on this side."""
        return httpx.Client(
            base_url=self.api.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60
        )


def finished(process: Any) -> dict[str, Any]:
    """Return the last line that a load process printed."""
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"the load ended with code {process.returncode}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def status(bench: Bench) -> list[Figure]:
    """Ask for a job's status, 16 at a time."""
    path = f"/v1/jobs/{bench.full.job}"
    rounds = []
    for _ in range(ROUNDS):
        before = bench.processor_seconds()
        found = finished(bench.load("status", path, clients=CLIENTS, seconds=3))
        found["processor_us"] = 1e6 * (bench.processor_seconds() - before) / found["answers"]
        rounds.append(found)
    best = max(rounds, key=lambda found: found["per_second"])
    return [
        Figure("status, one process", best["per_second"], "requests/s", 2000),
        Figure("  median", best["p50_ms"], "ms"),
        Figure("  99 of 100 within", best["p99_ms"], "ms"),
        Figure("  processor time a request", min(found["processor_us"] for found in rounds), "us"),
    ]


def streams(bench: Bench) -> list[Figure]:
    """Follow a running job by 500 streams while its status is asked for."""
    made = bench.full.made
    job = made.submit()
    made.move(job, JobState.RUNNING)
    following = bench.load("streams", f"/v1/jobs/{job}/events", clients=STREAMS, seconds=8)
    connected = json.loads(following.stdout.readline())
    asking = bench.load("status", f"/v1/jobs/{job}", clients=CLIENTS, seconds=5)
    for _ in range(EVENTS):
        time.sleep(0.5)
        made.tell(job, "note", {"note": "timed", "at": time.monotonic()})
    asked = finished(asking)
    heard = finished(following)
    made.move(job, JobState.CANCELLING, JobState.CANCELLED)
    return [
        Figure("streams that are connected at once", connected["connected"], "clients", STREAMS),
        Figure("  all of them within", connected["seconds"], "s"),
        Figure("  events that all of them heard", heard["events_heard_by_all"], f"of {EVENTS}", EVENTS),
        Figure(
            "  an event reaches the last of them within (median)",
            statistics.median(heard["all_told_ms"]),
            "ms",
            1000,
            at_most=True,
        ),
        Figure("  status meanwhile", asked["per_second"], "requests/s"),
        Figure("  99 of 100 within", asked["p99_ms"], "ms"),
    ]


def stored_bytes(bench: Bench) -> list[Figure]:
    """Fetch a shard whole, and inner chunks of one by range."""
    folder = bench.full.made.store.key_path(f"jobs/{bench.full.job}/g/1/{DATASET}/angular/values")
    shard = max(folder.glob("c.*"), key=lambda path: path.stat().st_size)
    path = f"/v1/jobs/{bench.full.job}/zarr/1/{DATASET}/angular/values/{shard.name}"
    size, step = shard.stat().st_size, 550_000
    ranges = [f"{start}-{start + step - 1}" for start in range(0, size - step, step)]
    whole = [finished(bench.load("bytes", path, clients=1, seconds=2)) for _ in range(ROUNDS)]
    chunks = [finished(bench.load("bytes", path, clients=1, seconds=2, ranges=ranges)) for _ in range(ROUNDS)]
    return [
        Figure(
            f"stored zarr, shards of {size / 1e6:.0f} MB whole",
            max(found["gb_per_second"] for found in whole),
            "GB/s",
            1.0,
        ),
        Figure(
            f"  in ranges of {step / 1e6:.2f} MB", max(found["gb_per_second"] for found in chunks), "GB/s"
        ),
    ]


def template(bench: Bench) -> list[Figure]:
    """Pull single templates of every group as npy, each for the first time."""
    path = f"/v1/jobs/{bench.full.job}/histograms/{DATASET}/nominal"
    medians: dict[str, float] = {}
    with bench.http() as http:
        began = time.perf_counter()
        http.get(path, params={"variation": bench.full.expansions[0].variations[0]}, headers=NPY)
        first = time.perf_counter() - began
        for expansion in bench.full.expansions:
            names = expansion.variations[1 :: max(1, len(expansion.variations) // 7)] or expansion.variations
            took = []
            for name in names:
                began = time.perf_counter()
                answer = http.get(path, params={"variation": name}, headers=NPY)
                took.append(time.perf_counter() - began)
                answer.raise_for_status()
                assert np.load(io.BytesIO(answer.content)).shape == (48, 30, 2, 3, 2)
            medians[expansion.group] = 1e3 * statistics.median(took)
    slowest = max(medians, key=lambda group: medians[group])
    return [
        Figure(f"a single template, slowest group ({slowest})", medians[slowest], "ms", 10, at_most=True),
        Figure("  median of the groups", statistics.median(medians.values()), "ms"),
        Figure("  the first of a snapshot, everything read anew", 1e3 * first, "ms"),
    ]


def export(_bench: Bench) -> list[Figure]:
    """Write the full W tensor for rabbit."""
    figures = []
    for form, found in export_rabbit.measure().items():
        figures += [
            Figure(f"the full W tensor as {form}", found["seconds"], "s", 30, at_most=True),
            Figure("  largest resident memory", found["peak_rss_mb"], "MB", 3000, at_most=True),
        ]
    return figures


def snapshot(_bench: Bench) -> list[Figure]:
    """Submit a job to a service that has run one of the same kind on other files; wait for its first snapshot."""
    with tempfile.TemporaryDirectory() as folder:
        out, other = Path(folder) / "samples", Path(folder) / "others"
        for seed, samples in enumerate((out, other), 1):
            sample(samples, events=SAMPLE_EVENTS, seed=seed, jobs=2, quiet=True)
        options = ("--catalogue", out / "catalogue.json", "--data-root", other, "--workers", 2)
        with running_service(out / "home", *options) as service:
            warm = service.client.submit("w_mass", spelt_out(other), corrections="demo")
            for _ in warm.watch():
                pass
            warm.status().check()
            names = [entry["name"] for entry in service.client.datasets()]
            began = time.perf_counter()
            job = service.client.submit("w_mass", names, corrections="demo")
            seconds = next(time.perf_counter() - began for event in job.watch() if event.kind == "snapshot")
            events = job.wait().check().events_total
    return [
        Figure("submit to first snapshot, warm service", seconds, "s", 15, at_most=True),
        Figure("  events, all groups", events, ""),
    ]


def spelt_out(samples: Path) -> list[dict[str, Any]]:
    """Return the data sets of a catalogue with absolute files."""
    found: list[dict[str, Any]] = json.loads((samples / "catalogue.json").read_bytes())["datasets"]
    return [{**each, "files": [str(samples / name) for name in each["files"]]} for each in found]


MEASURES: dict[str, Callable[[Bench], list[Figure]]] = {
    "status": status,
    "streams": streams,
    "bytes": stored_bytes,
    "template": template,
    "export": export,
    "snapshot": snapshot,
}


@contextmanager
def served() -> Iterator[Bench]:
    """Give the service under test."""
    with tempfile.TemporaryDirectory() as folder:
        full = full_w.serve(Path(folder) / "home")
        with ApiProcess(full.made.settings.home, full.made.settings.port) as api:
            yield Bench(full, api)
        full.made.database.close()


def main() -> int:
    """Measure, print, and say what was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(MEASURES), help="some of " + ", ".join(MEASURES))
    parser.add_argument("--json", action="store_true", help="write benchmarks/api.json, too")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load of this machine before: {load:.2f} on {os.cpu_count()} cores")
    figures: list[Figure] = []
    with served() as bench:
        for name in given.only.split(","):
            found = MEASURES[name](bench)
            print("\n".join(figure.row() for figure in found), flush=True)
            figures += found
    if given.json:
        write(HERE / "api.json", figures, load)
    return judge(figures)


if __name__ == "__main__":
    sys.exit(main())
