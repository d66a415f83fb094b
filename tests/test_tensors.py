"""Histograms, accumulators, expansion and kernels: the laws they keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest
import uhi.schema
from hypothesis import given
from hypothesis import strategies as st

from binworks.tensors.accumulator import Accumulator, ordered_sum
from binworks.tensors.archive import TimelessZip
from binworks.tensors.axes import ETA_BINS, ETA_HIGH, ETA_LOW, MT_EDGES, w_axes
from binworks.tensors.code import source_digest
from binworks.tensors.errors import ConflictError, RequestError, unknown_name
from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.groups import efficiency, mass, momentum_scale, pdf
from binworks.tensors.groups.base import eigen_shifts, paired_nuisances, symmetrised_group
from binworks.tensors.histogram import Histogram
from binworks.tensors.kernels import clamped_bin, clip_ratio, delta_phi, regular_bin, variable_bin
from binworks.tensors.select import crop
from binworks.tensors.tensor import Contribution, assemble


def random_w(seed: int, columns: int | None = None) -> Histogram:
    axes = (
        w_axes() if columns is None else (*w_axes(), hist.axis.Integer(0, columns, name="column", flow=False))
    )
    h = Histogram.zeros(axes, variances=columns is None)
    rng = np.random.default_rng(seed)
    h.values[...] = rng.normal(10, 3, h.values.shape)
    if h.variances is not None:
        h.variances[...] = rng.uniform(1, 2, h.values.shape)
    return h


def test_a_histogram_comes_back_from_its_uhi_description() -> None:
    h = random_w(1)
    described = json.loads(json.dumps(h.uhi(), allow_nan=False))
    again = Histogram.from_uhi(described, h.values, h.variances)
    assert again.axes == h.axes
    assert again.to_hist() == h.to_hist()
    storage = {"type": "weighted", "values": h.values.tolist(), "variances": h.variances.tolist()}  # type: ignore[union-attr]
    uhi.schema.validate({**described, "storage": storage})


def test_a_hist_holds_the_same_sums() -> None:
    h = random_w(2)
    again = Histogram.from_hist(h.to_hist())
    np.testing.assert_array_equal(again.values, h.values)
    np.testing.assert_array_equal(again.variances, h.variances)


def test_flow_bins_are_kept() -> None:
    h = hist.Hist(hist.axis.Regular(3, 0, 1, name="x"), storage=hist.storage.Double())
    h.fill([-1, 0.5, 2, 2])
    assert Histogram.from_hist(h).values.tolist() == [1, 0, 1, 0, 2]
    assert Histogram.from_hist(h).to_hist() == h


def test_a_profile_is_refused() -> None:
    h = hist.Hist(hist.axis.Regular(3, 0, 1, name="x"), storage=hist.storage.Mean())
    with pytest.raises(ConflictError, match="Mean"):
        Histogram.from_hist(h)


def test_sums_of_other_axes_are_refused() -> None:
    one = Accumulator({"nominal": Histogram.zeros([hist.axis.Regular(3, 0, 1, name="x")])})
    two = Accumulator({"nominal": Histogram.zeros([hist.axis.Regular(3, 0, 2, name="x")])})
    with pytest.raises(ConflictError, match="nominal"):
        one + two
    with pytest.raises(ConflictError, match="nominal"):
        one + Accumulator({"nominal": Histogram.zeros(one.histograms["nominal"].axes, variances=True)})


def test_a_histogram_that_a_part_lacks_is_zero_there() -> None:
    one, two = random_w(1), random_w(2)
    total = Accumulator({"a": one}) + Accumulator({"b": two})
    np.testing.assert_array_equal(total.histograms["a"].values, one.values)
    np.testing.assert_array_equal(total.histograms["b"].values, two.values)


def test_categories_met_in_different_orders_add_up() -> None:
    def filled(*names: str) -> hist.Hist:
        h = hist.Hist(
            hist.axis.StrCategory([], growth=True, name="process"),
            hist.axis.Regular(2, 0, 1, name="x"),
            hist.axis.IntCategory([], growth=True, name="year"),
            storage=hist.storage.Weight(),
        )
        for i, name in enumerate(names):
            h.fill(process=name, x=[0.1, 0.7, 3.0], year=[2016 + i, 2018, 2016], weight=i + 1)
        return h

    parts = [filled("W", "Z"), filled("Z", "top", "W"), filled("data")]
    total = ordered_sum(Accumulator({"h": Histogram.from_hist(h)}) for h in parts).histograms["h"].to_hist()
    for name in ("W", "Z", "top", "data"):
        for year in (2016, 2017, 2018):
            for x in (0, 1, hist.overflow):
                found = [
                    h[hist.loc(name), x, hist.loc(year)]
                    for h in parts
                    if name in h.axes[0] and year in h.axes[2]
                ]
                ours = total[hist.loc(name), x, hist.loc(year)]
                assert ours.value == sum(f.value for f in found)
                assert ours.variance == sum(f.variance for f in found)


def test_a_sum_leaves_its_parts_alone_and_keeps_few_examples() -> None:
    parts = [Accumulator({"nominal": random_w(i)}, {"entries": i}, {"odd": [str(i)] * 4}) for i in range(4)]
    before = parts[0].histograms["nominal"].values.copy()
    total = ordered_sum(parts)
    np.testing.assert_array_equal(parts[0].histograms["nominal"].values, before)
    assert total.counts == {"entries": 6}
    assert total.examples == {"odd": ["0"] * 4 + ["1"] * 4 + ["2"] * 2}
    with pytest.raises(ValueError, match="nothing"):
        ordered_sum([])


@given(st.floats(-3, 3), st.floats(-1, 1))
def test_bins_are_boost_histograms(x: float, near: float) -> None:
    axis = hist.axis.Regular(ETA_BINS, ETA_LOW, ETA_HIGH, flow=False)
    edge = axis.edges[int((x + 3) * 8)] + near * 1e-15
    for value in (x, float(edge)):
        expected = axis.index(value)
        ours = regular_bin(value, ETA_LOW, ETA_HIGH, ETA_BINS)
        assert ours == (expected if 0 <= expected < ETA_BINS and value < ETA_HIGH else -1)


@given(st.one_of(st.floats(-10, 100), st.sampled_from([0.0, 20.0, 40.0, np.inf, np.nan])))
def test_variable_bins_are_boost_histograms(x: float) -> None:
    axis = hist.axis.Variable(MT_EDGES, flow=False)
    expected = axis.index(x) if np.isfinite(x) and x >= 0 else -1
    assert variable_bin(x, np.array(MT_EDGES)) == expected
    assert clamped_bin(x, np.array(MT_EDGES)) == (
        -1 if np.isnan(x) else min(max(expected, 0), 2) if x < np.inf else 2
    )


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_delta_phi_is_an_angle(a: float, b: float) -> None:
    d = delta_phi(a, b)
    assert -np.pi <= d <= np.pi
    assert np.exp(1j * d) == pytest.approx(np.exp(1j * (a - b)), abs=1e-9)


def test_ratios_are_clipped_at_ten() -> None:
    assert [clip_ratio(x) for x in (-11.0, -3.0, 10.5, np.inf)] == [-10.0, -3.0, 10.0, 10.0]
    assert np.isnan(clip_ratio(np.nan))


@given(st.integers(0, 2**31), st.sampled_from([(), ("eta",), ("charge", "eta"), ("relIso",)]), st.booleans())
def test_an_expansion_is_the_sum_it_says(seed: int, block_axes: tuple[str, ...], deviations: bool) -> None:
    rng = np.random.default_rng(seed)
    nominal, compact = random_w(seed), random_w(seed + 1, columns=2)
    sizes = [nominal.values.shape[nominal.axis(name)] for name in block_axes]
    coefficients = rng.normal(size=(3, *sizes, 2)) * (rng.random((3, *sizes, 2)) < 0.5)
    flat = coefficients.reshape(3, -1, 2)
    expansion = Expansion.dense("g", ["a", "b", "c"], [], flat, block_axes=block_axes, base=float(deviations))
    letters = {"eta": "e", "pt": "p", "charge": "q", "mt": "m", "relIso": "i"}
    blocks = "".join(letters[name] for name in block_axes)
    expected = np.einsum(f"n{blocks}c,epqmic->nepqmi", coefficients, compact.values)
    if deviations:
        expected += nominal.values
    np.testing.assert_allclose(expansion.expand(nominal, compact), expected, rtol=1e-12, atol=1e-11)
    np.testing.assert_array_equal(
        expansion.expand(nominal, compact, ["c"]), expansion.expand(nominal, compact)[2:3]
    )
    described, arrays = expansion.to_arrays()
    again = Expansion.from_arrays(json.loads(json.dumps(described)), arrays)
    np.testing.assert_array_equal(again.expand(nominal, compact), expansion.expand(nominal, compact))


def test_an_unknown_variation_is_named_with_its_neighbours() -> None:
    group = mass.group()
    with pytest.raises(RequestError, match="massShiftW10MeVUp"):
        group.expansion.expand(random_w(1), random_w(2, columns=21), ["massShiftW10MevUp"])


def test_eigen_shifts_make_up_the_covariance() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(5, 7, 7))
    covariance = root @ np.swapaxes(root, -1, -2)
    shifts = eigen_shifts(covariance)
    np.testing.assert_allclose(np.swapaxes(shifts, -1, -2) @ shifts, covariance, rtol=1e-10, atol=1e-10)
    assert (np.take_along_axis(shifts, np.abs(shifts).argmax(-1)[..., None], -1) > 0).all()


def test_groups_have_the_nuisances_of_their_covariance() -> None:
    scale = momentum_scale.group(np.eye(144) * 1e-8)
    assert len(scale.expansion.nuisances) == 144
    assert scale.expansion.block_axes == ("eta",)
    idip = efficiency.group("idip", np.tile(np.eye(4) * 1e-6, (48, 2, 1, 1)))
    assert len(idip.expansion.nuisances) == 384
    assert len(pdf.group(61).expansion.nuisances) == 60
    assert pdf.group(61).expansion.nuisances[-1] == Nuisance("pdfAlphaSSymDiff", "pdf", "pdfAlphaSSymDiff")
    with pytest.raises(RequestError, match="pdf_members"):
        pdf.group(60)


def test_names_pair_up_or_are_mirrored() -> None:
    found = paired_nuisances("g", ["aUp", "aDown", "b", "cUp"])
    assert found == (Nuisance("a", "g", "aUp", "aDown"), Nuisance("b", "g", "b"), Nuisance("cUp", "g", "cUp"))


def contribution(process: str, scale: float, seed: int, *, is_data: bool = False) -> Contribution:
    histograms = {"nominal": random_w(seed)}
    if not is_data:
        histograms["mass"] = random_w(seed + 100, columns=21)
    return Contribution(process, scale, Accumulator(histograms), is_data)


def test_a_tensor_is_cropped_scaled_and_summed_by_process() -> None:
    parts = [
        contribution("W", 2.0, 1),
        contribution("W", 0.5, 2),
        contribution("Z", 1.0, 3),
        contribution("d", 1, 4, is_data=True),
    ]
    del parts[2].accumulator.histograms["mass"]
    raw = [part.accumulator.histograms["nominal"].values[..., 2, 0] for part in parts]
    tensor = assemble(parts, [mass.group().expansion])
    assert tensor.processes == ("W", "Z")
    assert tensor.nominal.shape == (2, 48, 30, 2)
    np.testing.assert_allclose(tensor.nominal[0], 2 * raw[0] + raw[1] / 2, rtol=1e-12)
    np.testing.assert_array_equal(tensor.data, raw[3])
    up = tensor.variations("mass", ["massShiftW10MeVUp"])[0]
    column = [part.accumulator.histograms["mass"].values[..., 2, 0, 11] for part in parts[:2]]
    np.testing.assert_allclose(up[0], 2 * column[0] + column[1] / 2, rtol=1e-12)
    np.testing.assert_array_equal(up[1], tensor.nominal[1])
    down = tensor.variations("mass", ["massShiftW10MeVDown"])[0]
    np.testing.assert_allclose(tensor.shifts("mass")[0], (up - down) / 2, rtol=1e-12)


def test_a_process_with_a_part_that_a_group_leaves_alone_keeps_that_part() -> None:
    parts = [contribution("W", 1.0, 1), contribution("W", 1.0, 2)]
    del parts[1].accumulator.histograms["mass"]
    tensor = assemble(parts, [mass.group().expansion])
    template = tensor.variations("mass", ["massShiftW0MeV"])[0, 0]
    other = parts[1].accumulator.histograms["nominal"].values[..., 2, 0]
    expected = parts[0].accumulator.histograms["mass"].values[..., 2, 0, 10] + other
    np.testing.assert_allclose(template, expected, rtol=1e-12)


def test_a_tensor_needs_simulation_and_axes_that_exist() -> None:
    with pytest.raises(RequestError, match="simulated"):
        assemble([contribution("d", 1, 1, is_data=True)], [])
    with pytest.raises(RequestError, match="relIso"):
        crop(random_w(1), {"isolation": 0})
    with pytest.raises(RequestError, match="no bin 5"):
        crop(random_w(1), {"mt": 5})


def test_the_kernel_cache_moves_when_a_source_changes_that_cells_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    import subprocess
    import sys

    house = Path(__file__).resolve().parents[1]
    for room in ("tensors", "corrections", "processors"):
        shutil.copytree(
            house / room, tmp_path / "binworks" / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tmp_path / "binworks" / "__init__.py").write_text("")
    lines = [
        "from binworks.tensors.code import source_digest",
        "from binworks.tensors.jit import cache_folder",
        "print(cache_folder(), source_digest(idle=True))",
    ]
    call = [sys.executable, "-c", "\n".join(lines)]
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def folder_and_all() -> list[str]:
        done = subprocess.run(call, check=True, capture_output=True, text=True, cwd=tmp_path)
        return done.stdout.split()

    def change(name: str) -> None:
        with (tmp_path / "binworks" / name).open("a") as source:
            source.write("# another line\n")

    first, everything = folder_and_all()
    assert source_digest()[:16] in first
    change("tensors/export/rabbit.py")
    same, other = folder_and_all()
    assert (same, other != everything) == (first, True)
    change("corrections/pileup.py")
    assert folder_and_all()[0] != first


def test_an_unknown_name_suggests_the_nearest() -> None:
    error: Any = unknown_name("data set", "Wplusmunu2", ["Wplusmunu", "Zmumu"])
    assert (error.code, error.hint) == ("unknown-data-set", "Did you mean Wplusmunu?")
    assert "Known: a, b." in str(unknown_name("data set", "zzz", ["b", "a"]))


def test_an_archive_of_the_same_contents_has_the_same_bytes() -> None:
    import io
    import time

    made = []
    for _ in range(2):
        buffer = io.BytesIO()
        with TimelessZip(buffer, "w") as archive:
            archive.writestr("a.json", "{}")
            with archive.open("b.npy", "w", force_zip64=True) as file:
                file.write(b"12345")
        made.append(buffer.getvalue())
        time.sleep(2.1)  # the format's clock ticks every two seconds
    assert made[0] == made[1]


def test_an_asymmetric_pair_becomes_average_and_difference_of_the_same_variance() -> None:
    nominal, compact = random_w(1), random_w(2, columns=3)
    found = symmetrised_group("g", ["aUp", "aDown", "b"])
    assert [n.name for n in found.expansion.nuisances] == ["aSymAvg", "aSymDiff", "b"]
    up, down, lone, average, difference = found.expansion.expand(nominal, compact)
    assert found.expansion.variations == ("aUp", "aDown", "b", "aSymAvg", "aSymDiff")
    np.testing.assert_array_equal(lone, compact.values[..., 2])
    x, y = up - nominal.values, down - nominal.values
    a, b = average - nominal.values, difference - nominal.values
    np.testing.assert_allclose(a + b, x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(b - a, y, rtol=0, atol=1e-12)
    np.testing.assert_allclose(a**2 + b**2, (x**2 + y**2) / 2, rtol=1e-9, atol=1e-12)


def test_the_mass_of_the_other_boson_moves_by_its_uncertainty() -> None:
    nominal = random_w(1)
    compact = random_w(2, columns=21)
    expansion = mass.z_group(measured=False).expansion
    (nuisance,) = expansion.nuisances
    assert (nuisance.name, nuisance.constrained) == ("massZ", True)
    assert nuisance.down is not None
    up, down = expansion.expand(nominal, compact, [nuisance.up, nuisance.down])
    for template, column in ((up, 11), (down, 9)):
        expected = nominal.values + 0.21 * (compact.values[..., column] - nominal.values)
        np.testing.assert_allclose(template, expected, rtol=1e-12)
    assert mass.z_group(measured=True).expansion.nuisances[0].constrained is False


def test_the_shifts_of_all_processes_are_the_sum_of_each_ones() -> None:
    group = symmetrised_group("g", ["aUp", "aDown", "b"])
    parts = [random_w(i, columns=3) for i in range(2)]
    contributions = [
        Contribution("W", 0.5, Accumulator({"nominal": random_w(7), "g": parts[0]})),
        Contribution("Z", 2.0, Accumulator({"nominal": random_w(8), "g": parts[1]})),
        Contribution("top", 1.0, Accumulator({"nominal": random_w(9)})),
    ]
    tensor = assemble(contributions, [group.expansion])
    expected = tensor.shifts("g").sum(axis=1)
    np.testing.assert_allclose(
        tensor.total_shifts("g"), expected, rtol=0, atol=1e-12 * np.abs(expected).max()
    )
