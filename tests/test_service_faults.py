"""Whatever is killed in the middle of a job, the result has the same bits and every event once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import service_toys
from service_toys import Running, registered, serial, write_all

from binworks.deploy.keeper import Keeper
from binworks.processors.dataset import Dataset
from binworks.service.database import Database
from binworks.service.jobs import Jobs
from binworks.service.model import JobState, UnitState
from binworks.service.settings import Settings

pytestmark = pytest.mark.faults

FILES, EVENTS = 5, 4000
TIMEOUT = 4.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    changes = {"data_roots": (str(data),), "snapshot_seconds": 1.0, "unit_timeout": TIMEOUT}
    with (
        registered(home / "toys"),
        service_toys.service(home / "home", workers=2, **changes) as service,
    ):
        yield service


def kill(keeper: Keeper) -> None:
    """Kill a process as the kernel does when memory is short."""
    assert keeper.pid is not None
    os.kill(keeper.pid, signal.SIGKILL)


def kill_worker(running: Running) -> None:
    """Kill a worker itself; its nanny stays."""
    nanny = psutil.Process(running.service.backend.workers[0].pid)
    workers = [child for child in nanny.children() if "spawn_main" in " ".join(child.cmdline())]
    assert workers
    for worker in workers:
        worker.kill()


KILLS: dict[str, Callable[[Running], None]] = {
    "worker": kill_worker,
    "nanny": lambda running: kill(running.service.backend.workers[1]),
    "driver": lambda running: kill(running.service.driver),
    "scheduler": lambda running: kill(running.service.backend.scheduler),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("victim", KILLS)
def test_a_kill_in_mid_job_changes_no_bit_and_doubles_no_unit(
    running: Running, data: Path, tmp_path: Path, victim: str
) -> None:
    files = write_all(data / "kills", FILES, EVENTS)
    job = running.submit({"D": files}, options={"pause": 0.3, "tag": victim}).id
    running.until(job, lambda view: view.counts.units.done >= 3)
    KILLS[victim](running)
    view = running.wait(job, 60)
    _, resolved = running.service_ledger().load(job)
    assert running.digests(job) == {"D": serial(tmp_path, Dataset(name="D", files=files), resolved)}
    assert view.complete
    assert view.counts.events.done == view.datasets[0].entries == FILES * EVENTS
    assert view.counts.units.done == view.counts.units.total == len(running.units(job))
    attempts = max(unit.attempts for unit in running.units(job))
    assert attempts == 1 if victim == "driver" else attempts >= 2  # workers go on without a driver
    settled = [event.data["n"] for event in running.jobs.events(job) if event.kind == "snapshot"]
    assert settled == sorted(set(settled))


def test_a_unit_that_kills_its_workers_is_found_out_and_the_others_go_on(
    running: Running, data: Path
) -> None:
    files = write_all(data / "poison", 3, EVENTS)
    poisoned = 2 * EVENTS + 1500
    job = running.submit({"D": files}, options={"poison": poisoned}, on_error={"skip": 0.2}).id
    view = running.wait(job, 90)
    assert view.state == JobState.SUCCEEDED, view
    (unit,) = running.jobs.units(job, state=UnitState.SKIPPED)
    assert unit.files == [f"{files[2]}[1000:2000]"]
    assert unit.error is not None
    assert unit.error.code == "worker-died"
    assert unit.attempts >= 3
    assert view.missing.events == 1000
    assert not view.complete


def test_a_unit_that_hangs_is_given_up_and_tried_again(running: Running, data: Path, tmp_path: Path) -> None:
    files = write_all(data / "hang", 1, EVENTS)
    mark = tmp_path / "hung"
    job = running.submit({"D": files}, options={"hang": 1500, "tag": str(mark)}).id
    view = running.wait(job, 60)
    assert view.complete, view
    assert mark.exists()
    told = [event.data for event in running.jobs.events(job) if event.kind == "unit-failed"]
    assert [entry["error"]["code"] for entry in told] == ["timed-out"]


def test_all_is_killed_and_started_again_and_the_job_goes_on(data: Path, tmp_path: Path) -> None:
    files = write_all(data / "all", FILES, EVENTS)
    home = tmp_path / "home"
    with registered(tmp_path / "toys"):
        first = up(home, data)
        settings = Settings.load(home)
        running = Running(None, settings, Jobs(Database(settings.database_url)))  # type: ignore[arg-type]
        job = running.submit({"D": files}, options={"pause": 0.3}).id
        running.until(job, lambda view: view.counts.units.done >= 3)
        family = psutil.Process(first.pid).children(recursive=True)
        assert len(family) >= 5
        first.kill()
        first.wait()
        _, alive = psutil.wait_procs(family, timeout=15)
        assert alive == []
        again = up(home, data)
        try:
            running.wait(job, 60)
            _, resolved = running.service_ledger().load(job)
            assert running.digests(job) == {"D": serial(tmp_path, Dataset(name="D", files=files), resolved)}
        finally:
            again.terminate()
            assert again.wait(20) == 0
        running.jobs.database.close()


def up(home: Path, data: Path) -> subprocess.Popen[str]:
    """Start a service by the command line and wait until it says where it is."""
    options = ["--home", home, "--data-root", data, "--unit-events", service_toys.UNIT_EVENTS]
    options += ["--workers", 2, "--port", 0, "--json"]
    command = [sys.executable, "-c", "from binworks.client.cli import main; main()", "up", *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["url"].startswith("http://127.0.0.1:")
    process.stdout.close()
    return process


def test_a_job_waits_for_workers_and_says_so(running: Running, data: Path) -> None:
    running.service.backend.scale(0)
    try:
        job = running.submit({"D": write_all(data / "none", 1, 1000)}).id
        view = running.until(job, lambda view: view.note is not None, 30)
        assert "No worker is connected" in str(view.note)
        assert view.state in (JobState.QUEUED, JobState.RUNNING)
    finally:
        running.service.backend.scale(2)
    view = running.wait(job, 30)
    assert view.state == JobState.SUCCEEDED
    assert view.note is None
