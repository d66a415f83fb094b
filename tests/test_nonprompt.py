"""The nonprompt estimate: exact where the regions are, without bias where they fluctuate, linear in the prompt part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hist
import numpy as np
import pytest
from numpy.polynomial import Polynomial, chebyshev

from binworks.tensors.axes import ISO_EDGES, MT_EDGES, column_axis, w_axes
from binworks.tensors.card import Nonprompt
from binworks.tensors.errors import RequestError
from binworks.tensors.groups import efficiency, momentum_scale
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.nonprompt import REGIONS, Estimate
from binworks.tensors.smoothing import Spectra, smooth, smooth_alike

SETTINGS = Nonprompt()
PT = np.linspace(26.0, 56.0, 31)
CENTRES = (PT[1:] + PT[:-1]) / 2
SCALED = (CENTRES - 41) / 15


@dataclass(frozen=True)
class Toy:
    """Known numbers of nonprompt and prompt muons, shape (eta, pt, charge, mt, relIso)."""

    fake: Float64
    prompt: Float64

    @property
    def truth(self) -> Float64:
        """What the estimate should be, without its closure factor."""
        fail, passed = self.fake[..., 1], self.fake[..., 0]
        ratio: Float64 = passed[..., 1] ** 2 / fail[..., 1] ** 2 * fail[..., 0] / passed[..., 0]
        return fail[..., 2] * ratio

    def estimate(self, rng: np.random.Generator | None = None, settings: Nonprompt = SETTINGS) -> Estimate:
        """Return the estimate from the expected events, or from drawn ones and simulation ten times as large."""
        data, prompt = self.fake + self.prompt, self.prompt
        if rng is not None:
            data, prompt = rng.poisson(data).astype(float), rng.poisson(10 * prompt) / 10
        axes = axes_of(len(data))
        return Estimate.make(
            Histogram(axes, data, data.copy()), Histogram(axes, prompt, prompt / 10), settings
        )


def axes_of(etas: int) -> tuple[Any, ...]:
    return (
        hist.axis.Regular(etas, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Regular(30, 26, 56, name="pt", flow=False),
        hist.axis.Regular(2, -2, 2, name="charge", flow=False),
        hist.axis.Variable(MT_EDGES, name="mt", flow=False),
        hist.axis.Variable(ISO_EDGES, name="relIso", flow=False),
    )


def toy(etas: int, events: float, seed: int = 1) -> Toy:
    """Return falling cubic exponentials, each region's its own, and a prompt peak; so many events a region."""
    rng = np.random.default_rng(seed)
    coefficients = np.array([0, -2.0, 0.3, 0.1]) + rng.normal(0, 0.1, (etas, 2, 3, 2, 4))
    shapes = np.exp(coefficients @ chebyshev.chebvander(SCALED, 3).T)
    fake = events * shapes / shapes.sum(axis=-1, keepdims=True)
    peak = np.exp(-(((CENTRES - 40) / 6) ** 2) / 2)
    share = np.array([[0.3, 0.02], [1.0, 0.03], [8.0, 0.1]])[:, :, np.newaxis]
    prompt = np.broadcast_to(events * share * peak / peak.sum(), fake.shape)
    return Toy(*(np.ascontiguousarray(np.moveaxis(part, -1, 1)) for part in (fake, prompt)))


def by_place(array: Float64) -> Float64:
    """Return (eta, pt, charge) as (places, pt)."""
    return np.moveaxis(array, 2, 1).reshape(-1, array.shape[1])


@pytest.mark.parametrize("events", [3e3, 1e5])
def test_regions_that_are_exponentials_of_cubics_give_the_exact_estimate(events: float) -> None:
    exact = toy(48, events)
    np.testing.assert_allclose(exact.estimate().nominal, 0.85 * exact.truth, rtol=1e-10)
    assert exact.estimate().borrowed == ()


@pytest.mark.parametrize("edges", [np.array([26, 27, 29, 32, 36, 41, 47, 56.0]), PT])
def test_a_spectrum_in_bins_of_any_width_is_smoothed_by_density(edges: Float64) -> None:
    widths, middle = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    mu = (widths * np.exp(3 - ((middle - 26) / 8)))[np.newaxis]
    found = smooth(Spectra(mu, mu, 0 * mu, 0 * mu), edges, 1)
    np.testing.assert_allclose(widths * np.exp(found.coefficients @ found.basis.T), mu, rtol=1e-10)


