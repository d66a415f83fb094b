"""Links between scheduler, driver and workers that are cut in mid job: ``pytest tests/hosts/cuts.py``, some minutes.

It prints how soon a cut was noticed, and how soon the work went on.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from backend_contract import reach

from hosts.network import why_not
from hosts.spread import Spread, seconds, spread_out

REASON = why_not()
pytestmark = [pytest.mark.faults, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

SHORT = 5.0
"""Seconds of a cut that nobody should notice."""


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    with spread_out(tmp_path_factory.mktemp("spread"), driver_alone=True) as made:
        yield made


def test_a_short_cut_loses_nothing_and_repeats_nothing(spread: Spread, tmp_path: Path) -> None:
    job = spread.at_work(1.0, "short")
    before = (spread.removed(), spread.lost())
    spread.workers[0].cut()
    time.sleep(SHORT)
    spread.workers[0].join()
    spread.apart.check(job, tmp_path / "serial")
    assert spread.apart.tried(job) == len(spread.apart.running.units(job))
    assert (spread.removed(), spread.lost()) == before


def test_a_cut_off_scheduler_delays_and_loses_nothing(spread: Spread, tmp_path: Path) -> None:
    job = spread.at_work(1.0, "head")
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
    job = spread.at_work(1.0, "driver")
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


def test_a_scheduler_that_is_frozen_does_not_hang_the_driver(spread: Spread, tmp_path: Path) -> None:
    job = spread.at_work(1.0, "frozen")
    lost = spread.lost()
    (frozen,) = psutil.Process(spread.apart.parts.keepers[0].pid).children(recursive=True)
    frozen.send_signal(signal.SIGSTOP)  # its kernel still answers for it
    try:
        noticed = seconds(lambda: spread.lost() > lost, 60)
    finally:
        frozen.send_signal(signal.SIGCONT)
    spread.apart.check(job, tmp_path / "serial")
    print(f"\nthe scheduler is frozen: noticed after {noticed:.1f} s")
