"""Kills at random moments, a short version of `make chaos`: nothing is lost, nothing is doubled, no bit changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chaos import report
from chaos.journal import Fill, read, redone
from chaos.kills import Kill, Killer
from chaos.run import arena, judge, storm, toy_work

pytestmark = pytest.mark.faults

ORDER = ("worker", "api", "scheduler", "driver", "several", "nanny", "up", "worker")
RECOVERY = 60.0
"""Seconds; half of it is the goal on a machine that does nothing else."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("chaos")
    work = toy_work(folder, 100, 0.2)
    with arena(folder) as service:
        killer = Killer(service, 4)
        storm(service, work, killer, ORDER)
        report.plot(service, killer.kills, folder / "chaos.png")
        assert (folder / "chaos.png").stat().st_size > 1000
        return judge(service, work, killer)


@pytest.mark.slow
def test_no_event_is_lost_or_doubled_and_every_bit_is_that_of_a_serial_run(found: dict[str, Any]) -> None:
    assert found["jobs"]
    assert all(report.sound(facts) for facts in found["jobs"]), found["jobs"]
    assert found["sound"]
    assert found["kills"] == len(ORDER)


@pytest.mark.slow
def test_work_goes_on_soon_after_every_kill(found: dict[str, Any]) -> None:
    assert found["longest_recovery"] < RECOVERY, found["table"]


@pytest.mark.slow
def test_a_kill_of_the_api_costs_no_work(found: dict[str, Any]) -> None:
    assert found["by_victim"]["api"]["units_redone"] == 0, found["table"]


@pytest.mark.slow
def test_a_kill_costs_the_units_under_way_only(found: dict[str, Any]) -> None:
    for row in found["table"]:
        assert row["what"] != "no kill", row
        assert row["units_redone"] <= 4, row  # two workers, two units each


def test_the_report_counts_what_was_done_twice_and_names_the_kill(tmp_path: Path) -> None:
    lines = ["begin 0 10.0 1", "begin 5 10.1 2", "end 5 11.0 2", "begin 0 12.0 3", "end 0 13.0 3"]
    (tmp_path / "journal").write_text("\n".join(lines))
    fills = read(tmp_path / "journal")
    assert redone(fills) == [Fill(0, 10.0, 1)]
    kills = [
        Kill("api", ["api"], 9.0, 9.0, recovery=1.0),
        Kill("worker", ["worker"], 10.5, 10.6, recovery=2.0),
    ]
    table = report.losses(kills, fills)
    assert [(row["units_redone"], row["seconds_redone"]) for row in table] == [(0, 0), (1, 0.5)]
    late = [Fill(1, 20.0, 4, 21.0), Fill(1, 22.0, 4, 23.0)]
    assert [row["what"] for row in report.losses(kills, late)] == ["api", "worker", "no kill"]
    assert report.by_victim(table)["worker"]["longest_recovery"] == 2.0


def test_the_report_calls_a_job_unsound_that_lost_or_doubled_something() -> None:
    good = dict.fromkeys(("identical", "complete", "in_manifest", "snapshots_in_order"), True)
    good |= dict.fromkeys(("lost", "units_twice", "not_done"), 0)
    assert report.sound(good)
    for name, bad in {
        "identical": False,
        "lost": 1,
        "units_twice": 1,
        "not_done": 2,
        "complete": False,
    }.items():
        assert not report.sound({**good, name: bad})
    assert not report.sound({"job": "j", "state": "failed"})