def reference_curve(values: Float64, background: Float64, spread: Float64) -> tuple[Float64, Float64]:
    """Return one spectrum's expected events and the weights, by iterated fits of powers of pT."""
    mu = np.maximum(values, 1.0)
    for _ in range(60):
        weights = mu / np.sqrt(mu + background + spread)
        line = Polynomial.fit(CENTRES, np.log(mu) + (values - mu) / mu, 3, w=weights)
        mu = np.exp(line(CENTRES))
    return mu, mu / np.sqrt(mu + background + spread)


def reference_estimate(data: Float64, prompt: Float64, varied: Float64) -> tuple[Float64, Float64]:
    """Return ln D of one place, nominal and varied with the nominal's weights; arrays (pt, mt, relIso)."""
    logs = np.zeros((2, 30)) + np.log(0.85)
    for mt, iso, power in ((0, 1, 1), (0, 0, -1), (1, 1, -2), (1, 0, 2), (2, 1, 1)):
        background = prompt[:, mt, iso]
        mu, weights = reference_curve(data[:, mt, iso] - background, background, background / 10)
        for row, subtracted in enumerate((background, varied[:, mt, iso])):
            near = np.log(mu) + (data[:, mt, iso] - subtracted - mu) / mu
            logs[row] += power * Polynomial.fit(CENTRES, near, 3, w=weights)(CENTRES)
    return logs[0], logs[1]


def test_a_varied_subtraction_gives_what_a_new_fit_with_the_same_weights_gives() -> None:
    known, rng = toy(2, 3000), np.random.default_rng(3)
    estimate = known.estimate(rng)
    data = np.moveaxis(known_data(known, 3), 2, 1).reshape(4, 30, 3, 2)
    before = np.moveaxis(estimate.prompt, 2, 1).reshape(4, 30, 3, 2)
    varied = estimate.prompt * rng.normal(1, 0.05, (4, *estimate.prompt.shape))
    changed = np.moveaxis(varied, 3, 2).reshape(4, 4, 30, 3, 2)
    templates = estimate.vary(varied)
    for n in range(4):
        for place in range(4):
            nominal, expected = reference_estimate(data[place], before[place], changed[n, place])
            np.testing.assert_allclose(by_place(estimate.nominal)[place], np.exp(nominal), rtol=1e-11)
            ratio = by_place(templates[n])[place] / by_place(estimate.nominal)[place]
            np.testing.assert_allclose(np.log(ratio), expected - nominal, rtol=0, atol=1e-12)


def known_data(known: Toy, seed: int) -> Float64:
    """Return the data that `Toy.estimate` draws."""
    return np.random.default_rng(seed).poisson(known.fake + known.prompt).astype(float)


def test_a_variation_has_the_same_bits_whichever_others_are_asked_for() -> None:
    estimate = toy(3, 3000).estimate(np.random.default_rng(3))
    varied = estimate.prompt * np.random.default_rng(4).normal(1, 0.1, (5, *estimate.prompt.shape))
    np.testing.assert_array_equal(estimate.vary(varied[3:]), estimate.vary(varied)[3:])


@pytest.mark.parametrize("name", ["efficiency_idip", "momentum_scale"])
def test_the_response_of_compact_blocks_expands_to_that_of_every_template(name: str) -> None:
    """So no template of the prompt simulation is ever needed."""
    rng = np.random.default_rng(5)
    estimate = toy(48, 3000).estimate(rng)
    some = rng.normal(0, 0.02, (200, 144))
    group = {
        "efficiency_idip": lambda: efficiency.group(
            "idip", np.einsum("...i,...j->...ij", *[rng.normal(0, 0.02, (48, 2, 4))] * 2)
        ),
        "momentum_scale": lambda: momentum_scale.group(some.T @ some / 200, "own"),
    }[name]()
    nominal = Histogram(w_axes(), 0.7 * estimate.prompt)
    blocks = rng.normal(0, 1, (len(group.columns), *nominal.values.shape)) * nominal.values
    compact = Histogram((*w_axes(), column_axis(group.columns)), np.moveaxis(blocks, 0, -1))
    names = group.expansion.variations[::40]
    templates = group.expansion.expand(nominal, compact, names)
    expected = np.log(estimate.vary(estimate.prompt + templates - nominal.values) / estimate.nominal)
    response = Histogram(estimate.axes, estimate.respond(nominal.values[np.newaxis])[0])
    columns = np.moveaxis(estimate.respond(blocks), 0, -1)
    block = Histogram((*estimate.axes, column_axis(group.columns)), columns)
    logs = group.expansion.expand(response, block, names) - response.values
    np.testing.assert_allclose(logs, expected, rtol=0, atol=1e-12 * max(1, np.abs(expected).max()))


