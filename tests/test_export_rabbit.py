from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_w import expected_data, toy_tensor

from binworks.tensors.errors import RequestError
from binworks.tensors.export import FORMATS, export
from binworks.tensors.fit import fit_mass
from binworks.tensors.tensor import Tensor

h5py = pytest.importorskip("h5py")
EVENTS = 1e6


@pytest.fixture(scope="module")
def tensor() -> Tensor:
    drawn = toy_tensor(EVENTS, rng=np.random.default_rng(5))
    return replace(drawn, data=expected_data(EVENTS, 33.0))


@pytest.fixture
def written(tensor: Tensor, tmp_path: Path) -> dict[str, Any]:
    path = export(tensor, tmp_path / "tensor.hdf5", "rabbit")
    with h5py.File(path) as file:
        return {name: file[name][...] for name in file}


def _yields(written: dict[str, Any], name: str, value: float) -> Any:
    """Expected events as rabbit computes them, with one nuisance moved; shape (bins, processes)."""
    theta = np.zeros(len(written["hsysts"]))
    theta[written["hsysts"].astype(str).tolist().index(name)] = value
    x = 2 * theta
    between = np.clip(0.125 * x * (x**2 * (3 * x**2 - 10) + 15), -1, 1)
    exponent = written["hlogk"] @ np.eye(len(theta))
    exponent = exponent[:, :, 0] @ theta + exponent[:, :, 1] @ (theta * between)
    return written["hnorm"] * np.exp(exponent)


@pytest.mark.parametrize("name", ["massW", "scaleEta7", "theory5"])
def test_a_reader_gets_back_the_up_and_down_templates(tensor: Tensor, written: dict[str, Any], name: str):
    nuisance = next(n for n in tensor.nuisances if n.name == name)
    up = tensor.variations(nuisance.group, [nuisance.up])[0].reshape(2, -1).T
    np.testing.assert_allclose(_yields(written, name, 1.0), up, rtol=1e-12)
    if nuisance.down:
        down = tensor.variations(nuisance.group, [nuisance.down])[0].reshape(2, -1).T
    else:
        down = np.divide(written["hnorm"] ** 2, up, out=np.zeros_like(up), where=up > 0)
    np.testing.assert_allclose(_yields(written, name, -1.0), down, rtol=1e-12)


def test_free_nuisances_come_first_and_the_mass_is_the_parameter_of_interest(written: dict[str, Any]):
    names = written["hsysts"].astype(str)
    assert names[0] == "massW"
    assert written["hsystsnoconstraint"].astype(str).tolist() == ["massW"]
    assert written["hnoiidxs"].tolist() == [0]
    assert written["hconstraintweights"].tolist() == [0.0] + [1.0] * (len(names) - 1)


def test_groups_list_their_nuisances(tensor: Tensor, written: dict[str, Any]):
    names = written["hsysts"].astype(str)
    groups = written["hsystgroups"].astype(str).tolist()
    assert groups == ["mass", "momentum_scale", "theory"]
    theory = names[written["hsystgroupidxs"][2]].tolist()
    assert theory == [n.name for n in tensor.nuisances if n.group == "theory"]


def test_data_and_simulated_statistics_are_those_of_the_tensor(tensor: Tensor, written: dict[str, Any]):
    assert tensor.data is not None
    np.testing.assert_array_equal(written["hdata_obs"], tensor.data.ravel())
    np.testing.assert_array_equal(written["hsumw2"], tensor.variances.sum(axis=0).ravel())
    np.testing.assert_array_equal(written["hnorm"][:, 1], tensor.nominal[1].ravel())
    assert written["hprocs"].astype(str).tolist() == ["W", "Z"]


def test_a_template_that_is_not_positive_is_written_as_a_thousandth(tensor: Tensor, tmp_path: Path):
    nominal = tensor.nominal.copy()
    nominal[0, 0, 0, 0] = 0
    blocks = dict(tensor.blocks)
    w, mass = blocks["W", "mass"]
    values = mass.values.copy()
    values[1, 0, 0] = 0
    blocks["W", "mass"] = (w, replace(mass, values=values))
    path = export(replace(tensor, nominal=nominal, blocks=blocks), tmp_path / "tensor.hdf5", "rabbit")
    with h5py.File(path) as file:
        logk = file["hlogk"][:, 0, :, 0]
    assert logk[0].tolist() == [0, 0]
    assert logk[60].tolist() == pytest.approx([0, np.log(1e-3)])


@pytest.mark.parametrize(
    ("facts", "mark"),
    [
        ({"complete": False, "fraction": 0.931}, "INCOMPLETE: 93.1 % of the events"),
        ({"complete": True, "fraction": 1.0}, ""),
    ],
)
def test_the_file_says_how_complete_the_tensor_is(
    tensor: Tensor, tmp_path: Path, facts: dict[str, Any], mark: str
):
    metadata = {"job": "7hq2mkc3xv", "generation": 3, **facts, "missing": None}
    path = export(replace(tensor, metadata=metadata), tmp_path / "tensor.hdf5", "rabbit")
    with h5py.File(path) as file:
        found = dict(file.attrs)
    assert found == {"job": "7hq2mkc3xv", "generation": 3, **facts, "incomplete": mark}


def test_an_unknown_format_is_refused_with_the_known_ones(tensor: Tensor, tmp_path: Path):
    with pytest.raises(RequestError, match=r"no format named 'rabit'. Did you mean rabbit\?"):
        export(tensor, tmp_path / "x", "rabit")


def test_a_tensor_without_data_leaves_no_file(tensor: Tensor, tmp_path: Path):
    with pytest.raises(RequestError, match="needs data") as caught:
        export(replace(tensor, data=None), tmp_path / "x.hdf5", "rabbit")
    assert caught.value.code == "no-data"
    assert list(tmp_path.iterdir()) == []


def test_without_h5py_the_error_says_what_to_install(
    tensor: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(RequestError, match=r"pip install 'binworks\[rabbit\]'") as caught:
        export(tensor, tmp_path / "x.hdf5", "rabbit")
    assert caught.value.code == "missing-extra"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_replaces_an_older_file(tensor: Tensor, tmp_path: Path, format: str):  # noqa: A002
    target = tmp_path / "tensor"
    target.write_text("old")
    assert export(tensor, target, format) == target
    assert target.stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["tensor"]


@pytest.mark.skipif(shutil.which("rabbit_fit") is None, reason="rabbit-fit is not installed")
def test_rabbit_itself_finds_the_same_mass(tensor: Tensor, tmp_path: Path):
    export(tensor, tmp_path / "tensor.hdf5", "rabbit")
    fit = ["rabbit_fit", "tensor.hdf5", "-o", "out", "-t", "0", "--unblind"]
    subprocess.run(fit, cwd=tmp_path, check=True, capture_output=True, timeout=240)
    show = ["rabbit_print_pulls_and_constraints", "out/fitresults.hdf5"]
    text = subprocess.run(show, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"massW +(\S+) \+/- +(\S+)", text)
    assert found
    ours = fit_mass(tensor)
    assert 10 * float(found[1]) == pytest.approx(ours.mass_shift, abs=0.02 * ours.uncertainty)
    assert 10 * float(found[2]) == pytest.approx(ours.uncertainty, rel=0.01)
