from __future__ import annotations

import functools
import io
import json
import pickle
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest
from export_contract import PARAMETERS, ExportContract, Read, axes, channel, fit_of, masked
from rabbit import agreement, fitter
from toy_w import expected_data, mass_name, toy_tensor

from binworks.tensors.errors import RequestError
from binworks.tensors.export import export, rabbit, rabbit_sparse
from binworks.tensors.fit import fit_linear
from binworks.tensors.fitbuild import from_tensor
from binworks.tensors.fitinput import LOWEST, Effect, FitChannel, FitInput
from binworks.tensors.histogram import Float64

h5py = pytest.importorskip("h5py")
MODULES = {"rabbit": rabbit, "rabbit-sparse": rabbit_sparse}
EVENTS = 1e6


class _Plain(pickle.Unpickler):
    """Refuses everything but axes of hist."""

    def find_class(self, module: str, name: str) -> Any:
        assert module in ("hist.axis", "functools"), f"{module}.{name} is no public name of hist"
        return getattr({"hist.axis": hist.axis, "functools": functools}[module], name)


def meta_of(file: Any) -> dict[str, Any]:
    assert file["meta"].attrs["narf_h5py_pickle_protocol_version"] == 1
    meta: dict[str, Any] = _Plain(io.BytesIO(file["meta/pickle_data"][...].tobytes())).load()
    return meta


def densified(group: Any) -> Float64:
    """Return a sparse array in full; its entries must be in rising order, each once."""
    shape = tuple(group.attrs["dense_shape"])
    indices, values = group["indices"][...], group["values"][...]
    flat = indices[:, 0] * shape[1] + indices[:, 1]
    assert (np.diff(flat) > 0).all()
    out = np.zeros(shape)
    out[tuple(indices.T)] = values
    return out


def read_arrays(path: Path) -> dict[str, Any]:
    """Return what is in either file as numpy has it, ``hnorm`` and ``hlogk`` in full; ``meta`` and attributes too."""
    with h5py.File(path) as file:
        found: dict[str, Any] = {
            name: file[name][...] for name in file if isinstance(file[name], h5py.Dataset)
        }
        found |= {"meta": meta_of(file), "attributes": dict(file.attrs)}
        found["bins"] = {name: bins[...] for name, bins in file["binworks/bins"].items()}
        if "hnorm_sparse" in file:
            found["hnorm"] = densified(file["hnorm_sparse"])
            rows = densified(file["hlogk_sparse"])
            halves = () if found["meta"]["symmetric_tensor"] else (2,)
            full = np.zeros((*found["hnorm"].shape, *halves, len(found["hsysts"])))
            full[found["hnorm"] != 0] = rows.reshape(len(rows), *full.shape[2:])
            found["hlogk"] = full
    return found


def yields(found: dict[str, Any], name: str, value: float) -> Float64:
    """Return expected events as rabbit computes them, with one parameter moved; shape (bins, processes)."""
    theta = np.zeros(len(found["hsysts"]))
    theta[found["hsysts"].astype(str).tolist().index(name)] = value
    exponent = found["hlogk"] @ theta
    if not found["meta"]["symmetric_tensor"]:
        x = 2 * theta
        between = np.clip(0.125 * x * (x**2 * (3 * x**2 - 10) + 15), -1, 1)
        exponent = exponent[:, :, 0] + found["hlogk"][:, :, 1] @ (theta * between)
    out: Float64 = found["hnorm"] * np.exp(exponent)
    return out


class _RabbitContract(ExportContract):
    shapes = ("massW", "lumi", "scale1", "scale2", "eff1", "eff2", "mixed")

    def read(self, path: Path) -> Read:
        found = read_arrays(path)
        out = Read(incomplete=found["attributes"]["incomplete"])
        start = 0
        for name, about in found["meta"]["channel_info"].items():
            part = slice(start, start := start + int(np.prod([axis.size for axis in about["axes"]])))
            out.data[name] = found["hdata_obs"][part]
            for number, process in enumerate(found["hprocs"].astype(str)):
                out.nominal[name, process] = found["hnorm"][part, number]
                out.errors[name, process] = np.sqrt(found["hsumw2"][part, number])
                for parameter in found["hsysts"].astype(str):
                    up, down = (yields(found, parameter, at)[part, number] for at in (1.0, -1.0))
                    out.templates[name, process, parameter] = (up, down)
        return out

    def test_without_h5py_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(RequestError, match=r"pip install 'binworks\[rabbit\]'") as caught:
            export(fit_of(), tmp_path / "x.hdf5", self.format)
        assert caught.value.code == "missing-extra"
        assert list(tmp_path.iterdir()) == []


