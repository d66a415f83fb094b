"""The driver against a made-up cluster in virtual time: nothing is lost or doubled, no worker idles for long."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from binworks.service import fairshare

WORKERS, UNITS = 60, 1000
RATE = 20e3


@pytest.fixture(scope="module")
def benchmarks(root: Path) -> Iterator[Callable[[str], ModuleType]]:
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "path", [str(root / "benchmarks"), *sys.path])
    yield importlib.import_module
    patch.undo()


@pytest.fixture(scope="module")
def asked(benchmarks: Callable[[str], ModuleType]) -> Any:
    return benchmarks("simulate_run").Asked(events=UNITS * 100_000, files=100, unit_events=100_000)


@pytest.fixture(scope="module")
def calm(benchmarks: Callable[[str], ModuleType]) -> Any:
    return benchmarks("simulate_work").Model(workers=WORKERS, rates={"w_mass": RATE}, partial_bytes=5_000_000)


@pytest.fixture(scope="module")
def all_troubles(calm: Any) -> Any:
    return replace(calm, lifetime=600.0, restarts=(40.0,), stragglers=0.01, passing=0.02, ramp_seconds=20.0)


@pytest.fixture(scope="module")
def troubled(
    benchmarks: Callable[[str], ModuleType],
    all_troubles: Any,
    asked: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    return benchmarks("simulate_run").simulate(all_troubles, [asked], tmp_path_factory.mktemp("run"))


def test_each_unit_counts_once_whatever_dies(troubled: Any) -> None:
    # that the last manifest has each unit once, with all its events, was looked at within
    assert troubled.jobs[0].units == UNITS
    ends = {how for _, _, how in troubled.story}
    assert {"Receipt", "worker-died", "LostError", "read-failed"} <= ends
    assert 0 < troubled.redone < 0.3 * UNITS


def test_the_driver_keeps_to_its_window(troubled: Any) -> None:
    assert troubled.over_window <= 0


@pytest.mark.parametrize(("threads", "units"), [(0, 0), (8, 16), (49, 98), (50, 49), (2000, 1960)])
def test_of_many_threads_some_are_kept_for_what_others_wait_for(threads: int, units: int) -> None:
    waiting = fairshare.Share("j", "o", 0, 0.0, in_flight=0, waiting=10_000)
    assert len(fairshare.choose([waiting], threads)) == units


def test_trouble_costs_what_is_lost_and_no_more(troubled: Any, all_troubles: Any) -> None:
    (job,) = troubled.jobs
    lost = troubled.busy["lost"] / WORKERS
    absent = all_troubles.ramp_seconds + 2 * all_troubles.outage
    assert job.ended - job.submitted < 1.5 * job.ideal + lost + absent


def test_a_calm_run_takes_little_longer_than_the_work(
    benchmarks: Callable[[str], ModuleType], calm: Any, asked: Any, tmp_path: Path
) -> None:
    asked = replace(asked, events=asked.events // 2)
    result = benchmarks("simulate_run").simulate(calm, [asked], tmp_path)
    (job,) = result.jobs
    assert job.began - job.submitted < 10.0
    assert job.ended - job.began < 1.35 * job.ideal
    assert result.redone == 0
    assert [fraction for _, fraction in job.snapshots] == sorted(fraction for _, fraction in job.snapshots)
    assert job.snapshots[-1][1] == 1.0


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    benchmarks: Callable[[str], ModuleType], all_troubles: Any, asked: Any, tmp_path: Path
) -> None:
    small = replace(asked, events=100 * asked.unit_events, files=20)
    one, two, other = (
        benchmarks("simulate_run").simulate(
            replace(all_troubles, workers=10, restarts=(20.0,), seed=seed), [small], tmp_path / str(number)
        )
        for number, seed in enumerate((1, 1, 2))
    )
    assert one.story == two.story
    assert one.jobs == two.jobs
    assert (one.read, one.written["partials"]) == (two.read, two.written["partials"])
    assert one.story != other.story


def test_virtual_time_passes_only_when_nothing_is_left_to_do(benchmarks: Callable[[str], ModuleType]) -> None:
    virtual = benchmarks("virtual")
    seen = []

    async def main(loop: Any) -> float:
        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((loop.time(), seconds))

        await asyncio.gather(sleeper(3600.0), sleeper(1.0), asyncio.to_thread(seen.append, "at once"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await asyncio.Event().wait()
        return loop.time()

    assert virtual.run(main) == pytest.approx(3660.0)
    assert seen == ["at once", (pytest.approx(1.0), 1.0), (pytest.approx(3600.0), 3600.0)]


def test_a_loop_that_waits_for_nothing_says_so(benchmarks: Callable[[str], ModuleType]) -> None:
    async def main(_loop: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="nothing is left"):
        benchmarks("virtual").run(main)
