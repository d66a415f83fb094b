"""Workers follow the backlog of our queue: more at once, fewer after a while, never beyond the bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, update

from binworks.service import scaling
from binworks.service.database import Database, jobs, units
from binworks.service.scaling import Backlog, Scaler

LEFT = st.lists(st.builds(Backlog, st.integers(0, 10_000), st.none() | st.floats(0.01, 1000)), max_size=5)


@given(LEFT)
def test_no_more_workers_are_wanted_than_there_are_units_and_one_for_each_job(left: list[Backlog]) -> None:
    found = scaling.wanted(left)
    assert found <= sum(max(job.units, 1) for job in left)
    assert found >= len(left)


@given(LEFT, st.integers(1, 1000))
def test_more_units_never_want_fewer_workers(left: list[Backlog], more: int) -> None:
    for index, job in enumerate(left):
        longer = [*left]
        longer[index] = Backlog(job.units + more, job.seconds)
        assert scaling.wanted(longer) >= scaling.wanted(left)


def test_a_backlog_wants_so_many_workers_that_it_is_done_in_the_pace() -> None:
    assert scaling.wanted([Backlog(1000, 30.0)]) == 250
    assert scaling.wanted([Backlog(1000, None), Backlog(40, 3.0)]) == 251
    assert scaling.wanted([Backlog(3, 3600.0)]) == 3
    assert scaling.wanted([Backlog(0, 3600.0)]) == 1
    assert scaling.wanted([]) == 0


@given(st.lists(st.tuples(st.floats(0.1, 400), st.integers(0, 50)), min_size=1, max_size=30))
def test_there_are_as_many_as_were_wanted_most_within_the_idle_time(steps: list[tuple[float, int]]) -> None:
    scaler, now, seen = Scaler(2, 30, idle=300), 0.0, []
    for pause, count in steps:
        now += pause
        seen.append((now, count))
        most = max(count for moment, count in seen if moment >= now - 300)
        assert scaler.decide(count, now) == min(max(most, 2), 30)


def test_the_ledger_tells_what_is_left_of_unfinished_jobs(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    database.create_tables()
    with database.write() as connection:
        for job, state in (("a", "running"), ("b", "queued"), ("c", "succeeded")):
            empty = {"request": {}, "resolved": {}, "request_digest": "", "priority": 0, "created": 0.0}
            connection.execute(insert(jobs).values(empty | {"id": job, "owner": "o", "state": state}))
        rows = [
            {"state": "done", "seconds": 10.0},
            {"state": "done", "seconds": 20.0},
            {"state": "done", "seconds": 1000.0, "reused": True},
            {"state": "running"},
            {"state": "pending"},
            {"state": "failed"},
        ]
        for job in ("a", "c"):
            for unit, row in enumerate(rows):
                common = {"job": job, "unit": unit, "dataset": "W", "ranges": [], "events": 1, "partial": ""}
                connection.execute(insert(units).values(common | row))
    with database.read() as connection:
        assert sorted(scaling.backlog(connection), key=lambda job: job.units) == [
            Backlog(0, None),
            Backlog(2, 15.0),
        ]
    with database.write() as connection:
        connection.execute(update(jobs).values(state="cancelled"))
    with database.read() as connection:
        assert scaling.backlog(connection) == []
    database.close()


@pytest.mark.parametrize("wanted", [0, 7])
def test_bounds_hold_from_the_first_moment(wanted: int) -> None:
    assert Scaler(3, 5, idle=10).decide(wanted, 0.0) == {0: 3, 7: 5}[wanted]
