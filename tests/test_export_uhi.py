from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boost_histogram.serialization as serialization
import hist
import numpy as np
import pytest
import uhi.schema
from export_contract import PARAMETERS, ExportContract, Read, channel, fit_of, masked
from uhi.io import zip as uhi_zip

from binworks.tensors.errors import RequestError
from binworks.tensors.export import uhi_hdf5
from binworks.tensors.fitinput import FitChannel

h5py = pytest.importorskip("h5py")
NAMES = ("massW", "lumi", "scale1", "scale2", "eff1", "eff2", "mixed")


def collect(document: dict[str, Any], get: Callable[[str], dict[str, Any]]) -> Read:
    """Return what plain uhi, hist and boost-histogram find in a file."""
    found = Read(incomplete=document["incomplete"])
    for name, about in document["channels"].items():
        found.data[name] = hist.Hist(serialization.from_uhi(get(f"{name}/data"))).values().ravel()
        for process in about["processes"]:
            base = f"{name}/processes/{process}"
            nominal = hist.Hist(serialization.from_uhi(get(f"{base}/nominal")))
            found.nominal[name, process] = nominal.values().ravel()
            found.errors[name, process] = np.sqrt(nominal.variances().ravel())
            shifts = hist.Hist(serialization.from_uhi(get(f"{base}/variations")))
            assert shifts.axes.name[:2] == ("parameter", "direction")
            for parameter in shifts.axes["parameter"]:
                up, down = (
                    nominal.values() + shifts[{"parameter": parameter, "direction": direction}].values()
                    for direction in ("up", "down")
                )
                found.templates[name, process, parameter] = (up.ravel(), down.ravel())
    return found


class UhiContract(ExportContract):
    shapes = NAMES
    inflated = False

    def test_plain_uhi_finds_every_histogram_valid(self, tmp_path: Path) -> None:
        path = self.written(fit_of(channel(), masked(channel("wlike", etas=2), 3)), tmp_path)
        found = uhi.schema.load(path)
        uhi.schema.validate(found)
        assert len(found) == 2 * 5

    def test_the_axes_are_those_of_the_channel(self, tmp_path: Path) -> None:
        found = uhi.schema.load(self.written(fit_of(), tmp_path))
        shifts = hist.Hist(serialization.from_uhi(found["signal/processes/Z/variations"]))
        assert shifts.axes.name == ("parameter", "direction", "eta", "pt")
        assert sorted(shifts.axes[0]) == ["lumi", "mixed", "norm_Z", "scale1", "scale2"]

    def test_masked_bins_leave_an_axis_of_the_numbers_of_the_others(self, tmp_path: Path) -> None:
        found = uhi.schema.load(self.written(fit_of(masked(channel(), 0, 7)), tmp_path))
        data = hist.Hist(serialization.from_uhi(found["signal/data"]))
        assert list(data.axes["bin"]) == [n for n in range(20) if n not in (0, 7)]
        assert data[hist.loc(8)] == channel().data[8]

    def test_a_process_that_nothing_changes_has_no_variations(self, tmp_path: Path) -> None:
        quiet = channel()
        quiet = FitChannel(**{**quiet.__dict__, "effects": lambda _process: iter(())})
        found = uhi.schema.load(self.written(fit_of(quiet), tmp_path))
        assert sorted(found) == ["signal/data", "signal/processes/W/nominal", "signal/processes/Z/nominal"]

    def test_parameters_and_groups_stand_in_the_document(self, tmp_path: Path) -> None:
        document = self.document(self.written(fit_of(), tmp_path))
        assert [p["name"] for p in document["parameters"]] == [p.name for p in PARAMETERS]
        assert document["parameters"][0] == {
            "name": "massW",
            "groups": ["mass"],
            "constrained": False,
            "interest": True,
        }
        assert document["metadata"]["inflation"] == 1.25

    def document(self, path: Path) -> dict[str, Any]:
        raise NotImplementedError


class TestHdf5(UhiContract):
    format = "uhi-hdf5"

    def read(self, path: Path) -> Read:
        from uhi.io import hdf5

        with h5py.File(path) as file:
            assert file.attrs["incomplete"] == json.loads(file["document"][()])["incomplete"]
            return collect(json.loads(file["document"][()]), lambda name: dict(hdf5.read(file[name])))

    def document(self, path: Path) -> dict[str, Any]:
        with h5py.File(path) as file:
            found: dict[str, Any] = json.loads(file["document"][()])
        return found

    def test_what_changes_a_few_bins_takes_little_space(self, tmp_path: Path) -> None:
        wide = channel(etas=48, pts=60)
        with h5py.File(self.written(fit_of(wide), tmp_path)) as file:
            values = file["signal/processes/W/variations/storage/values"]
            sizes = [values.id.get_chunk_info(number).size for number in range(values.id.get_num_chunks())]
        assert len(sizes) == len(NAMES)
        assert sorted(sizes)[1] < sorted(sizes)[2] / 5

    def test_without_h5py_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(RequestError, match=r"pip install 'binworks\[rabbit\]'"):
            uhi_hdf5.write(fit_of(), tmp_path / "x.hdf5")


class TestZip(UhiContract):
    format = "uhi-zip"

    def read(self, path: Path) -> Read:
        with zipfile.ZipFile(path) as archive:
            return collect(self.document(path), lambda name: uhi_zip.read(archive, name))

    def document(self, path: Path) -> dict[str, Any]:
        with zipfile.ZipFile(path) as archive:
            found: dict[str, Any] = json.loads(archive.read("binworks.txt"))
        return found
