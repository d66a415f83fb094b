"""What an owner may use: counted over the ledger, and checked where it is added to."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_toys import RECEIPT, Clock, end, fail, fill, planned, publish, resolved

from binworks.service import quotas
from binworks.service.database import Database
from binworks.service.jobs import Jobs
from binworks.service.ledger import Ledger
from binworks.service.model import JobState
from binworks.service.quotas import WINDOW_SECONDS, Limits
from binworks.service.settings import Settings
from binworks.tensors.errors import ConflictError

pytest_plugins = ["ledger_fixture"]


def used(jobs: Jobs, owner: str = "me") -> dict[str, float]:
    return {name: found["used"] for name, found in jobs.usage(owner).model_dump(exclude={"owner"}).items()}


def refused(jobs: Jobs, owner: str = "me") -> ConflictError:
    with pytest.raises(ConflictError) as caught:
        jobs.create(resolved(), owner)
    assert caught.value.hint
    return caught.value


def test_of_twenty_submissions_at_once_as_many_are_taken_as_are_allowed(database: Database) -> None:
    jobs = Jobs(database, limits=Limits(active_jobs=5))
    together = threading.Barrier(20)
    refusals: list[str] = []

    def submit() -> None:
        together.wait()
        try:
            jobs.create(resolved(), "me")
        except ConflictError as error:
            refusals.append(error.code)

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refusals == ["too-many-jobs"] * 15
    assert used(jobs)["active_jobs"] == 5


def test_all_is_counted_for_one_owner_and_only_while_it_lasts(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    fill(ledger, job, [0], replace(RECEIPT, seconds=1800.0))
    fill(ledger, job, [1], replace(RECEIPT, seconds=900.0, reused=True))
    assert used(jobs) == {"active_jobs": 1, "queued_units": 1, "stored_bytes": 100, "cpu_hours": 0.5}
    assert set(used(jobs, "you").values()) == {0}
    fill(ledger, job, [2], replace(RECEIPT, seconds=1800.0))
    end(ledger, job, complete=True)
    assert used(jobs) == {"active_jobs": 0, "queued_units": 0, "stored_bytes": 200, "cpu_hours": 1.0}


def test_published_snapshots_count_as_stored(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    n = ledger.new_generation(job)
    facts = {"final": False, "complete": False, "events": 0, "units": 0, "fraction": 0.0, "bytes": 5000}
    ledger.publish(job, n, facts)
    assert used(jobs)["stored_bytes"] == 5000
    publish(ledger, job, complete=False)
    assert used(jobs)["stored_bytes"] == 5000, "a size that is not known counts as none"


@pytest.mark.parametrize(
    ("limits", "code", "named"),
    [
        (Limits(active_jobs=1), "too-many-jobs", "me has 1 unfinished jobs; the limit is 1."),
        (Limits(queued_units=1), "too-many-units", "me has 1 units of work in the queue; the limit is 1."),
        (Limits(stored_bytes=150), "too-much-stored", "me has 200 stored bytes; the limit is 150."),
        (Limits(cpu_hours=0.25), "too-much-cpu", "0.5 processor hours in the last 30 days; the limit is"),
    ],
)
def test_a_limit_that_is_reached_is_named_with_what_is_used(
    jobs: Jobs, ledger: Ledger, limits: Limits, code: str, named: str
) -> None:
    job = planned(jobs, ledger)
    fill(ledger, job, [0, 1], replace(RECEIPT, seconds=900.0))
    jobs.limits = limits
    error = refused(jobs)
    assert error.code == code
    assert named in error.message
    jobs.create(resolved(), "you")


def test_hours_are_forgotten_after_thirty_days_and_not_by_deleting_the_job(
    jobs: Jobs, ledger: Ledger, clock: Clock
) -> None:
    job = planned(jobs, ledger)
    fill(ledger, job, [0, 1, 2], replace(RECEIPT, seconds=1200.0))
    end(ledger, job, complete=True)
    jobs.delete(job)
    assert used(jobs) == {"active_jobs": 0, "queued_units": 0, "stored_bytes": 0, "cpu_hours": 1.0}
    clock.now += WINDOW_SECONDS
    assert used(jobs)["cpu_hours"] == 0


def test_hours_of_units_that_are_planned_anew_count_on(jobs: Jobs, ledger: Ledger) -> None:
    unreadable = {"path": "/d/g.root", "dataset": "W", "error": {"code": "missing-file", "message": "no"}}
    job = planned(jobs, ledger, unreadable=[unreadable])
    fill(ledger, job, [0, 1, 2], replace(RECEIPT, seconds=1200.0))
    end(ledger, job, complete=False)
    jobs.retry(job)
    assert used(jobs)["cpu_hours"] == 1.0


def test_a_plan_is_refused_that_does_not_fit_into_the_queue(
    jobs: Jobs, ledger: Ledger, database: Database, clock: Clock
) -> None:
    planned(jobs, ledger)
    limits = Limits(queued_units=5)
    with database.write() as connection:
        quotas.check_units(connection, "me", 2, limits, clock())
        quotas.check_units(connection, "me", 1000, Limits(), clock())
        with pytest.raises(ConflictError, match="needs 3 units of work, and me has 3") as caught:
            quotas.check_units(connection, "me", 3, limits, clock())
    assert caught.value.code == "too-many-units"


def test_units_of_a_finished_job_wait_for_nobody(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    fail(ledger, job)
    assert used(jobs)["queued_units"] == 0
    assert jobs.get(job).state == JobState.FAILED


def test_the_limits_are_those_of_the_settings(tmp_path: Path) -> None:
    assert Limits.of(Settings(home=tmp_path)) == Limits()
    settings = Settings(
        home=tmp_path, max_active_jobs=1, max_queued_units=2, max_stored_bytes=3, max_cpu_hours=4.0
    )
    assert Limits.of(settings) == Limits(1, 2, 3, 4.0)
