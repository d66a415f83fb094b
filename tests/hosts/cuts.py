"""Scheduler, driver and workers on hosts of their own, whose links are cut in mid job: ``pytest tests/hosts/cuts.py``.

Some minutes. It prints how soon a cut was noticed, and how soon a host was back at work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from backend_contract import reach
from hosts.network import Host, network, why_not
from parted_service import Apart, apart

REASON = why_not()
pytestmark = [pytest.mark.faults, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

PORT, DASHBOARD_PORT, API_PORT = 8786, 8787, 8080
SHORT = 5.0
"""Seconds of a cut that nobody should notice."""
READY = (
    "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=10).status)"
)


@dataclass
class Spread:
    """A service on four hosts."""

    apart: Apart
    head: Host
    driver: Host
    workers: list[Host]

    def removed(self) -> int:
        """Return how often the scheduler has given up a worker."""
        return self.apart.parts.log("scheduler").count("Remove worker")

    def registered(self) -> int:
        """Return how often a worker has come."""
        return self.apart.parts.log("scheduler").count("Register worker")

    def lost(self) -> int:
        """Return how often the driver has lost the scheduler."""
        log = (self.apart.running.settings.logs / "driver.log").read_text()
        return log.count(f"the connection to {self.apart.parts.address} is gone")


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    ports = {"port": PORT, "dashboard_port": DASHBOARD_PORT, "api_port": API_PORT}
    folder = tmp_path_factory.mktemp("spread")
    with network(4) as hosts, apart(folder, host=hosts[0].address, **ports) as made:
        head, driver, *workers = hosts
        made.parts.scheduler(head.enter)
        made.parts.serve("api", "binworks.api", head.enter)
        made.parts.serve("driver", "binworks.service.driver", driver.enter)
        for number, host in enumerate(workers):
            made.parts.worker(f"worker-{number}", host=host.address, enter=host.enter)
        yield Spread(made, head, driver, workers)


def seconds(reached: Callable[[], object], longest: float) -> float:
    """Return how long it takes until something is so."""
    begin = time.monotonic()
    reach(reached, longest)
    return time.monotonic() - begin


def at_work(spread: Spread, pause: float, tag: str) -> str:
    """Return a job to which all workers have contributed."""
    apart = spread.apart
    job = apart.submit(pause, tag)
    reach(lambda: all(apart.done_at(job, host.address) for host in spread.workers), 120)
    return job


def test_jobs_run_on_all_hosts(spread: Spread, tmp_path: Path) -> None:
    job = at_work(spread, 0.2, "all")
    spread.apart.check(job, tmp_path / "serial")
    assert spread.head.space.python(READY) == "200\n"
    assert "handshake failed" not in spread.apart.parts.log("scheduler")


def test_a_short_cut_loses_nothing_and_repeats_nothing(spread: Spread, tmp_path: Path) -> None:
    job = at_work(spread, 1.0, "short")
    before = (spread.removed(), spread.lost())
    spread.workers[0].cut()
    time.sleep(SHORT)
    spread.workers[0].join()
    spread.apart.check(job, tmp_path / "serial")
    assert spread.apart.tried(job) == len(spread.apart.running.units(job))
    assert (spread.removed(), spread.lost()) == before


def test_the_units_of_a_host_that_is_cut_off_are_done_by_another_and_it_comes_back(
    spread: Spread, tmp_path: Path
) -> None:
    gone, stays = spread.workers
    job = at_work(spread, 1.0, "long")
    removed, registered = spread.removed(), spread.registered()
    gone.cut()
    noticed = seconds(lambda: spread.removed() > removed, 60)
    spread.apart.check(job, tmp_path / "serial")
    assert spread.apart.done_at(job, stays.address) > spread.apart.done_at(job, gone.address)
    gone.join()
    back = seconds(lambda: spread.registered() > registered, 120)
    again = at_work(spread, 0.2, "after")
    spread.apart.check(again, tmp_path / "again")
    print(f"\na worker's host is cut off: noticed after {noticed:.1f} s, back {back:.1f} s after the link")


def test_a_cut_off_scheduler_delays_and_loses_nothing(spread: Spread, tmp_path: Path) -> None:
    job = at_work(spread, 1.0, "head")
    removed, lost = spread.removed(), spread.lost()
    spread.head.cut()
    noticed = seconds(lambda: spread.lost() > lost, 60)
    reach(lambda: spread.removed() >= removed + len(spread.workers), 60)
    before = spread.apart.done(job)
    spread.head.join()
    back = seconds(lambda: spread.apart.done(job) > before, 120)
    spread.apart.check(job, tmp_path / "serial")
    print(
        f"\nthe scheduler's host is cut off: noticed after {noticed:.1f} s, a unit done {back:.1f} s after the link"
    )


def test_a_driver_that_is_cut_off_notices_and_goes_on(spread: Spread, tmp_path: Path) -> None:
    job = at_work(spread, 1.0, "driver")
    lost = spread.lost()
    spread.driver.cut()
    noticed = seconds(lambda: spread.lost() > lost, 60)
    before = spread.apart.done(job)
    spread.driver.join()
    back = seconds(lambda: spread.apart.done(job) > before, 60)
    spread.apart.check(job, tmp_path / "serial")
    assert spread.apart.parts.log("driver") == ""
    print(
        f"\nthe driver's host is cut off: noticed after {noticed:.1f} s, a unit done {back:.1f} s after the link"
    )
