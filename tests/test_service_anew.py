"""Finished jobs tried again keep what is done and forget what failed; deleted ones are gone; results are found."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from ledger_toys import (
    PATH,
    RECEIPT,
    Clock,
    done,
    end,
    fail,
    fill,
    lose,
    planned,
    publish,
    resolved,
)
from sqlalchemy import func, select

from binworks.service import access
from binworks.service.database import (
    Database,
    exports,
    generations,
    job_events,
    merges,
    metadata,
    pins,
    shares,
    units,
)
from binworks.service.exports import Ask, Exports
from binworks.service.jobs import Jobs
from binworks.service.ledger import FileKey, Ledger
from binworks.service.model import JobState, UnitState
from binworks.service.pins import Pins
from binworks.service.plan import FileFacts
from binworks.service.quotas import Limits
from binworks.service.units import Status
from binworks.tensors.card import Card
from binworks.tensors.errors import ConflictError, RequestError

pytest_plugins = ["ledger_fixture"]
UNREADABLE = {
    "path": "/d/g.root",
    "dataset": "W",
    "error": {"code": "missing-file", "message": "It is not there."},
}


def states(jobs: Jobs, job: str) -> list[str]:
    return [str(unit.state) for unit in jobs.units(job)]


def code(caught: pytest.ExceptionInfo[Any]) -> str:
    error = caught.value
    assert isinstance(error, ConflictError | RequestError)
    return error.code


# retry


def test_a_failed_job_goes_on_with_what_is_not_done_and_its_counters_are_fresh(
    jobs: Jobs, ledger: Ledger, clock: Clock
) -> None:
    job = planned(jobs, ledger)
    fill(ledger, job, [0])
    lose(ledger, job, 1, "code-failed")
    fail(ledger, job, "code-failed")
    clock.now += 100
    view = jobs.retry(job)
    assert (view.state, view.error, view.traceback, view.finished, view.note) == (
        JobState.QUEUED,
        None,
        None,
        None,
        None,
    )
    assert (view.counts.units.done, view.counts.units.failed, view.missing.n_files) == (1, 0, 0)
    assert states(jobs, job) == ["done", "pending", "pending"]
    again = jobs.units(job)[1]
    assert (again.attempts, again.error, again.traceback, again.worker) == (0, None, None, None)
    assert ledger.load(job)[0].planned
    assert [row[0] for row in ledger.load(job)[0].story] == ["queued", "running", "failed", "queued"]
    assert jobs.events(job)[-1].data["state"] == "queued"
    assert job in dict(ledger.active())


def test_a_job_that_is_not_finished_stays_as_it_is(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    assert jobs.retry(job).state == JobState.RUNNING
    fail(ledger, job)
    assert jobs.retry(job).state == jobs.retry(job).state == JobState.QUEUED
    assert len(ledger.load(job)[0].story) == 4


def test_a_result_that_lacks_events_is_filled_up_and_its_old_end_does_not_count(
    jobs: Jobs, ledger: Ledger
) -> None:
    job = planned(jobs, ledger)
    fill(ledger, job, [0, 2])
    lose(ledger, job, 1, "bad-events", skip=True)
    ledger.merged(job, "W", (1, 0), "m", RECEIPT)
    end(ledger, job, complete=False)
    assert ledger.has_final(job)
    view = jobs.retry(job)
    assert (view.state, view.generation, view.complete) == (JobState.QUEUED, 1, False)
    assert states(jobs, job) == ["done", "pending", "done"]
    assert ledger.sums(job) == [], "a sum without the unit must not be taken for the whole"
    assert not ledger.has_final(job)
    ledger.move(job, JobState.RUNNING, "taken up")
    fill(ledger, job, [1])
    end(ledger, job, complete=True)
    assert jobs.get(job).complete
    with pytest.raises(ConflictError) as caught:
        jobs.retry(job)
    assert code(caught) == "nothing-to-retry"


@pytest.mark.parametrize("fault", ["file-changed", "truncated-file", "unreadable"])
def test_where_files_were_at_fault_the_job_is_planned_anew(jobs: Jobs, ledger: Ledger, fault: str) -> None:
    job = planned(jobs, ledger, unreadable=[UNREADABLE] if fault == "unreadable" else [])
    fill(ledger, job, [0, 2])
    if fault != "unreadable":
        lose(ledger, job, 1, fault, skip=True)
    else:
        fill(ledger, job, [1])
    ledger.merged(job, "W", (1, 0), "m", RECEIPT)
    end(ledger, job, complete=False)
    view = jobs.retry(job)
    row = ledger.load(job)[0]
    assert (view.state, row.planned, row.unreadable, row.retried_after) == (JobState.QUEUED, False, [], 1)
    assert (ledger.units(job), ledger.sums(job)) == ([], [])
    assert (view.generation, view.complete) == (1, False), "the old snapshot can still be read"


def test_sums_that_lack_nothing_are_kept(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    fill(ledger, job, [0, 1])
    ledger.merged(job, "W", (1, 0), "m", RECEIPT)
    lose(ledger, job, 2, "code-failed")
    fail(ledger, job)
    jobs.retry(job)
    assert [name for *_, name in ledger.sums(job)] == ["m"]


def test_a_late_twin_of_the_first_run_is_ignored(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    late = Status(0).started("late")
    ledger.start(job, [late])
    fail(ledger, job)
    jobs.retry(job)
    assert ledger.settle([done(job, late)]) == [False]
    assert states(jobs, job) == ["pending"] * 3


def test_what_makes_no_sense_is_refused_with_the_reason(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    jobs.cancel(job)
    ledger.move(job, JobState.CANCELLED, "asked for")
    with pytest.raises(ConflictError, match="stays so") as caught:
        jobs.retry(job)
    assert code(caught) == "cancelled"
    old = planned(jobs, ledger, asked=resolved().model_copy(update={"code": "older"}))
    fail(ledger, old)
    with pytest.raises(ConflictError, match="Submit the job again") as caught:
        jobs.retry(old)
    assert code(caught) == "code-differs"
    assert jobs.get(old).state == JobState.FAILED
    with pytest.raises(RequestError) as absent:
        jobs.retry(old, "you")
    assert code(absent) == "unknown-job"


def test_a_job_of_a_processor_that_is_gone_is_refused_like_one_of_older_code(
    jobs: Jobs, ledger: Ledger
) -> None:
    asked = resolved()
    gone = asked.model_copy(update={"request": asked.request.model_copy(update={"processor": "gone"})})
    job = planned(jobs, ledger, asked=gone)
    fail(ledger, job)
    with pytest.raises(ConflictError) as caught:
        jobs.retry(job)
    assert code(caught) == "code-differs"


def test_a_retry_counts_against_the_limits_like_a_new_job(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    fail(ledger, job)
    for _ in range(3):
        jobs.create(resolved(), "me")
    with pytest.raises(ConflictError) as caught:
        jobs.retry(job)
    assert code(caught) == "too-many-jobs"
    jobs.limits = Limits(queued_units=2)
    with pytest.raises(ConflictError, match="needs 3 units") as caught:
        jobs.retry(job)
    assert code(caught) == "too-many-units"
    assert jobs.get(job).state == JobState.FAILED


def test_of_many_retries_at_once_one_takes_the_job_up(database: Database, jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    fail(ledger, job)
    found: list[JobState] = []
    threads = [threading.Thread(target=lambda: found.append(jobs.retry(job).state)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [JobState.QUEUED] * 8
    assert len(ledger.load(job)[0].story) == 4


def test_the_rate_after_a_retry_is_that_of_the_retry(jobs: Jobs, ledger: Ledger, clock: Clock) -> None:
    job = planned(jobs, ledger)
    clock.now += 1
    fill(ledger, job, [0, 1])
    fail(ledger, job)
    clock.now += 1000
    jobs.retry(job)
    ledger.move(job, JobState.RUNNING, "taken up")
    clock.now += 10
    fill(ledger, job, [2])
    assert jobs.get(job).rate == pytest.approx(1.0)
    end(ledger, job, complete=True)
    assert jobs.get(job).rate == pytest.approx(1.0)


# delete


def test_a_deleted_job_is_gone_with_all_its_rows(
    jobs: Jobs, ledger: Ledger, database: Database, clock: Clock
) -> None:
    job, other = planned(jobs, ledger), planned(jobs, ledger)
    for each in (job, other):
        fill(ledger, each, [0, 1, 2])
        ledger.merged(each, "W", (1, 0), "m", RECEIPT)
        end(ledger, each, complete=True)
        Pins(database, clock).pin(each)
        access.share(database, each, "bob", "me")
        ask = Ask(each, 1, "rabbit", Card(), {}, "code")
        Exports(database, clock=clock).ask(ask, "me")
    jobs.delete(job, "me")
    for again in (jobs.get, jobs.delete):
        with pytest.raises(RequestError) as caught:
            again(job)
        assert code(caught) == "unknown-job"
    with database.read() as connection:
        for table in (units, merges, generations, pins, job_events, exports, shares):
            left = connection.execute(select(func.count()).where(table.c.job == job)).scalar_one()
            kept = connection.execute(select(func.count()).where(table.c.job == other)).scalar_one()
            assert (left, kept > 0) == (0, True), table
    assert jobs.get(other).complete


def test_every_table_that_names_a_job_is_emptied_of_it() -> None:
    named = {table.name for table in metadata.tables.values() if any(c.foreign_keys for c in table.columns)}
    assert named == {"units", "merges", "generations", "pins", "job_events", "exports", "shares"}


def test_only_a_finished_job_of_ones_own_can_be_deleted(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    with pytest.raises(ConflictError, match="Cancel it first") as caught:
        jobs.delete(job, "me")
    assert code(caught) == "job-not-finished"
    fail(ledger, job)
    with pytest.raises(RequestError) as absent:
        jobs.delete(job, "you")
    assert code(absent) == "unknown-job"
    jobs.delete(job, "me")


# results that are there


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.root"
    path.write_bytes(b"12345")
    return path


def completed(jobs: Jobs, ledger: Ledger, file: Path, *, complete: bool = True, **asked: Any) -> str:
    found = file.stat()
    facts = FileFacts(str(file), "u", found.st_size, 30, (0, 30))
    ledger.index(FileKey(str(file), found.st_size, found.st_mtime_ns), facts)
    job = planned(jobs, ledger, asked=resolved(path=str(file), **asked), piece=("u", found.st_size))
    fill(ledger, job, [0, 1, 2])
    end(ledger, job, complete=complete)
    return job


def test_the_newest_job_with_the_same_result_is_found_whatever_its_label(
    jobs: Jobs, ledger: Ledger, clock: Clock, file: Path
) -> None:
    completed(jobs, ledger, file)
    clock.now += 1
    newest = completed(jobs, ledger, file, priority=3)
    clock.now += 1
    completed(jobs, ledger, file, complete=False)
    found = jobs.completed(resolved("other", path=str(file)), "me")
    assert found is not None
    assert found.id == newest
    assert jobs.completed(resolved(path=str(file)), "you") is None


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"x": 1}},
        {"systematics": ("mass",)},
        {"corrections_digest": "d"},
        {"luminosity": 11.0},
        {"code": "other"},
        {"unit_events": 11},
    ],
)
def test_a_job_that_differs_in_anything_that_decides_the_result_is_not_taken(
    jobs: Jobs, ledger: Ledger, file: Path, change: dict[str, Any]
) -> None:
    completed(jobs, ledger, file)
    asked = resolved(path=str(file))
    assert jobs.completed(asked, "me") is not None
    assert jobs.completed(asked.model_copy(update=change), "me") is None


def test_a_file_that_changed_on_the_disk_makes_it_another_result(
    jobs: Jobs, ledger: Ledger, file: Path
) -> None:
    completed(jobs, ledger, file)
    asked = resolved(path=str(file))
    known = file.stat()
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns + 1))
    assert jobs.completed(asked, "me") is None
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert jobs.completed(asked, "me") is not None
    # another file of the same name was read by a later job: the index knows that one now
    ledger.index(
        FileKey(str(file), known.st_size, known.st_mtime_ns), FileFacts(str(file), "v", 5, 30, (0, 30))
    )
    assert jobs.completed(asked, "me") is None
    file.unlink()
    assert jobs.completed(asked, "me") is None


def test_files_behind_a_protocol_are_trusted_by_their_names(jobs: Jobs, ledger: Ledger) -> None:
    asked = resolved(path="root://server//store/f.root")
    job = planned(jobs, ledger, asked=asked)
    fill(ledger, job, [0, 1, 2])
    end(ledger, job, complete=True)
    found = jobs.completed(asked, "me")
    assert found is not None
    assert found.id == job
    assert PATH not in found.model_dump_json()


def test_a_snapshot_on_the_way_is_no_result(jobs: Jobs, ledger: Ledger, file: Path) -> None:
    job = planned(jobs, ledger, asked=resolved(path=str(file)))
    publish(ledger, job, complete=False, final=False)
    assert jobs.completed(resolved(path=str(file)), "me") is None
    assert [unit.state for unit in jobs.units(job)] == [UnitState.PENDING] * 3
