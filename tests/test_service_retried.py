"""Retry, reuse, deletion and limits with all processes real: the bits are those of a job that never had trouble."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import service_toys
from service_toys import Running, registered, serial, write_all

from binworks.service.model import JobRequest, JobState
from binworks.service.requests import resolve
from binworks.tensors.errors import RequestError

EVENTS = 2000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    limits = {"data_roots": (str(data),), "max_queued_units": 8}
    with registered(home / "toys"), service_toys.service(home / "home", workers=1, **limits) as service:
        yield service


@pytest.fixture
def files(data: Path, request: pytest.FixtureRequest) -> tuple[str, ...]:
    return write_all(data / request.node.name.partition("[")[0], 3, EVENTS)


def bits(running: Running, job: str, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the job gave, and what a serial run gives."""
    _, resolved = running.service_ledger().load(job)
    return running.digests(job), {d.name: serial(folder / d.name, d, resolved) for d in resolved.datasets}


@pytest.mark.parametrize("on_error", ["fail", {"skip": 0.5}])
def test_after_a_file_has_come_back_a_retry_gives_the_whole_result(
    running: Running, files: tuple[str, ...], tmp_path: Path, on_error: Any
) -> None:
    away = Path(files[1])
    away.rename(tmp_path / "away")
    # a tag of its own, so that nothing is there from another test
    asked = {"on_error": on_error, "options": {"tag": str(on_error)}}
    job = running.submit({"a": files}, **asked).id
    before = running.wait(job)
    assert not before.complete
    if on_error == "fail":
        assert (before.state, before.generation) == (JobState.FAILED, None)
        assert before.error is not None
        assert before.error.where == str(away)
    else:
        assert before.state == JobState.SUCCEEDED
        assert [missing.path for missing in before.missing.files] == [str(away)]
    (tmp_path / "away").rename(away)
    assert running.jobs.retry(job).state == JobState.QUEUED
    after = running.wait(job)
    assert (after.state, after.complete, after.missing.n_files) == (JobState.SUCCEEDED, True, 0)
    assert after.counts.events.done == 3 * EVENTS
    found, expected = bits(running, job, tmp_path)
    assert found == expected
    kept = [unit.reused for unit in running.units(job)]
    assert sum(kept) == (0 if on_error == "fail" else 4), "what was done is not filled again"


def test_a_result_is_found_again_until_it_is_deleted_or_a_file_changes(
    running: Running, files: tuple[str, ...]
) -> None:
    asked = {"processor": "toy", "datasets": [{"name": "a", "files": list(files)}]}
    resolved = resolve(JobRequest.model_validate(asked), running.settings)
    assert running.jobs.completed(resolved, "tester") is None
    job = running.wait(running.submit({"a": files}).id)
    found = running.jobs.completed(resolved, "tester")
    assert found is not None
    assert found.id == job.id
    Path(files[2]).touch()
    assert running.jobs.completed(resolved, "tester") is None
    running.jobs.delete(job.id)
    with pytest.raises(RequestError, match="no such job"):
        running.jobs.get(job.id)
    again = running.wait(running.submit({"a": files}).id)
    assert again.complete, "the driver goes on after the deletion"


def test_a_job_that_needs_more_units_than_its_owner_may_queue_fails_and_says_so(
    running: Running, data: Path
) -> None:
    job = running.wait(running.submit({"a": write_all(data / "many", 5, EVENTS)}).id)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error.code == "too-many-units"
    assert "needs 10 units" in job.error.message
    assert job.error.hint