def deviations(events: float, etas: int, toys: int) -> Float64:
    """Return ln(estimate / truth) in units of the statistical shifts, shape (toys, places, 4)."""
    known, rng, found = toy(etas, events), np.random.default_rng(6), []
    for _ in range(toys):
        estimate = known.estimate(rng)
        logs = np.stack([shift.logs for shift in estimate.shifts() if shift.cells is not None])
        missed = by_place(np.log(estimate.nominal / (0.85 * known.truth)))
        found.append(np.einsum("pib,pb->pi", np.linalg.pinv(np.moveaxis(logs, 1, 2)), missed))
    return np.array(found)


@pytest.mark.parametrize(("events", "bias"), [(300, 0.3), (3e3, 0.2), (1e5, 0.1)])
def test_the_statistical_shifts_cover_and_the_estimate_is_not_biased(events: float, bias: float) -> None:
    """With 300 events a place and region most borrow their shape, with 3000 none does."""
    pulls = deviations(events, 48, 6)
    assert np.mean(pulls**2) == pytest.approx(1, abs=0.1)
    assert np.mean(np.abs(pulls) < 1) == pytest.approx(0.683, abs=0.04)
    assert np.abs(np.mean(pulls, axis=(0, 1))).max() < bias


def test_a_fit_of_the_logarithms_of_what_is_positive_would_be_biased() -> None:
    """The estimate does not take logarithms of data, and this is why."""
    rng, mu = np.random.default_rng(7), 1000 * np.exp(-2 * SCALED) / np.exp(-2 * SCALED).sum()
    background = np.full(30, 60.0)
    data = rng.poisson(mu + background, (300, 30)).astype(float)
    values, spectra = data - 60, Spectra(data, data, np.broadcast_to(background, data.shape), 0 * data)
    ours = smooth(spectra, PT, 3)
    theirs = [
        Polynomial.fit(CENTRES[row > 0], np.log(row[row > 0]), 3, w=(row / np.sqrt(row + 60))[row > 0])(
            CENTRES
        )
        for row in values
    ]
    spread = np.sqrt(np.einsum("bs,rst,bt->rb", ours.basis, ours.covariance, ours.basis))
    pull = (ours.coefficients @ ours.basis.T - np.log(mu)) / spread
    assert abs(np.mean(pull)) < 0.2
    assert np.mean((np.array(theirs) - np.log(mu)) / spread) > 1


def test_weighted_events_count_by_their_variance() -> None:
    mu = 1000 * np.exp(-SCALED)[np.newaxis]
    zero = np.zeros_like(mu)
    single, double = (smooth(Spectra(mu, w * mu, zero, zero), PT, 3) for w in (1, 2))
    np.testing.assert_allclose(double.covariance, 2 * single.covariance, rtol=1e-9)
    np.testing.assert_allclose(double.coefficients, single.coefficients, rtol=0, atol=1e-12)


def test_the_counts_are_those_of_the_published_measurement() -> None:
    shifts = list(toy(48, 1e4).estimate().shifts())
    names = [name for shift in shifts for name in shift.names]
    assert len(names) == len(set(names)) == 387
    sizes = {
        kind: sum(len(s.names) for s in shifts if f"nonprompt_{kind}" in s.groups)
        for kind in ("stat", "norm", "shape")
    }
    assert sizes == {"stat": 384, "norm": 1, "shape": 2}
    assert all("nonprompt" in shift.groups for shift in shifts)
    assert {"nonprompt_eta0_minus_0", "nonprompt_eta47_plus_3"} <= set(names)
    cells = np.concatenate([shift.cells for shift in shifts if shift.cells is not None])
    assert np.array_equal(np.sort(cells), np.arange(2880))


