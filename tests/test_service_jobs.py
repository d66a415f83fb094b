"""The job database: durable, exactly once, one driver at a time; and requests are checked by name."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from ledger_toys import Clock, done, planned, resolved

from binworks.service import tokens
from binworks.service.database import Database
from binworks.service.jobs import Jobs
from binworks.service.lease import LeaseLostError, identity
from binworks.service.ledger import FileKey, Ledger, Settled
from binworks.service.model import JobRequest, JobState, UnitState
from binworks.service.plan import FileFacts
from binworks.service.quotas import Limits
from binworks.service.requests import catalogue, check_path, resolve
from binworks.service.retry import Again, Kind
from binworks.service.settings import Settings
from binworks.service.tasks import Failure
from binworks.service.units import Status
from binworks.tensors.errors import ConflictError, RequestError

pytest_plugins = ["ledger_fixture"]


def test_a_job_is_stored_and_seen(jobs: Jobs) -> None:
    view, new = jobs.create(resolved("mine"), "me")
    assert new
    assert (view.state, view.owner, view.request.label, view.luminosity) == (
        JobState.QUEUED,
        "me",
        "mine",
        10.0,
    )
    assert [event.kind for event in jobs.events(view.id)] == ["state"]
    assert view.note is not None
    assert "driver" in view.note


def test_an_idempotency_key_gives_the_same_job_and_refuses_another_request(jobs: Jobs) -> None:
    first, new = jobs.create(resolved(), "me", "key")
    again, newer = jobs.create(resolved(), "me", "key")
    assert (first.id, new, newer) == (again.id, True, False)
    assert jobs.create(resolved(), "you", "key")[1]
    with pytest.raises(ConflictError) as caught:
        jobs.create(resolved("other"), "me", "key")
    assert caught.value.code == "idempotency-key-reused"


def test_many_writers_at_once_make_one_job_of_one_key(database: Database) -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(Jobs(database).create(resolved(), "me", "key")[0].id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def test_the_quota_counts_unfinished_jobs_of_one_owner(jobs: Jobs) -> None:
    ids = [jobs.create(resolved(), "me")[0].id for _ in range(3)]
    with pytest.raises(ConflictError) as caught:
        jobs.create(resolved(), "me")
    assert caught.value.code == "too-many-jobs"
    jobs.create(resolved(), "you")
    assert jobs.cancel(ids[0]).state == JobState.CANCELLING


def test_a_foreign_job_looks_absent(jobs: Jobs) -> None:
    job = jobs.create(resolved(), "me")[0].id
    for ask in (jobs.get, jobs.cancel):
        with pytest.raises(RequestError) as caught:
            ask(job, "you")
        assert caught.value.code == "unknown-job"


def test_pages_give_each_job_once_newest_first(jobs: Jobs, clock: Clock) -> None:
    jobs.limits = Limits()
    made = []
    for i in range(7):
        clock.now += i % 2  # some are of the same second
        made.append(jobs.create(resolved(), "me")[0])
    seen, cursor = [], None
    while True:
        page = jobs.list(owner="me", cursor=cursor, limit=3)
        seen += page.jobs
        cursor = page.next
        if cursor is None:
            break
    assert sorted(job.id for job in seen) == sorted(job.id for job in made)
    assert [job.created for job in seen] == sorted((job.created for job in made), reverse=True)
    with pytest.raises(RequestError) as caught:
        jobs.list(cursor="bm9uc2Vuc2U=")
    assert caught.value.code == "bad-cursor"


def test_a_unit_counts_once_and_only_for_the_present_attempt(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    first = Status(0).started("a")
    ledger.start(job, [first])
    assert ledger.settle([Settled(job, "a", first.recalled(), "W", None)]) == [True]
    second = first.recalled().started("b")
    ledger.start(job, [second])
    assert ledger.settle([done(job, first)]) == [False]
    assert ledger.settle([done(job, second), done(job, second)]) == [True, False]
    view = jobs.get(job)
    assert (
        view.counts.units.done,
        view.counts.events.done,
        view.datasets[0].entries,
        view.datasets[0].sum_sign,
    ) == (1, 10, 10, 8)
    assert jobs.units(job, state=UnitState.DONE)[0].attempts == 2


def test_failures_are_told_with_file_and_reason(jobs: Jobs, ledger: Ledger, clock: Clock) -> None:
    job = planned(jobs, ledger)
    status = Status(1).started("a")
    ledger.start(job, [status])
    failure = Failure(Kind.TRANSIENT, "server-timeout", "No answer.", "/d/f.root", None, "Traceback")
    after = status.failed("a", Kind.TRANSIENT, Again(clock.now + 5))
    assert after is not None
    ledger.settle([Settled(job, "a", after, "W", failure, "tcp://w")])
    unit = jobs.units(job)[1]
    assert (unit.state, unit.worker, unit.traceback) == (UnitState.PENDING, "tcp://w", "Traceback")
    assert unit.error is not None
    assert unit.error.where == "/d/f.root"
    assert jobs.events(job)[-1].data["error"]["code"] == "server-timeout"


def test_rate_and_time_to_go_are_counted_over_the_ledger(jobs: Jobs, ledger: Ledger, clock: Clock) -> None:
    job = planned(jobs, ledger, 4)
    for unit in range(2):
        status = Status(unit).started(f"t{unit}")
        ledger.start(job, [status])
        clock.now += 5.0
        ledger.settle([done(job, status)])
    view = jobs.get(job)
    assert view.rate == pytest.approx(20 / 10.0)
    assert view.eta_s == pytest.approx(10.0)


def test_cancelling_wins_over_the_driver(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    ledger.start(job, [Status(0).started("a")])
    jobs.cancel(job)
    assert not ledger.move(job, JobState.FINALIZING, "too late")
    assert ledger.move(job, JobState.CANCELLED, "asked for")
    assert jobs.units(job)[0].state == UnitState.PENDING
    assert not ledger.start(job, [Status(0).started("b")])
    assert jobs.cancel(job).state == JobState.CANCELLED


def test_one_driver_at_a_time_and_a_deposed_one_cannot_write(
    jobs: Jobs, database: Database, clock: Clock, ledger: Ledger
) -> None:
    other = Ledger(database, clock)
    assert not other.take_over("elsewhere:2", 10.0)
    clock.now += 9.0
    ledger.renew(10.0)
    clock.now += 9.0
    assert not other.take_over("elsewhere:2", 10.0)
    clock.now += 2.0
    assert other.take_over("elsewhere:2", 10.0)
    job = jobs.create(resolved(), "me")[0].id
    with pytest.raises(LeaseLostError, match="number 2 by now"):
        ledger.move(job, JobState.RUNNING, "test")
    assert other.move(job, JobState.RUNNING, "test")
    other.renew(0.0)
    assert Ledger(database, clock).take_over("elsewhere:3", 10.0)


def test_the_lease_of_a_process_that_ended_on_this_host_is_free_at_once(
    database: Database, clock: Clock
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert Ledger(database, clock).take_over(identity(ended.pid), 1000.0)
    assert Ledger(database, clock).take_over("elsewhere:2", 10.0)


def test_the_file_index_knows_a_file_until_it_changes(ledger: Ledger) -> None:
    facts = FileFacts("/d/f.root", "u", 5, 10, (0, 4, 10))
    ledger.index(FileKey("/d/f.root", 5, 1), facts)
    assert ledger.indexed([FileKey("/d/f.root", 5, 1)]) == {"/d/f.root": facts}
    assert ledger.indexed([FileKey("/d/f.root", 5, 2), FileKey("/d/f.root", 6, 1)]) == {}


def test_a_snapshot_number_is_never_used_again(jobs: Jobs, ledger: Ledger) -> None:
    job = planned(jobs, ledger)
    first, second = ledger.new_generation(job), ledger.new_generation(job)
    assert (first, second) == (1, 2)
    assert jobs.generations(job) == []
    facts = {"final": True, "complete": False, "events": 10, "units": 1, "fraction": 0.3}
    assert not ledger.has_final(job)
    ledger.publish(job, second, facts)
    assert ledger.has_final(job)
    assert ledger.unpublished(job) == [1]
    assert (jobs.get(job).generation, jobs.get(job).complete) == (2, False)
    assert ledger.new_generation(job) == 3


def test_every_commit_is_on_the_disk_and_readers_do_not_wait(database: Database, jobs: Jobs) -> None:
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    with database.write() as _:
        assert jobs.list().jobs == []


def test_tokens_are_kept_as_hashes_and_end(database: Database) -> None:
    token = tokens.create(database, "me", ["read"], now=0.0, lifetime=10.0)
    held = tokens.check(database, token, now=5.0)
    assert held is not None
    assert (held.owner, held.scopes, held.expires) == ("me", {"read"}, 10.0)
    assert tokens.check(database, token, now=10.0) is None
    assert tokens.check(database, token + "x", now=5.0) is None
    with database.engine.connect() as connection:
        assert token not in str(connection.exec_driver_sql("SELECT * FROM tokens").all())


# requests


def settings_with(tmp_path: Path, **catalogues: Any) -> Settings:
    paths = []
    for name, document in catalogues.items():
        (tmp_path / name).mkdir()
        path = tmp_path / name / "catalogue.json"
        path.write_text(json.dumps(document))
        paths.append(path)
    return Settings(home=tmp_path / "home", catalogues=tuple(paths))


def listing(*names: str, **more: Any) -> dict[str, Any]:
    datasets = [{"name": name, "files": [f"data/{name}.root"], "boson": "W"} for name in names]
    return {"schema": "binworks.catalogue/1", "luminosity": 5.0, "datasets": datasets, **more}


def test_names_of_the_catalogue_become_files(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, a=listing("W", "Z"), b=listing("data"))
    assert sorted(catalogue(settings).datasets) == ["W", "Z", "data"]
    made = resolve(JobRequest(processor="w_mass", datasets=["Z", "W"]), settings)
    assert [dataset.files[0] for dataset in made.datasets] == [
        str(tmp_path / "a/data/Z.root"),
        str(tmp_path / "a/data/W.root"),
    ]
    assert (made.luminosity, made.corrections) == (5.0, None)
    assert made.systematics == ("mass", "mass_Z", "width_W", "width_Z", "sin2theta", "pdf")


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"processor": "w_mas"}, "unknown-processor", "w_mass"),
        ({"options": {"nope": 1}}, "unknown-option", "nope"),
        ({"datasets": ["ZZ"]}, "unknown-data-set", "ZZ"),
        ({"corrections": "dem"}, "unknown-correction-set", "dem"),
        ({"systematics": ["pfd"]}, "unknown-systematic", "pdf"),
        ({"systematics": ["pileup"]}, "missing-correction", "pileup"),
        ({"datasets": [{"name": "X", "files": ["/etc/passwd"]}]}, "path-not-allowed", "/etc/passwd"),
        ({"datasets": [{"name": "zarr.json", "files": ["/x"]}]}, "bad-dataset", "zarr.json"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, change: dict[str, Any], code: str, named: str) -> None:
    settings = settings_with(tmp_path, a=listing("W", "Z"))
    request = JobRequest.model_validate({"processor": "w_mass", "datasets": ["W"], **change})
    with pytest.raises(RequestError, match=named) as caught:
        resolve(request, settings)
    assert caught.value.code == code


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, a=listing("W"))
    path = str(tmp_path / "a" / "f.root")
    request = JobRequest.model_validate(
        {"processor": "w_mass", "datasets": [{"name": "X", "files": [path, path]}]}
    )
    with pytest.raises(RequestError, match="count twice"):
        resolve(request, settings)


@pytest.mark.parametrize(
    "broken",
    [b"{", b"[]", json.dumps(listing("W", "W")).encode(), json.dumps(listing("W", extra=1)).encode()],
)
def test_a_broken_catalogue_is_named(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "catalogue.json"
    path.write_bytes(broken)
    with pytest.raises(RequestError, match=r"catalogue\.json") as caught:
        catalogue(Settings(home=tmp_path, catalogues=(path,)))
    assert caught.value.code == "bad-catalogue"


def test_paths_cannot_leave_the_allowed_folders(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    roots = (str(root), "root://server//store")
    check_path(str(root / "deep" / "f.root"), roots)
    check_path("root://server//store/user/f.root", roots)
    bad = [
        f"{root}/../x.root",
        f"{root}x/f.root",
        f"{root}/link/passwd",
        "data/f.root",
        "root://server//store/../etc/f",
    ]
    for path in [*bad, "root://server//storeX/f", "root://other//store/f", "http://server//store/f", ""]:
        with pytest.raises(RequestError) as caught:
            check_path(path, roots)
        assert caught.value.code == "path-not-allowed"


def test_requests_with_unknown_fields_or_twins_are_refused() -> None:
    for change in (
        {"proccessor": "x"},
        {"datasets": ["W", "W"]},
        {"datasets": []},
        {"on_error": {"skip": 2}},
        {"priority": 11},
    ):
        with pytest.raises(ValueError, match="validation error"):
            JobRequest.model_validate({"processor": "w_mass", "datasets": ["W"], **change})


def test_a_home_without_settings_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="binworks up"):
        Settings.load(tmp_path)
    Settings(home=tmp_path).save()
    assert Settings.load(tmp_path) == Settings(home=tmp_path)
