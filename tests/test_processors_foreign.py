"""Anybody's coffea processor: through our runner and through the service, with the sums that coffea itself gets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest
import service_toys
import small_nano
from coffea.nanoevents import NanoAODSchema
from coffea.processor import IterativeExecutor, Runner
from coffea_analysis import Analysis

from binworks.processors import registry, run
from binworks.processors.dataset import Dataset
from binworks.service import layout
from binworks.service.model import JobState
from binworks.tensors.errors import RequestError

PYTHON_WARNINGS = ("ignore::RuntimeWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Install the analysis as an entry point, for this process and its children."""
    folder = tmp_path_factory.mktemp("installed")
    described = folder / "analysis-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: analysis\nVersion: 1\n")
    (described / "entry_points.txt").write_text(f"[{registry.GROUP}]\nmine = coffea_analysis:Analysis\n")
    places = [str(folder), str(Path(__file__).parent)]
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join(places))
    patch.setattr(sys, "path", [*places, *sys.path])
    registry._entries.cache_clear()
    yield
    patch.undo()
    registry._entries.cache_clear()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("nano")
    return tuple(str(small_nano.write(folder / f"{i}.root", small_nano.events(1500, i))) for i in range(3))


@pytest.fixture(scope="module")
def expected(files: tuple[str, ...]) -> Any:
    """Return what coffea's own runner gets."""
    runner = Runner(IterativeExecutor(status=False), chunksize=10_000, schema=NanoAODSchema)
    fileset = {"W": {"files": dict.fromkeys(files, "Events"), "metadata": {}}}
    return runner(fileset, processor_instance=Analysis(min_pt=25.0))["W"]


def assert_coffeas(h: hist.Hist, counts: dict[str, int], expected: Any) -> None:
    assert sorted(h.axes[0]) == sorted(expected["pt"].axes[0]) == ["IsoMu24", "none"]
    for trigger in h.axes[0]:
        ours, theirs = h[hist.loc(trigger), :], expected["pt"][hist.loc(trigger), :]
        np.testing.assert_array_equal(ours.values(flow=True), theirs.values(flow=True))
        np.testing.assert_array_equal(ours.variances(flow=True), theirs.variances(flow=True))
    assert counts["cuts.all"] == expected["cuts"]["all"] == counts["entries"]
    assert counts["cuts.one_muon"] == expected["cuts"]["one muon"]


@pytest.mark.usefixtures("registered")
@pytest.mark.filterwarnings(*PYTHON_WARNINGS)
def test_a_coffea_processor_gives_the_sums_that_coffea_gets(
    files: tuple[str, ...], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "CHUNK", 400)
    filled = run.run_files(registry.create("mine", {"min_pt": 25.0}), Dataset(name="W", files=files))
    assert_coffeas(filled.histograms["pt"].to_hist(), filled.counts, expected)
    assert filled.histograms["sum_pt"].values[0] == pytest.approx(expected["sum pt"], rel=1e-6)


@pytest.mark.usefixtures("registered")
@pytest.mark.filterwarnings(*PYTHON_WARNINGS)
def test_a_coffea_processor_runs_through_the_service(
    files: tuple[str, ...], expected: Any, tmp_path: Path
) -> None:
    places = {"data_roots": (str(Path(files[0]).parent),)}
    request = {
        "processor": "mine",
        "options": {"min_pt": 25.0},
        "datasets": [{"name": "W", "files": list(files)}],
    }
    with service_toys.service(tmp_path / "home", workers=2, unit_events=500, **places) as running:
        job = running.wait(running.submit({}, **request).id, 120)
        assert job.state == JobState.SUCCEEDED, job.error
        assert job.counts.units.total >= 3
        prefix = layout.dataset(job.id, job.generation or 0, "W")
        stored = running.store.read_accumulator(prefix)
        assert_coffeas(stored.histograms["pt"].to_hist(), stored.counts, expected)
        bad = running.wait(running.submit({}, **request | {"options": {"output": "list"}}).id, 60)
        assert bad.state == JobState.FAILED
        assert bad.error is not None
        assert bad.error.code == "unmergeable-output"
        assert "numbers" in bad.error.message


@pytest.mark.usefixtures("registered")
def test_what_a_coffea_processor_takes_is_described_and_checked() -> None:
    described = registry.describe("mine")
    assert described["summary"] == "Leading muons by trigger, with a category axis that grows."
    assert list(described["options"]["properties"]) == ["min_pt", "output"]
    json.dumps(described)
    with pytest.raises(RequestError, match="Did you mean min_pt"):
        registry.create("mine", {"min_pT": 3})
    with pytest.raises(RequestError, match="mass"):
        registry.create("mine", {}, None, ["mass"])


@pytest.mark.usefixtures("registered")
def test_a_changed_line_of_a_coffea_processor_changes_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = registry.code_digest("mine")
    original = Path.read_bytes

    def changed(path: Path) -> bytes:
        return original(path) + (b"# more" if path.name == "coffea_analysis.py" else b"")

    monkeypatch.setattr(Path, "read_bytes", changed)
    assert registry.code_digest("mine") != before


@pytest.mark.usefixtures("registered")
def test_our_own_digest_is_that_of_the_numerical_rooms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = registry.code_digest("w_mass")

    def unread(path: Path) -> bytes:
        raise AssertionError(f"{path} decides nothing")

    monkeypatch.setattr(Path, "read_bytes", unread)
    assert registry.code_digest("w_mass") == before
