"""Whatever is killed in the middle of a job, the result has the same bits and every event once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import httpx
import psutil
import pytest
import service_toys
from chaos.journal import read, redone
from chaos.kills import fence_of, freeze, freeze_between_writes, second_driver
from chaos.upkept import reach, upkept
from service_toys import Running, registered, serial, write, write_all

from binworks.deploy.keeper import Keeper
from binworks.processors.dataset import Dataset
from binworks.service import layout
from binworks.service.database import Database
from binworks.service.jobs import Jobs
from binworks.service.model import JobState, UnitState
from binworks.service.settings import Settings
from binworks.service.store import Store, digest_of
from binworks.service.workforce import Bounds, connected

pytestmark = pytest.mark.faults

FILES, EVENTS = 5, 4000
TIMEOUT = 4.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    changes = {
        "data_roots": (str(data),),
        "snapshot_seconds": 1.0,
        "unit_timeout": TIMEOUT,
        "lease_seconds": 3.0,
    }
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
    host = psutil.Process(running.service.backend.workers[0].pid)
    below = host.children(recursive=True)
    workers = [process for process in below if "spawn_main" in " ".join(process.cmdline())]
    assert workers
    for worker in workers:
        worker.kill()


def kill_nanny(running: Running) -> None:
    """Kill the process that looks after a worker; the host stays."""
    keeper = running.service.backend.workers[1]
    reach(lambda: keeper.pid and psutil.Process(keeper.pid).children(), "a nanny")[0].kill()


KILLS: dict[str, Callable[[Running], None]] = {
    "worker": kill_worker,
    "host": lambda running: kill(running.service.backend.workers[1]),
    "nanny": kill_nanny,
    "driver": lambda running: kill(running.service.driver),
    "scheduler": lambda running: kill(running.service.backend.scheduler),  # type: ignore[arg-type]
    "api": lambda running: kill(running.service.api),
}
FREE = {"driver", "api"}
"""Workers go on without them."""


@pytest.mark.parametrize(
    "victims",
    [*KILLS, *(pytest.param(f"{one} driver", marks=pytest.mark.slow) for one in ("worker", "scheduler"))],
)
def test_a_kill_in_mid_job_changes_no_bit_and_doubles_no_unit(
    running: Running, data: Path, tmp_path: Path, victims: str
) -> None:
    files = write_all(data / "kills", FILES, EVENTS)
    journal = tmp_path / "journal"
    reach(lambda: connected(running.settings.dashboard) == 2, "both workers")  # one was killed a moment ago
    job = running.submit({"D": files}, options={"pause": 0.3, "journal": str(journal)}).id
    running.until(job, lambda view: view.counts.units.done >= 3)
    for victim in victims.split():
        KILLS[victim](running)
    view = running.wait(job, 90)
    _, resolved = running.service_ledger().load(job)
    assert running.digests(job) == {"D": serial(tmp_path, Dataset(name="D", files=files), resolved)}
    assert view.complete
    assert view.counts.events.done == view.datasets[0].entries == FILES * EVENTS
    assert view.counts.units.done == view.counts.units.total == len(running.units(job))
    attempts = max(unit.attempts for unit in running.units(job))
    lost = redone(read(journal))
    assert len(lost) <= 4  # two workers, two units each
    if victims in FREE:
        assert (attempts, lost) == (1, [])
    elif victims in KILLS:
        assert attempts >= 2
    settled = [event.data["n"] for event in running.jobs.events(job) if event.kind == "snapshot"]
    assert settled == sorted(set(settled))


class Follower(threading.Thread):
    """Follows a job's events over HTTP, again and again from the last one it has."""

    def __init__(self, running: Running, job: str) -> None:
        super().__init__(daemon=True)
        self.url = f"{running.settings.url}/v1/jobs/{job}/events"
        self.token = (running.settings.home / "token").read_text().strip()
        self.ids: list[int] = []
        self.breaks = 0
        self.start()

    def run(self) -> None:
        while True:
            last = {"Last-Event-ID": str(self.ids[-1])} if self.ids else {}
            headers = {"Authorization": f"Bearer {self.token}", **last}
            try:
                with httpx.stream("GET", self.url, headers=headers, timeout=20) as answer:
                    answer.raise_for_status()
                    self.ids += (int(line[4:]) for line in answer.iter_lines() if line.startswith("id: "))
                    return
            except httpx.TransportError:
                self.breaks += 1
                time.sleep(0.2)