class TestDense(_RabbitContract):
    format = "rabbit"


class TestSparse(_RabbitContract):
    format = "rabbit-sparse"


def mirrored(what: FitChannel) -> FitChannel:
    """Return the channel without templates down of their own."""

    def given(process: int) -> Iterator[Effect]:
        for effect in what.effects(process):
            yield replace(effect, down=None)

    return replace(what, effects=given)


def both(fit: FitInput, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name, module in MODULES.items():
        module.write(fit, folder / name)
    return read_arrays(folder / "rabbit"), read_arrays(folder / "rabbit-sparse")


@pytest.fixture(params=[False, True], ids=["asymmetric", "symmetric"])
def two_channels(request: pytest.FixtureRequest) -> FitInput:
    """Return channels whose bins do not end where a chunk of the file does; the second lacks a process."""
    first = masked(channel(etas=12, pts=20), 0, 17, 239)
    second = channel("wlike", etas=7, pts=5, seed=2)
    second = replace(
        second, processes=("Z",), nominal=second.nominal[1:], variances=second.variances[1:],
        effects=lambda _process, effects=second.effects: effects(1),
    )  # fmt: skip
    if request.param:
        first, second = mirrored(first), mirrored(second)
    return replace(fit_of(first, second), symmetric=request.param)


def test_sparse_and_dense_hold_the_same_numbers(two_channels: FitInput, tmp_path: Path):
    dense, sparse = both(two_channels, tmp_path)
    assert set(dense) == set(sparse) - {"hnorm_sparse", "hlogk_sparse"}
    for name in ("hnorm", "hlogk", "hsumw", "hsumw2", "hdata_obs", "hsystgroups", "hconstraintweights"):
        np.testing.assert_array_equal(dense[name], sparse[name], err_msg=name)
    assert repr(dense["meta"]) == repr(sparse["meta"])


def test_the_halves_are_those_of_the_effects(two_channels: FitInput, tmp_path: Path):
    dense, _ = both(two_channels, tmp_path)
    start = 0
    for part in two_channels.channels:
        rows = np.arange(start, start := start + int(part.used.sum()))
        expected = np.zeros((len(part.data), 2, 2, len(PARAMETERS)))
        for number, process in enumerate(part.processes):
            column = two_channels.processes.index(process)
            for effect in part.effects(number):
                cells = np.arange(len(part.data)) if effect.cells is None else effect.cells
                down = -effect.up if effect.down is None else effect.down
                for half, values in enumerate(((effect.up - down) / 2, (effect.up + down) / 2)):
                    expected[np.ix_(cells, [column], [half], effect.parameters)] = values.T[:, None, None]
        expected = expected[part.used, :, 0] if two_channels.symmetric else expected[part.used]
        np.testing.assert_allclose(dense["hlogk"][rows], expected, rtol=1e-12, atol=1e-15)


def test_channels_keep_their_axes_unless_bins_are_masked(two_channels: FitInput, tmp_path: Path):
    dense, _ = both(two_channels, tmp_path)
    about = dense["meta"]["channel_info"]
    assert about["wlike"]["axes"] == list(axes(7, 5))
    assert [axis.name for axis in about["wlike"]["axes"]] == ["eta", "pt"]
    assert about["signal"]["axes"] == [hist.axis.Integer(0, 237, name="bin", flow=False)]
    np.testing.assert_array_equal(dense["bins"]["signal"], np.flatnonzero(two_channels.channels[0].used))
    np.testing.assert_array_equal(dense["bins"]["wlike"], np.arange(35))


@pytest.mark.parametrize(
    "axis",
    [
        hist.axis.Regular(4, 0, 2, name="x", label="an x", flow=False),
        hist.axis.Variable([0, 1, 5, np.inf], name="x", flow=False),
        hist.axis.Regular(4, 1, 16, transform=hist.axis.transform.log, name="x"),
        hist.axis.Integer(-1, 3, name="x", flow=False),
        hist.axis.IntCategory([3, 5], name="x", flow=False),
        hist.axis.StrCategory(["a", "b"], name="x", flow=False),
    ],
    ids=lambda axis: type(axis).__name__,
)
def test_every_kind_of_axis_reaches_the_reader(axis: Any, tmp_path: Path):
    nominal = np.ones((1, axis.extent))
    inner = np.zeros(axis.extent, bool)
    inner[int(axis.traits.underflow) :][: axis.size] = True
    part = FitChannel("c", (axis,), ("W",), nominal, nominal, nominal[0], inner, lambda _: iter(()))
    rabbit.write(FitInput((part,), PARAMETERS, symmetric=True), tmp_path / "x")
    (found,) = read_arrays(tmp_path / "x")["meta"]["channel_info"]["c"]["axes"]
    assert (found.name, found.label, found.size) == ("x", axis.label, axis.size)
    assert not found.traits.overflow
    if axis.traits.continuous:
        np.testing.assert_allclose(found.edges, axis.edges)
    else:
        assert list(found) == list(axis)


def test_bins_beyond_an_axis_are_numbered_with_the_others(tmp_path: Path):
    axis = hist.axis.Regular(3, 0, 1, name="x")
    nominal = np.ones((1, 5))
    inner = np.array([False, True, True, True, False])
    for used, expected in ((inner, "Regular"), (~inner | inner, "Integer")):
        part = FitChannel("c", (axis,), ("W",), nominal, nominal, nominal[0], used, lambda _: iter(()))
        rabbit.write(FitInput((part,), PARAMETERS, symmetric=True), tmp_path / "x")
        (found,) = read_arrays(tmp_path / "x")["meta"]["channel_info"]["c"]["axes"]
        assert (type(found).__name__, found.extent) == (expected, used.sum())


@pytest.mark.parametrize("form", MODULES)
def test_free_parameters_come_first_and_the_mass_is_the_one_of_interest(form: str, tmp_path: Path):
    MODULES[form].write(fit_of(), tmp_path / "x")
    found = read_arrays(tmp_path / "x")
    assert found["hsysts"].astype(str).tolist() == [parameter.name for parameter in PARAMETERS]
    assert found["hsystsnoconstraint"].astype(str).tolist() == ["massW", "norm_Z"]
    assert found["hconstraintweights"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert found["hnoiidxs"].tolist() == [0]
    names = found["hsysts"].astype(str)
    members = zip(found["hsystgroups"].astype(str), found["hsystgroupidxs"], strict=True)
    assert {group: tuple(names[rows]) for group, rows in members} == fit_of().groups


def test_where_nothing_is_expected_no_effect_is_written(tmp_path: Path):
    part = channel()
    nominal, data = part.nominal.copy(), part.data.copy()
    nominal[0, 3] = nominal[1, 5] = 0
    nominal[:, 6] = data[6] = 0
    dense, sparse = both(fit_of(replace(part, nominal=nominal, data=data)), tmp_path)
    for found in (dense, sparse):
        assert not found["hlogk"][nominal.T == 0].any()
        np.testing.assert_array_equal(found["hnorm"], nominal.T)
    with h5py.File(tmp_path / "rabbit-sparse") as file:
        assert len(file["hnorm_sparse/values"]) == np.count_nonzero(nominal)


def test_a_fit_without_any_effect_is_written(tmp_path: Path):
    dense, sparse = both(fit_of(replace(channel(), effects=lambda _: iter(()))), tmp_path)
    assert not dense["hlogk"].any()
    assert not sparse["hlogk"].any()


def test_full_chunks_are_stored_as_they_are_and_empty_ones_not_at_all(tmp_path: Path):
    bins, count = 128, 1024
    rng = np.random.default_rng(1)
    full = Effect(np.arange(256), None, rng.normal(size=(256, bins)))
    local = Effect(256 + np.arange(256), np.arange(8), rng.normal(size=(256, 8)))
    ones = np.ones((1, bins))
    axis = hist.axis.Regular(bins, 0, 1, name="x", flow=False)
    used = np.ones(bins, bool)
    part = FitChannel("c", (axis,), ("W",), ones, ones, ones[0], used, lambda _: iter([full, local]))
    parameters = tuple(replace(PARAMETERS[2], name=f"p{number}") for number in range(count))
    rabbit.write(FitInput((part,), parameters, symmetric=True), tmp_path / "x")
    with h5py.File(tmp_path / "x") as file:
        logk = file["hlogk"]
        stored = [logk.id.get_chunk_info(i) for i in range(logk.id.get_num_chunks())]
        values = logk[:, 0]
    masks = {info.chunk_offset: (info.filter_mask, info.size) for info in stored}
    whole = 64 * 256 * 8
    assert masks.pop((0, 0, 256))[1] < whole / 4
    assert masks == {(0, 0, 0): (1, whole), (64, 0, 0): (1, whole)}
    np.testing.assert_array_equal(values[:, :256].T, full.up)
    np.testing.assert_array_equal(values[:8, 256:512].T, local.up)
    assert np.count_nonzero(values) == full.up.size + local.up.size


def test_pseudo_data_are_there_by_name_too(tmp_path: Path):
    card = {"data": "massShiftW30MeVUp"}
    rabbit.write(fit_of(card=card), tmp_path / "x")
    found = read_arrays(tmp_path / "x")
    assert found["hpseudodatanames"].astype(str).tolist() == ["massShiftW30MeVUp"]
    np.testing.assert_array_equal(found["hpseudodata"][:, 0], found["hdata_obs"])
    assert json.loads(found["attributes"]["card"]) == card


def test_attributes_say_where_the_numbers_come_from_however_long_the_card_is(tmp_path: Path):
    card = {"data": "observed", "channels": [{"mask": list(range(20_000))}]}
    rabbit.write(fit_of(card=card), tmp_path / "x")
    found = read_arrays(tmp_path / "x")
    facts = {"job": "7hq2mkc3xv", "generation": 3, "complete": True, "fraction": 1.0, "luminosity": 100.0}
    assert json.loads(found["attributes"].pop("card")) == card
    assert found["attributes"] == {**facts, "incomplete": ""}
    assert found["meta"]["meta_info"] == {"command": "binworks export", **facts}
    assert found["hpseudodata"].shape == (20, 0)


@pytest.mark.parametrize("form", MODULES)
@pytest.mark.parametrize(
    ("number", "value", "code", "message"),
    [
        (
            7,
            np.nan,
            "bad-data",
            r"1 bins of the data are negative or not finite; the first is bin 7 of channel 'a'",
        ),
        (7, -1.0, "bad-data", "negative"),
        (
            5,
            3.0,
            "empty-bin",
            r"3 events are observed where none are expected: bin 5 of channel 'a' \(1 such",
        ),
    ],
)
def test_data_that_rabbit_cannot_fit_are_refused(
    form: str,
    number: int,
    value: float,
    code: str,
    message: str,
    tmp_path: Path,
):
    part = masked(channel("a"), 2)
    nominal, data = part.nominal.copy(), part.data.copy()
    nominal[:, 5] = data[5] = 0
    data[number] = value
    with pytest.raises(RequestError, match=message) as caught:
        export(fit_of(replace(part, nominal=nominal, data=data)), tmp_path / "x", form)
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", MODULES)
def test_a_fit_of_nothing_is_refused(form: str, tmp_path: Path):
    all_masked = masked(channel(), *range(20))
    for fit in (fit_of(all_masked), replace(fit_of(), parameters=())):
        with pytest.raises(RequestError, match=r"nothing to fit: (0|20) bins and (0|8) parameters") as caught:
            export(fit, tmp_path / "x", form)
        assert caught.value.code == "bad-card"


@pytest.mark.parametrize("form", MODULES)
def test_the_tensor_is_never_held_whole(form: str, tmp_path: Path):
    bins, processes, count = 480, 12, 1200
    axis = hist.axis.Regular(bins, 0, 1, name="x", flow=False)
    nominal = np.ones((processes, bins))

    def given(process: int) -> Iterator[Effect]:
        rng = np.random.default_rng(process)
        yield Effect(np.arange(100), None, rng.normal(size=(100, bins)))
        for start in range(0, bins, 8):
            rows = 100 + np.arange(15) + 15 * (start // 8)
            yield Effect(rows, start + np.arange(8), rng.normal(size=(15, 8)))

    names = tuple(f"p{process}" for process in range(processes))
    part = FitChannel("c", (axis,), names, nominal, nominal, nominal.sum(axis=0), np.ones(bins, bool), given)
    parameters = tuple(replace(PARAMETERS[2], name=f"n{number}") for number in range(count))
    whole = bins * processes * count * 8
    tracemalloc.start()
    try:
        MODULES[form].write(FitInput((part,), parameters, symmetric=True), tmp_path / "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < whole / 3
    assert (tmp_path / "x").stat().st_size < whole / 5


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path):
    with pytest.raises(RequestError, match=r"no format named 'rabit'. Did you mean rabbit"):
        export(fit_of(), tmp_path / "x", "rabit")


def test_a_template_that_is_not_positive_is_written_as_a_thousandth(tmp_path: Path):
    tensor = replace(toy_tensor(EVENTS), data=expected_data(EVENTS))
    blocks = dict(tensor.blocks)
    w, mass = blocks["W", "mass"]
    values = mass.values.copy()
    values[1, 0, 0] = 0
    blocks["W", "mass"] = (w, replace(mass, values=values))
    export(replace(tensor, blocks=blocks), tmp_path / "x", "rabbit")
    assert read_arrays(tmp_path / "x")["hlogk"][60, 0, :, 0].tolist() == pytest.approx([0, LOWEST])


def test_the_benchmark_measures_both_forms(root: Path):
    command = [sys.executable, root / "benchmarks" / "export_rabbit.py", "--small"]
    found = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    )
    assert set(found) == set(MODULES)
    for took in found.values():
        assert (took["bins"], took["processes"], took["parameters"]) == (240, 10, 411)
        assert took["seconds"] > 0
        assert took["peak_rss_mb"] > 10
        assert took["file_mb"] > 0.1


def test_the_benchmark_has_the_parameters_of_the_w_fit(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(root / "benchmarks")
    fit = import_module("export_rabbit").fit_input()
    assert (fit.channels[0].nominal.shape, len(fit.parameters)) == ((10, 2880), 4858)
    assert fit.groups.keys() >= {"mass", "efficiency_stat", "nonprompt"}
    assert len(fit.groups["efficiency_stat"]) == 2784


RABBIT = fitter.find()
with_rabbit = pytest.mark.skipif(
    RABBIT is None, reason=f"no rabbit_fit on the PATH or in {fitter.ENVIRONMENT}"
)


@pytest.fixture
def programs() -> Path:
    """Return the folder of rabbit's programs."""
    assert RABBIT is not None
    return RABBIT


@with_rabbit
def test_the_reader_of_rabbit_takes_the_files_for_what_they_are(
    two_channels: FitInput, programs: Path, tmp_path: Path
):
    dense, _ = both(two_channels, tmp_path)
    script = Path(fitter.__file__).with_name("read_input.py")
    command = [programs / "python", script, *(tmp_path / name for name in MODULES)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240).stdout
    found = [json.loads(line[6:]) for line in output.splitlines() if line.startswith("INPUT ")]
    assert [one["sparse"] for one in found] == [False, True]
    for one in found:
        assert one["symmetric"] is two_channels.symmetric
        assert one["channels"] == {"signal": [["bin"], 0, 237], "wlike": [["eta", "pt"], 237, 272]}
        assert one["sums"] == pytest.approx([dense["hnorm"].sum(), dense["hlogk"].sum()], rel=1e-9)
    kept = np.count_nonzero(dense["hnorm"]) / dense["hnorm"].size
    assert found[1]["size"] == kept * found[0]["size"] == kept * dense["hlogk"].size


@with_rabbit
@pytest.mark.parametrize("form", MODULES)
def test_rabbit_and_the_linearised_fit_agree(form: str, programs: Path, tmp_path: Path):
    tensor = toy_tensor(EVENTS, rng=np.random.default_rng(5))
    (shifted,) = tensor.variations("mass", [mass_name(10)])
    fit = from_tensor(replace(tensor, data=shifted.sum(axis=0)))
    path = export(fit, tmp_path / "tensor.hdf5", form)
    found = fitter.run(programs, path, tmp_path / "out").results
    assert found["data"].names == tuple(parameter.name for parameter in fit.parameters)
    checks = [
        *agreement.of_mass(found["data"], fit_linear(fit), 10.0),
        *agreement.of_uncertainties(found["asimov"], fit_linear(agreement.asimov(fit)), fit.groups),
    ]
    assert len(checks) > 8
    assert [check for check in checks if not check.passed] == []
