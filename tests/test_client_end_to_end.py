"""The whole way in one: `binworks up`, submit, watch, pull; the same bits as a processor run in a notebook."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import small_corrections
import small_nano
from test_client_cli import BINWORKS, run

from binworks.client import Client
from binworks.corrections import sets
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect
from binworks.processors.run import Range, fill_ranges

EVENTS = 4_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a catalogue of two data sets and a correction set."""
    folder = tmp_path_factory.mktemp("data")
    small_corrections.write(folder / "corrections" / "small")
    for seed, name in enumerate(("plus_0", "plus_1")):
        small_nano.write(folder / f"{name}.root", small_nano.events(EVENTS, seed, pdf_members=7))
    small_nano.write(folder / "data.root", small_nano.events(EVENTS, 9, kind="data"))
    plus = {
        "name": "Wplusmunu",
        "files": ["plus_0.root", "plus_1.root"],
        "boson": "W",
        "cross_section": 11_000.0,
    }
    muons = {"name": "SingleMuon", "files": ["data.root"], "kind": "data"}
    document = {"schema": "binworks.catalogue/1", "luminosity": 10.0, "datasets": [plus, muons]}
    (folder / "catalogue.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def home(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the home of a service that runs."""
    home = tmp_path_factory.mktemp("up") / "home"
    command = [
        BINWORKS,
        "up",
        "--home",
        str(home),
        "--catalogue",
        str(data / "catalogue.json"),
        "--workers",
        "1",
    ]
    command += ["--port", "0", "--unit-events", "1000", "--snapshot-seconds", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        try:
            assert json.loads(up.stdout.readline())["home"] == str(home)
            yield home
        finally:
            up.send_signal(signal.SIGINT)
            assert up.wait(60) == 0


def test_one_command_line_from_files_to_a_tensor(home: Path, data: Path, tmp_path: Path) -> None:
    shown = run("submit", "-p", "w_mass", "--all-datasets", "-c", "small", "-o", "pdf_members=7", "--wait",
                "--home", str(home)).stdout  # fmt: skip
    job = shown.split()[0]
    assert "succeeded" in shown
    run("pull", job, "--out", str(tmp_path / "tensor.npz"), "--home", str(home))
    some = ["mass", "pdf", "efficiency_trigger"]
    processor = registry.create("w_mass", {"pdf_members": 7}, sets.load(data / "corrections" / "small"), some)
    with Client(home=home) as client, np.load(tmp_path / "tensor.npz") as pulled:
        snapshot = client.job(job).snapshot()
        assert snapshot.complete
        assert pulled["nominal"].sum() > 0
        assert "shifts/momentum_scale" in pulled
        for entry in client.datasets():
            dataset = Dataset.model_validate(entry)
            ranges = [Range(path, inspect(path).uuid, 0, EVENTS) for path in dataset.files]
            expected = fill_ranges(processor, dataset, ranges)
            found = snapshot.accumulator(dataset.name)
            assert found.counts["entries"] == EVENTS * len(dataset.files)
            assert found.counts == expected.counts
            for name, histogram in expected.histograms.items():
                largest = np.abs(histogram.values).max(initial=0.0)
                np.testing.assert_allclose(
                    found.histograms[name].values, histogram.values, rtol=0, atol=1e-12 * largest
                )


def test_a_missing_file_fails_the_job_and_names_it_and_the_next_job_goes_on(home: Path, data: Path) -> None:
    lost = data / "lost.root"
    wrong = {"name": "Lost", "files": [str(lost)]}
    with Client(home=home) as client:
        bad = client.submit("w_mass", ["SingleMuon", wrong], systematics=[])
        good = client.submit("w_mass", ["SingleMuon"], systematics=[])
        assert [event.data["state"] for event in bad.watch() if event.kind == "state"][-1] == "failed"
        error = bad.status().error
        assert error is not None
        assert str(lost) in str(error)
        assert good.wait(timeout=60).complete
        assert good.histogram("SingleMuon").sum().value > 0