def test_readers_of_a_killed_api_miss_no_event_and_are_answered_again_soon(
    running: Running, data: Path
) -> None:
    files = write_all(data / "kills", FILES, EVENTS)
    job = running.submit({"D": files}, options={"pause": 0.3, "tag": "followed"}).id
    follower = Follower(running, job)
    running.until(job, lambda view: view.counts.units.done >= 3)
    kill(running.service.api)
    begin = time.monotonic()
    headers = {"Authorization": f"Bearer {follower.token}"}

    def answered() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{running.settings.url}/v1/jobs/{job}", headers=headers).status_code == 200
        return False

    reach(answered, "the status is told again")
    assert time.monotonic() - begin < 40  # a second or two on a machine that does nothing else
    assert running.wait(job).complete
    follower.join(20)
    assert not follower.is_alive()
    assert follower.breaks >= 1
    assert follower.ids == [event.id for event in running.jobs.events(job)]


def test_a_driver_that_was_frozen_beyond_its_lease_writes_no_more(
    running: Running, data: Path, tmp_path: Path
) -> None:
    files = write_all(data / "kills", FILES, EVENTS)
    job = running.submit({"D": files}, options={"pause": 0.4, "tag": "frozen"}).id
    done = running.until(job, lambda view: view.counts.units.done >= 2).counts.units.done
    frozen, fence = psutil.Process(running.service.driver.pid), fence_of(running.jobs.database)
    with second_driver(running.settings.home):

        def meanwhile() -> None:
            reach(lambda: fence_of(running.jobs.database) > fence, "another driver takes over")
            running.until(job, lambda view: view.counts.units.done > done)

        freeze_between_writes(frozen, running.jobs.database)
        freeze(frozen, meanwhile)
        reach(lambda: not frozen.is_running(), "the driver that was frozen ends")
        view = running.wait(job, 90)
        assert fence_of(running.jobs.database) == fence + 1
    assert "LeaseLostError" in (running.settings.logs / "driver.out").read_text() + running.log()
    _, resolved = running.service_ledger().load(job)
    assert view.complete
    assert running.digests(job) == {"D": serial(tmp_path, Dataset(name="D", files=files), resolved)}


def test_workers_that_die_at_every_third_unit_cost_time_only(
    running: Running, data: Path, tmp_path: Path
) -> None:
    files = write_all(data / "third", 2, EVENTS)
    (tmp_path / "dead").mkdir()
    for keeper in running.service.backend.workers:  # so that all count from zero
        kill(keeper)
    job = running.submit({"D": files}, options={"third": str(tmp_path / "dead")}).id
    view = running.wait(job, 90)
    assert view.complete, view
    assert list((tmp_path / "dead").iterdir())
    _, resolved = running.service_ledger().load(job)
    assert running.digests(job) == {"D": serial(tmp_path, Dataset(name="D", files=files), resolved)}


def test_any_number_of_workers_and_any_order_give_the_same_bits(
    running: Running, data: Path, tmp_path: Path
) -> None:
    files = {"A": write_all(data / "order", 5, 3600), "B": write_all(data / "order2", 1, 1300)}
    found = {}
    try:
        for workers in (4, 2, 1):
            running.service.workforce.ask(Bounds(workers, workers))
            job = running.submit(files, options={"jitter": 0.15, "tag": f"{workers}"}).id
            assert running.wait(job, 120).complete
            found[workers] = running.digests(job)
    finally:
        running.service.workforce.ask(Bounds(2, 2))
    _, resolved = running.service_ledger().load(job)
    expected = {n: serial(tmp_path / n, Dataset(name=n, files=paths), resolved) for n, paths in files.items()}
    assert found == dict.fromkeys((4, 2, 1), expected)