def test_the_size_is_log_normal_and_the_shapes_are_a_slope_and_a_curvature() -> None:
    *_, norm, shapes = toy(2, 1e4).estimate().shifts()
    assert norm.logs.tolist() == [[np.log(1.05)]]
    slope, curvature = shapes.logs.reshape(2, 2, 30, 2)[:, 0, :, 0]
    np.testing.assert_allclose(slope, 0.1 * SCALED, atol=1e-15)
    np.testing.assert_allclose(curvature, 0.1 * (2 * SCALED**2 - 1), atol=1e-15)


def test_fewer_terms_and_no_shape_make_fewer_nuisances() -> None:
    shifts = list(toy(2, 1e4).estimate(settings=Nonprompt(degree=1, shape=0.0)).shifts("nonprompt2018"))
    assert [len(shift.names) for shift in shifts] == [2, 2, 2, 2, 1]
    assert shifts[0].names == ("nonprompt2018_eta0_minus_0", "nonprompt2018_eta0_minus_1")


def test_places_with_few_events_borrow_the_shape_of_all_and_are_named() -> None:
    assert toy(48, 3000).estimate(np.random.default_rng(8)).borrowed == ()
    estimate = toy(48, 1000).estimate(np.random.default_rng(8))
    assert 0 < len(estimate.borrowed) < 0.2 * 480
    assert {name.split(",")[0] for name in estimate.borrowed} == {"region B_x", "region B"}
    few = toy(48, 30).estimate(np.random.default_rng(8))
    assert len(few.borrowed) == 480
    assert np.abs(np.log(few.nominal / toy(48, 30).truth)).max() < 10


def test_a_row_that_needs_no_help_is_not_changed_by_those_that_do() -> None:
    rng, mu = np.random.default_rng(9), 1000 * np.exp(-2 * SCALED) / np.exp(-2 * SCALED).sum()
    data = rng.poisson(np.broadcast_to(mu + 3, (200, 30))).astype(float)
    spectra = Spectra(data, data, np.full_like(data, 3.0), 0 * data)
    alone, (together, borrows) = smooth(spectra, PT, 3), smooth_alike(spectra, PT, 3)
    assert 0 < borrows.sum() < 100
    np.testing.assert_array_equal(alone.coefficients[~borrows], together.coefficients[~borrows])
    error, helped = (
        np.sqrt(np.einsum("s,rst,t->r", fit.basis[-1], fit.covariance, fit.basis[-1]))[borrows]
        for fit in (alone, together)
    )
    assert (helped < error).all()


def test_one_row_has_nobody_to_borrow_from() -> None:
    data = np.random.default_rng(10).poisson(np.exp(-3 * SCALED)).astype(float)[np.newaxis]
    fit, borrows = smooth_alike(Spectra(data, data, 0 * data, 0 * data), PT, 1)
    assert fit.found.all()
    assert not borrows.any()


def test_a_region_without_events_is_an_error_that_names_it() -> None:
    known = toy(3, 3000)
    known.fake[1, :, 0, 1, 0] = 0.0
    with pytest.raises(RequestError, match=r"region B, eta bin 1, charge bin 0\.") as caught:
        known.estimate()
    assert caught.value.code == "nonprompt-events"


@pytest.mark.parametrize("what", ["axes", "regions", "variances", "bins", "flow"])
def test_histograms_without_the_regions_are_refused(what: str) -> None:
    axes = list(axes_of(2))
    if what == "axes":
        axes = axes[:3]
    if what == "regions":
        axes[3] = hist.axis.Variable([0, 40, np.inf], name="mt", flow=False)
    if what == "flow":
        axes[1] = hist.axis.Regular(30, 26, 56, name="pt")
    if what == "bins":
        axes[1] = hist.axis.Regular(3, 26, 56, name="pt", flow=False)
    h = Histogram.zeros(axes, variances=what != "variances")
    with pytest.raises(RequestError) as caught:
        Estimate.make(h, h, SETTINGS)
    assert caught.value.code == "nonprompt-axes"


def test_the_powers_of_the_regions_add_up_to_one() -> None:
    assert sum(region.power for region in REGIONS) == 1
