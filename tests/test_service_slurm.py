"""The W job through a real Slurm: a worker job is cancelled, the service is killed, and the tensor keeps its bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import slurm_server
import small_corrections
import small_nano
import yaml
from backend_contract import reach
from service_toys import Running, serial
from slurm_server import Slurm

from binworks.corrections import sets
from binworks.service.database import Database
from binworks.service.environment import kernel_cache
from binworks.service.jobs import Jobs
from binworks.service.model import JobState, JobView
from binworks.service.settings import Settings

FILES = 12
FILE_EVENTS = 4000
UNIT_EVENTS = 500


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if reason := slurm_server.why_not():
        pytest.skip(reason)
    with slurm_server.serving() as running:
        yield running


def site_file(folder: Path) -> Path:
    site = {
        "scheduler": {"host": "127.0.0.1", "port": slurm_server.free_port()},
        "workers": {
            "count": 2,
            "memory": "2GB",
            "walltime": 1800,
            "grace": 60,
            "patience": 120,
            "scratch": str(folder / "scratch"),
            "kernel_cache": str(kernel_cache(None).parent),  # where other tests have compiled them
            "host": "127.0.0.1",
            "keep": ["PYTHONPATH"],
        },
        "slurm": {"poll_seconds": 1.0},
    }
    (folder / "scratch").mkdir()
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site))
    return path


def binworks(*words: object) -> list[str]:
    return [sys.executable, "-c", "from binworks.client.cli import main; main()", *map(str, words)]


@contextmanager
def up(home: Path, *options: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``binworks up`` until the block ends."""
    command = binworks("up", "--home", home, "--port", 0, "--json", *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["home"] == str(home)
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(90)


def workers(home: Path, *count: object) -> dict[str, Any]:
    """Run ``binworks workers``."""
    done = subprocess.run(
        binworks("workers", *count, "--home", home, "--json"), capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def request(data: Path) -> dict[str, Any]:
    """Return a W job of many short units."""
    sets.write(data / "small", "small", small_corrections.documents())
    files = [
        str(small_nano.write(data / f"w{i}.root", small_nano.events(FILE_EVENTS, i, pdf_members=5)))
        for i in range(FILES)
    ]
    return {
        "processor": "w_mass",
        "options": {"pdf_members": 5},
        "corrections": "small",
        "datasets": [{"name": "W", "files": files, "boson": "W", "cross_section": 10.0}],
    }


@contextmanager
def jobs_of(home: Path) -> Iterator[Running]:
    settings = Settings.load(home)
    database = Database(settings.database_url)
    try:
        yield Running(None, settings, Jobs(database))  # type: ignore[arg-type]
    finally:
        database.close()


def done(view: JobView, share: float) -> bool:
    return view.counts.units.done >= share * FILES * FILE_EVENTS / UNIT_EVENTS


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_a_w_job_keeps_its_bits_while_slurm_jobs_are_cancelled_scaled_and_taken_over(
    slurm: Slurm, tmp_path: Path
) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    data.mkdir()
    asked = request(data)
    options = ("--backend", "slurm", "--config", site_file(tmp_path), "--data-root", data)
    options = (*options, "--corrections", data, "--unit-events", UNIT_EVENTS)
    with up(home, *options) as process, jobs_of(home) as running:
        reach(lambda: workers(home)["cluster"]["alive"] == 2, 90)
        job = running.submit({}, **asked).id
        running.until(job, lambda view: done(view, 0.1), 600)  # all kernels may have to be compiled

        cancelled = slurm.jobs("RUNNING")[0]
        assert slurm.ask("scancel", cancelled) is not None
        reach(lambda: cancelled not in slurm.jobs("RUNNING") and len(slurm.jobs("RUNNING")) == 2, 60)
        workers(home, 4)
        reach(lambda: len(slurm.jobs("RUNNING")) == 4, 60)
        running.until(job, lambda view: done(view, 0.4), 240)
        workers(home, 2)
        reach(lambda: len(slurm.jobs("RUNNING")) == 2, 90)
        assert not running.jobs.get(job).state.finished, "too quick to be tested"

        before = slurm.jobs("RUNNING")
        os.kill(process.pid, signal.SIGKILL)
    with up(home, *options), jobs_of(home) as running:
        assert running.wait(job, 300).state == JobState.SUCCEEDED
        assert slurm.jobs("RUNNING") == before
        _, resolved = running.service_ledger().load(job)
        digest = serial(tmp_path / "serial", resolved.datasets[0], resolved)
        assert running.digests(job) == {"W": digest}
        counts = running.jobs.get(job).counts
        assert counts.events.done == FILES * FILE_EVENTS
    assert slurm.jobs("RUNNING", "PENDING", "COMPLETING") == []