def test_a_file_that_changes_between_two_attempts_fails_the_job_and_is_named(
    running: Running, data: Path, tmp_path: Path
) -> None:
    files = write_all(data / "changing", 2, EVENTS)
    mark = tmp_path / "hung"
    job = running.submit({"D": files}, options={"hang": 1500, "tag": str(mark)}).id
    reach(mark.exists, "the unit hangs")
    write(data / "changing" / "new.root", EVENTS).replace(
        files[0]
    )  # the same events in a file with another identity
    view = running.wait(job, 90)
    assert view.state == JobState.FAILED
    assert view.error is not None
    assert (view.error.code, view.error.where) == ("file-changed", files[0])
    again = running.submit({"D": files}, options={"hang": 1500, "tag": str(mark)}).id
    assert running.wait(again, 90).complete
    _, resolved = running.service_ledger().load(again)
    assert running.digests(again) == {"D": serial(tmp_path, Dataset(name="D", files=files), resolved)}


def test_a_stored_partial_that_is_torn_later_is_filled_again(
    running: Running, data: Path, tmp_path: Path
) -> None:
    files = write_all(data / "torn", FILES, EVENTS)
    job = running.submit({"D": files}, options={"pause": 0.3, "tag": "torn"}).id
    running.until(job, lambda view: view.counts.units.done >= 2)
    torn = next(unit for unit in running.service_ledger().units(job) if unit.state == UnitState.DONE)
    chunks = list(running.store.key_path(layout.partial(torn.partial)).rglob("values/c.*"))
    assert chunks
    os.truncate(chunks[0], chunks[0].stat().st_size // 2)
    view = running.wait(job, 90)
    assert view.complete, view
    _, resolved = running.service_ledger().load(job)
    assert running.digests(job) == {"D": serial(tmp_path, Dataset(name="D", files=files), resolved)}


def test_a_short_job_begins_soon_behind_a_long_one(running: Running, data: Path) -> None:
    files = write_all(data / "long", 10, 10 * service_toys.UNIT_EVENTS)
    long = running.submit({"L": files}, options={"pause": 1.0, "tag": "long"}).id
    running.until(long, lambda view: view.counts.units.done >= 2)
    begin = time.time()
    short = running.submit({"S": files[:1]}, options={"tag": "short"}).id
    running.until(short, lambda view: view.counts.units.done >= 1)
    started = min(unit.started for unit in running.service_ledger().units(short) if unit.started)
    assert started - begin < 5
    assert running.jobs.get(long).state == JobState.RUNNING
    running.jobs.cancel(long)
    running.wait(long, 20)


def test_a_cancelled_job_frees_its_workers_soon_though_they_are_deaf(data: Path, tmp_path: Path) -> None:
    files = write_all(data / "deaf", 1, EVENTS)
    journal, others = tmp_path / "journal", tmp_path / "others"
    # not the service's own: there a unit is given up after some seconds anyway
    with (
        registered(tmp_path / "toys"),
        service_toys.service(tmp_path / "home", workers=2, data_roots=(str(data),)) as patient,
    ):
        job = patient.submit({"D": files}, options={"pause": 200.0, "journal": str(journal)}).id
        reach(lambda: journal.exists() and len(read(journal)) == 2, "two units sleep")
        begin = time.time()
        patient.jobs.cancel(job)
        assert patient.wait(job, 10).state == JobState.CANCELLED
        other = patient.submit({"D": files}, options={"journal": str(others)}).id
        assert patient.wait(other, 60).complete
    assert read(others)[0].begun - begin < 60  # mostly what a new process takes to start


def test_a_driver_killed_while_it_cancels_leaves_a_cancelled_job(running: Running, data: Path) -> None:
    files = write_all(data / "kills", FILES, EVENTS)
    job = running.submit({"D": files}, options={"pause": 0.5, "tag": "cancelled"}).id
    running.until(job, lambda view: view.counts.units.running >= 2)
    running.jobs.cancel(job)
    kill(running.service.driver)
    view = running.wait(job, 60)
    assert view.state == JobState.CANCELLED
    assert view.counts.units.running == 0
    after = running.submit({"D": files[:1]}, options={"tag": "after"}).id
    assert running.wait(after, 60).complete


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
    backend = running.service.backend
    running.service.workforce.ask(Bounds(0, 0))
    try:
        reach(lambda: not backend.workers and not any(k.is_alive() for k in backend.leaving), "no worker")
        job = running.submit({"D": write_all(data / "none", 1, 1000)}).id
        view = running.until(job, lambda view: view.note is not None, 30)
        assert "No worker is connected" in str(view.note)
        assert view.state in (JobState.QUEUED, JobState.RUNNING)
    finally:
        running.service.workforce.ask(Bounds(2, 2))
    view = running.wait(job, 90)
    assert view.state == JobState.SUCCEEDED
    assert view.note is None


def mount_refused() -> str | None:
    """Return why no file system can be mounted here."""
    if os.uname().sysname != "Linux":
        return "not Linux"
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    try:
        return subprocess.run(probe, capture_output=True, text=True).stderr.strip() or None
    except FileNotFoundError as error:
        return str(error)


@pytest.mark.skipif(mount_refused() is not None, reason=f"a small disk cannot be mounted: {mount_refused()}")
def test_a_disk_that_is_full_for_a_while_costs_time_only(data: Path, tmp_path: Path) -> None:
    files = {"D": write_all(data / "full", 4, EVENTS)}
    home = tmp_path / "home"
    (home / "store").mkdir(parents=True)
    mount = 'mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", mount, str(home / "store"))
    options = ["--unit-events", service_toys.UNIT_EVENTS, "--data-root", data]
    changes = {"snapshot_seconds": 1.0, "backoff_seconds": 0.2}
    with registered(tmp_path / "toys"), upkept(home, 2, options=options, prefix=prefix, **changes) as service:
        inside = Path(f"/proc/{service.pid}/root{home}/store")
        assert os.statvfs(inside).f_blocks * os.statvfs(inside).f_frsize < 10_000_000
        job = service.submit(files, "full", options={"pause": 0.2})
        reach(lambda: service.jobs.get(job).counts.units.done >= 2, "work is under way")
        fill_up(inside / "ballast")

        def refused() -> list[str]:
            return [
                event.data["error"]["message"]
                for event in service.jobs.events(job)
                if event.kind == "unit-failed"
            ]

        reach(refused, "a worker finds the disk full")
        assert any("No space left" in message for message in refused())
        assert reach(lambda: httpx.get(f"{service.url}/readyz").status_code == 503, "the service says so")
        assert service.answers
        (inside / "ballast").unlink()
        view = reach(lambda: (v := service.jobs.get(job)).state.finished and v, "the job ends")
        assert view.complete, view
        reach(
            lambda: httpx.get(f"{service.url}/readyz").status_code == 200, "the service says that it is well"
        )
        _, resolved = service.ledger.load(job)
        sums = Store.open(str(inside)).read_accumulator(layout.dataset(job, view.generation, "D"))
        dataset = Dataset(name="D", files=files["D"])
        assert digest_of(sums) == serial(tmp_path / "serial", dataset, resolved)


def fill_up(ballast: Path) -> None:
    """Write until nothing more can be written."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for size in (100_000, 4096, 1):
            with suppress(OSError):
                for _ in count():
                    file.write(bytes(size))
