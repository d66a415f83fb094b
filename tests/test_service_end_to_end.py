"""Jobs through the whole service: real scheduler, workers, driver, database and store."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest
import service_toys
import small_corrections
import small_nano
import zarr
from service_toys import Running, registered, serial, write, write_all

from binworks.corrections import sets
from binworks.service import layout
from binworks.service.model import JobState, UnitState


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[Running]:
    sets.write(data / "small", "small", small_corrections.documents())
    home = tmp_path_factory.mktemp("service")
    places = {"data_roots": (str(data),), "corrections": (data,)}
    with (
        registered(home / "toys"),
        service_toys.service(home / "home", workers=2, snapshot_seconds=0.5, **places) as service,
    ):
        yield service


def test_the_w_job_gives_the_bits_of_a_serial_run_and_a_second_one_reuses_them(
    running: Running, data: Path, tmp_path: Path
) -> None:
    files = {
        "W": [
            small_nano.write(data / f"w{i}.root", small_nano.events(1500, i, pdf_members=5)) for i in range(4)
        ],
        "Z": [small_nano.write(data / "z.root", small_nano.events(900, 9, boson="Z", pdf_members=5))],
        "data": [small_nano.write(data / "d.root", small_nano.events(1100, 11, kind="data", boson=None))],
    }
    facts: dict[str, dict[str, Any]] = {
        "W": {"boson": "W", "cross_section": 10.0},
        "Z": {"boson": "Z", "cross_section": 1.0, "group": "Zmumu"},
        "data": {"kind": "data"},
    }
    request = {
        "processor": "w_mass",
        "options": {"pdf_members": 5},
        "corrections": "small",
        "luminosity": 7.0,
        "datasets": [{"name": name, "files": list(map(str, files[name])), **facts[name]} for name in files],
    }
    first = running.wait(running.submit({}, **request).id, 120)
    digests = running.digests(first.id)
    _, resolved = running.service_ledger().load(first.id)
    for dataset in resolved.datasets:
        assert digests[dataset.name] == serial(tmp_path / dataset.name, dataset, resolved)

    begin = time.monotonic()
    second = running.wait(running.submit({}, **request).id)
    assert time.monotonic() - begin < 10
    assert running.digests(second.id) == digests
    assert all(unit.reused for unit in running.units(second.id))

    assert second.complete
    assert second.counts.events.done == second.counts.events.total == 4 * 1500 + 900 + 1100
    assert [d.entries for d in second.datasets] == [6000, 900, 1100]
    document = running.store.read_json(layout.description(first.id))
    assert document["luminosity"] == 7.0
    assert len(running.store.read_json(layout.plan(first.id))["units"]) == second.counts.units.total
    manifest = running.store.read_json(layout.manifest(first.id, first.generation or 0))
    assert sum(unit["entries"] for unit in manifest["units"]) == 8000
    assert manifest["datasets"]["W"]["digest"] == digests["W"]
    root = zarr.open_consolidated(
        running.store.key_path(layout.generation(first.id, first.generation or 0)), mode="r"
    )
    assert root.attrs["complete"]
    assert root["Z"].attrs["group"] == "Zmumu"
    assert root["Z"].attrs["counts"]["entries"] == 900
    nominal = running.store.read_histogram(
        layout.dataset(first.id, first.generation or 0, "W"), "nominal"
    ).to_hist()
    assert isinstance(nominal, hist.Hist)
    assert nominal.sum().value > 0


def test_one_worker_and_two_give_the_same_bits(running: Running, data: Path, tmp_path: Path) -> None:
    files = {"A": write_all(data / "bits", 5, 3600), "B": write_all(data / "bits2", 2, 1300)}
    job = running.submit(files, options={"pause": 0.05}).id
    view = running.wait(job)
    two = running.digests(job)
    places = {"data_roots": (str(data),)}
    with service_toys.service(tmp_path / "one", workers=1, **places) as alone:
        other = alone.submit(files).id
        alone.wait(other)
        assert alone.digests(other) == two

    generations = running.jobs.generations(job)
    assert len(generations) >= 2
    assert [g.fraction for g in generations] == sorted(g.fraction for g in generations)
    assert [g.final for g in generations] == [False] * (len(generations) - 1) + [True]
    for g in generations:
        for name in files:
            stored = running.store.attributes(layout.dataset(job, g.n, name))
            fraction = stored["counts"].get("entries", 0) / (18000 if name == "A" else 2600)
            assert abs(fraction - g.fraction) < 0.5
    assert view.counts.units.total > 16  # two levels of merging
    kinds = [event.kind for event in running.jobs.events(job)]
    assert kinds.count("state") == 4
    assert kinds.count("snapshot") == len(generations)
    assert "progress" in kinds


def bad_files(data: Path) -> dict[str, str]:
    data.mkdir(exist_ok=True)
    good = write(data / "good.root", 2000)
    (data / "text.root").write_text("this is not a ROOT file, but it is long enough to be looked at")
    (data / "cut.root").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    return {
        "missing-file": str(data / "nowhere.root"),
        "not-root": str(data / "text.root"),
        "truncated-file": str(data / "cut.root"),
        "no-events": str(write(data / "tree.root", 100, tree="Runs")),
        "missing-branch": str(write(data / "branch.root", 100, first=7, column="y")),
    }


@pytest.mark.parametrize(
    "code", ["missing-file", "not-root", "truncated-file", "no-events", "missing-branch"]
)
def test_a_bad_file_ends_the_job_at_once_and_is_named(running: Running, data: Path, code: str) -> None:
    bad = bad_files(data / "bad")[code]
    good = write_all(data / "fine", 3, 2000)
    begin = time.monotonic()
    view = running.wait(running.submit({"D": [*good, bad]}).id, 20)
    assert time.monotonic() - begin < 10
    assert view.state == JobState.FAILED
    assert view.error is not None
    assert view.error.code == code
    assert bad in str(view.error.where)
    assert "Traceback" not in view.error.message


@pytest.mark.parametrize(
    "code", ["missing-file", "not-root", "truncated-file", "no-events", "missing-branch"]
)
def test_a_bad_file_may_be_left_out_and_the_result_says_so(running: Running, data: Path, code: str) -> None:
    bad = bad_files(data / "bad")[code]
    good = write_all(data / "fine", 3, 2000)
    job = running.submit({"D": [*good, bad]}, on_error={"skip": 0.3}).id
    view = running.wait(job)
    assert view.state == JobState.SUCCEEDED
    assert not view.complete
    assert [(entry.path, entry.error.code) for entry in view.missing.files] == [(bad, code)]
    assert view.counts.events.done == 6000
    root = running.store.attributes(layout.generation(job, view.generation or 0))
    assert not root["complete"]
    assert root["missing"]["files"] == ([] if code == "missing-branch" else [bad])
    assert root["missing"]["events"] == (100 if code == "missing-branch" else 0)
    failed = running.jobs.units(job, state=UnitState.SKIPPED)
    assert [bad in unit.files[0] for unit in failed] == ([True] if code == "missing-branch" else [])
    without = running.submit({"D": good}).id
    running.wait(without)
    assert running.digests(job) == running.digests(without)


def test_more_missing_than_allowed_ends_the_job(running: Running, data: Path) -> None:
    bad = bad_files(data / "bad")["not-root"]
    view = running.wait(
        running.submit({"D": [*write_all(data / "fine", 3, 2000), bad]}, on_error={"skip": 0.2}).id
    )
    assert view.state == JobState.FAILED
    assert view.error is not None
    assert view.error.code == "too-much-missing"


def test_a_file_without_events_is_no_error(running: Running, data: Path) -> None:
    empty = str(write(data / "empty.root", 0))
    mixed = running.wait(running.submit({"D": [empty, *write_all(data / "fine", 1, 2000)], "E": [empty]}).id)
    assert mixed.state == JobState.SUCCEEDED
    assert mixed.complete
    assert [dataset.events.total for dataset in mixed.datasets] == [2000, 0]
    nothing = running.wait(running.submit({"E": [empty]}).id)
    assert nothing.complete
    values = running.store.read_histogram(
        layout.dataset(nothing.id, nothing.generation or 0, "E"), "nominal"
    ).values
    assert np.all(values == 0)


def test_the_same_file_under_two_names_is_refused(running: Running, data: Path) -> None:
    path = write(data / "once.root", 700)
    twin = shutil.copy(path, data / "twice.root")
    view = running.wait(running.submit({"D": [str(path), str(twin)]}).id)
    assert view.error is not None
    assert (view.error.code, view.error.where) == ("duplicate-file", str(twin))


def test_a_fault_in_the_code_ends_the_job_early_with_the_place(running: Running, data: Path) -> None:
    view = running.wait(running.submit({"D": write_all(data / "fine", 3, 2000)}, options={"fault": 2500}).id)
    assert view.state == JobState.FAILED
    assert view.error is not None
    assert "divides by zero" in view.error.message
    (unit,) = running.jobs.units(view.id, state=UnitState.FAILED)
    assert "service_toys.py" in str(unit.traceback)
    assert unit.attempts == 1
    assert unit.worker is not None


def test_a_short_job_does_not_wait_for_a_long_one(running: Running, data: Path) -> None:
    files = write_all(data / "share", 10, 6000)
    long = running.submit({"L": files}, options={"pause": 0.3, "tag": "long"}).id
    running.until(long, lambda view: view.counts.units.done >= 2)
    begin = time.monotonic()
    short = running.submit({"S": files[:1]}, options={"tag": "short"}).id
    assert running.wait(short).state == JobState.SUCCEEDED
    assert time.monotonic() - begin < 6
    assert running.jobs.get(long).state == JobState.RUNNING
    running.jobs.cancel(long)
    assert running.wait(long, 5).state == JobState.CANCELLED


def test_a_cancelled_job_frees_the_workers_at_once(running: Running, data: Path) -> None:
    files = write_all(data / "cancel", 4, 4000)
    job = running.submit({"D": files}, options={"pause": 1.0}).id
    running.until(job, lambda view: view.counts.units.running > 0)
    running.jobs.cancel(job)
    view = running.wait(job, 5)
    assert view.state == JobState.CANCELLED
    assert view.counts.units.running == 0
    after = running.submit({"D": files[:1]}, options={"tag": "after"}).id
    assert running.wait(after, 10).state == JobState.SUCCEEDED


def test_log_lines_are_json_with_the_job(running: Running, data: Path) -> None:
    job = running.wait(running.submit({"D": write_all(data / "fine", 1, 2000)}).id).id
    lines = [json.loads(line) for line in (running.settings.logs / "driver.log").read_text().splitlines()]
    assert {"time", "level", "message"} <= lines[0].keys()
    assert any(line.get("job") == job and "finalizing" in line["message"] for line in lines)


def test_events_that_are_not_finite_fail_the_job_by_name_unless_they_are_allowed(
    running: Running, data: Path
) -> None:
    events = small_nano.events(1000, 3, pdf_members=5)
    events["genWeight"][17] = np.nan
    path = small_nano.write(data / "odd.root", events)
    request = {
        "processor": "w_mass",
        "options": {"pdf_members": 5},
        "datasets": [{"name": "odd", "files": [str(path)], "boson": "W"}],
    }
    refused = running.wait(running.submit({}, **request).id)
    assert refused.state == JobState.FAILED
    assert refused.error is not None
    assert refused.error.code == "not-finite"
    assert "1:0:17" in refused.error.message
    allowed = running.wait(running.submit({}, odd_limit=0.01, **request).id)
    assert allowed.state == JobState.SUCCEEDED
