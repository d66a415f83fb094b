"""Each correction undoes its effect: simulation becomes data by plain NumPy, and does not resemble them without."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from samples_tools import chi2, gun

from binworks.samples import (
    payload_conditions,
    payload_efficiency,
    payload_momentum,
    payload_recoil,
    production,
    theory,
)
from binworks.samples.detector import Detector
from binworks.samples.efficiency import monomials, unit
from binworks.samples.momentum import relative_width
from binworks.samples.muons import ISOLATION, VETO_PT, MuonSystem, eta_bins
from binworks.samples.payload_recoil import ESTIMATOR
from binworks.samples.processes import find
from binworks.samples.truth import ETA_EDGES, STEPS, Resolution, Truth

SEED = 5
EVENTS = 300_000


def with_effects(*effects: str) -> Truth:
    return Truth.draw(SEED, effects, 0.0)


def measured(events, effects: tuple[str, ...], *, is_data: bool, seed: int):
    """Return what the detector makes of the events, and which it recorded."""
    kept, branches = Detector(with_effects(*effects), is_data=is_data).measure(
        events, np.random.default_rng(seed)
    )
    return kept, branches


@cache
def muons(effects: tuple[str, ...], *, is_data: bool, seed: int) -> dict[str, np.ndarray]:
    """Return one row for each generated muon; pT and eta are the measured ones where it was found."""
    events = gun(EVENTS)
    found = MuonSystem(with_effects(*effects), is_data=is_data).reconstruct(
        events, np.random.default_rng(seed)
    )
    real, truth = np.flatnonzero(found["hard"]), events.muons
    along = (events.recoiling * np.stack([np.cos(truth["phi"]), np.sin(truth["phi"])], axis=1)).sum(axis=1)
    rows = {"gen_pt": truth["pt"], "gen_eta": truth["eta"], "charge": truth["charge"], "ut": along}

    def spread(values, otherwise):
        column = np.array(otherwise)
        column[found.event[real]] = values[real]
        return column

    nothing = np.zeros(EVENTS)
    rows |= {name: spread(found[name], truth[name]) for name in ("pt", "eta")}
    rows |= {name: spread(found[name], nothing) > 0 for name in ("hard", "isGlobal", "mediumId")}
    rows["fired"] = spread(found["iso_trigger"] | found["tk_trigger"], nothing) > 0
    rows["isolated"] = spread(found["vtxAgnPfRelIso04_all"], nothing + 1) < ISOLATION
    rows["veto"] = rows["isGlobal"] & (spread(found["standalonePt"], nothing) > VETO_PT)
    return rows


def polynomial(document, coefficients, rows) -> np.ndarray:
    coefficients = np.asarray(coefficients)
    charge = (rows["charge"] > 0).astype(int) if coefficients.shape[1] == 2 else 0
    return np.einsum("mk,mk->m", coefficients[eta_bins(rows["eta"]), charge], basis(document, rows))


def basis(document, rows) -> np.ndarray:
    n = np.shape(document["coefficients"])[2]
    return monomials(
        unit(rows["pt"], document["pt_range"]), unit(rows["ut"], document["ut_range"] or (-1, 1)), n
    )


def failing(document, rows) -> np.ndarray:
    factor, efficiency = (polynomial(document, document[key], rows) for key in ("coefficients", "simulated"))
    return (1 - factor * efficiency) / (1 - efficiency)


STEP_OF = {"tracking": "hard", "reco": "isGlobal", "idip": "mediumId", "trigger": "fired", "iso": "isolated"}


def asked_and_passed(step: str, rows) -> tuple[np.ndarray, np.ndarray]:
    """Return which muons are asked, and which of these pass."""
    central = np.abs(rows["gen_eta"]) < 2.39
    before = {
        "tracking": central,
        "trigger": central & rows["isGlobal"] & rows["mediumId"],
    }.get(step, central & rows["hard"])
    return before, before & rows[STEP_OF[step]]


def deviation(document, data, simulation, weights) -> float:
    """Return chi2 over 48 eta bins of a share in data and in weighted simulation; each is (rows, asked, chosen)."""
    numbers = []
    for rows, asked, chosen in (data, simulation):
        w = weights if rows is simulation[0] else np.ones(EVENTS)
        total = np.histogram(rows["gen_eta"][asked], ETA_EDGES)[0]
        numbers.append(
            (np.histogram(rows["gen_eta"][chosen], ETA_EDGES, weights=w[chosen])[0] / total, total)
        )
    (observed, n), (expected, m) = numbers
    variance = observed * (1 - observed) * (1 / n + 1 / m)
    covariance = np.asarray(document["covariance"])
    center = basis(document, simulation[0]).mean(
        axis=0
    )  # what the payload's uncertainty makes of the mean factor
    factor_variance = (center @ covariance @ center).mean(axis=1) / covariance.shape[1]
    passing = np.maximum(observed, 1 - observed)
    return float(((observed - expected) ** 2 / (variance + factor_variance * passing**2)).sum())


@pytest.mark.parametrize("step", STEPS)
def test_scale_factors_turn_the_efficiency_of_simulation_into_that_of_data(step):
    effects = (f"efficiency_{step}",)
    document = payload_efficiency.efficiency(step, with_effects(*effects))
    data, simulation = muons(effects, is_data=True, seed=1), muons((), is_data=False, seed=2)
    parts = [(rows, *asked_and_passed(step, rows)) for rows in (data, simulation)]
    factors = polynomial(document, document["coefficients"], simulation)
    assert deviation(document, *parts, factors) < 85  # of 48
    assert deviation(document, *parts, np.ones(EVENTS)) > 110


def test_factors_of_muons_that_are_not_isolated_follow_from_those_that_are():
    effects = ("efficiency_iso",)
    document = payload_efficiency.efficiency("iso", with_effects(*effects))
    data, simulation = muons(effects, is_data=True, seed=1), muons((), is_data=False, seed=2)
    parts = []
    for rows in (data, simulation):
        asked, passed = asked_and_passed("iso", rows)
        parts.append((rows, asked, asked & ~passed))
    assert deviation(document, *parts, failing(document, simulation)) < 85
    assert deviation(document, *parts, np.ones(EVENTS)) > 110


def test_veto_factors_are_those_of_track_and_muon_chambers():
    effects = ("efficiency_tracking", "efficiency_reco")
    document = payload_efficiency.veto(with_effects(*effects))
    data, simulation = muons(effects, is_data=True, seed=1), muons((), is_data=False, seed=2)
    parts = []
    for rows in (data, simulation):
        asked = np.abs(rows["gen_eta"]) < 2.39
        parts.append((rows, asked, asked & ~rows["veto"]))
    assert deviation(document, *parts, failing(document, simulation)) < 85
    assert deviation(document, *parts, np.ones(EVENTS)) > 110


@pytest.mark.parametrize("step", ["iso", "veto"])
def test_polynomials_of_the_simulated_efficiency_are_exact(step):
    truth = with_effects()
    document = (
        payload_efficiency.veto(truth) if step == "veto" else payload_efficiency.efficiency(step, truth)
    )
    rows = muons((), is_data=False, seed=2)
    asked = np.abs(rows["gen_eta"]) < 2.39
    if step == "iso":
        asked &= rows["hard"]
    found = np.average(rows["isolated" if step == "iso" else "veto"][asked])
    expected = polynomial(document, document["simulated"], rows)[asked].mean()
    assert found == pytest.approx(expected, abs=4 * np.sqrt(0.06 / asked.sum()))


def response(is_data: bool, effects: tuple[str, ...], seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = muons(effects, is_data=is_data, seed=seed)
    return rows["gen_pt"] / rows["pt"], rows


def smeared(rows, document) -> np.ndarray:
    """Return k of simulation, smeared by what data are wider, with random numbers of its own."""
    k, places = 1 / rows["pt"], eta_bins(rows["eta"])
    squares = [relative_width(k, places, Resolution(**document[kind])) ** 2 for kind in ("data", "mc")]
    noise = np.random.default_rng(8).standard_normal(len(k))
    return k * (1 + np.sqrt(np.maximum(squares[0] - squares[1], 0)) * noise)


def test_smearing_makes_simulation_as_wide_as_data():
    document = payload_momentum.resolution(with_effects("resolution"))
    data, simulation = muons(("resolution",), is_data=True, seed=1), muons((), is_data=False, seed=2)
    places = [eta_bins(rows["gen_eta"]) // 2 for rows in (data, simulation)]

    def pull2(k) -> float:
        values = (1 / data["pt"] * data["gen_pt"], k * simulation["gen_pt"])
        total = 0.0
        for i in range(24):
            first, second = (
                v[(p == i) & rows["hard"]] - 1
                for v, p, rows in zip(values, places, (data, simulation), strict=True)
            )
            error2 = 1 / (2 * len(first)) + 1 / (2 * len(second)) + 0.012**2
            total += np.log(first.std() / second.std()) ** 2 / error2
        return total

    assert pull2(smeared(simulation, document)) < 45  # of 24
    assert pull2(1 / simulation["pt"]) > 400


def test_response_has_the_quantiles_of_smeared_simulation():
    resolution = payload_momentum.resolution(with_effects("resolution"))
    document = payload_momentum.response(resolution)
    rows = muons((), is_data=False, seed=2)
    r = smeared(rows, resolution) * rows["gen_pt"]
    quantiles, p = np.array(document["quantiles"]), np.array(document["probabilities"])
    assert quantiles.shape == (20, 24, 2, 21)
    i = np.searchsorted(document["gen_pt_edges"], rows["gen_pt"], side="right") - 1
    j, q = eta_bins(rows["gen_eta"]) // 2, (rows["charge"] > 0).astype(int)
    below = (r[:, None] < quantiles[i, j, q])[rows["hard"]].mean(axis=0)
    error = np.sqrt(p * (1 - p) / rows["hard"].sum())
    assert (np.abs(below - p) < 5 * error + 1e-4).all()


def test_prefire_weights_are_the_share_of_data_that_is_kept():
    truth = with_effects("prefire")
    events = gun(EVENTS)
    kept, _ = measured(events, ("prefire",), is_data=True, seed=1)
    complete, _ = measured(events, (), is_data=True, seed=1)
    document = payload_conditions.prefire(truth)
    assert len(kept) < len(complete)
    plateau, spot = np.array(document["plateau"]), document["hot_spot"]
    eta, phi, pt = (events.muons[name][complete] for name in ("eta", "phi", "pt"))
    height = plateau[np.clip(np.searchsorted(document["eta_edges"], np.abs(eta)) - 1, 0, 10)]
    hot = (eta > 1.24) & (eta < 1.6) & (phi > 2.44) & (phi < 2.79)
    lost = np.where(hot, spot["plateau"], height) / (np.exp((pt - 20.0) / -4.0) + 1)
    bins = document["eta_edges"]
    weight = (1 - lost) * (1 - truth.prefire.mean)
    observed = np.histogram(np.abs(events.muons["eta"][kept]), bins)[0]
    expected = np.histogram(np.abs(eta), bins, weights=weight)[0]
    plain = np.histogram(np.abs(eta), bins)[0]
    # the same crossings: only what is lost fluctuates, and the payload's 8 %
    variance = (plain - expected) + (0.08 * (plain - expected)) ** 2
    assert ((observed - expected) ** 2 / variance).sum() < 30  # of 11
    assert ((observed - plain) ** 2 / variance).sum() > 200


def test_pixel_hits_of_data_are_those_of_simulation_times_the_ratio():
    events = gun(EVENTS)
    _, data = measured(events, ("pixel_hits",), is_data=True, seed=1)
    _, simulation = measured(events, (), is_data=False, seed=2)
    content = payload_conditions.pixel_hits(with_effects())["corrections"][0]["data"]["content"]
    ratio = np.array(content).reshape(48, 6)
    fired = np.repeat(simulation["HLT_IsoMu24"] | simulation["HLT_IsoTkMu24"], simulation["Muon"].counts)
    hits, eta = (simulation["Muon"][name][fired] for name in ("cvhNValidPixelHits", "eta"))
    edges = np.arange(0.5, 7.0)
    weights = ratio[eta_bins(eta), hits - 1]
    arguments = (data["Muon"]["cvhNValidPixelHits"], edges)
    assert chi2(hits, weights, *arguments) < 20  # of 6
    assert chi2(hits, np.ones(len(hits)), *arguments) > 200
    assert set(np.unique(hits)) == {1, 2, 3, 4, 5, 6}


def dense(document) -> np.ndarray:
    """Return the content of a table without categories, or of its nominal one."""
    node = document["corrections"][0]["data"]
    if node["nodetype"] == "category":
        node = next(item["value"] for item in node["content"] if item["key"] == "nominal")
    return np.array(node["content"]).reshape([len(edges) - 1 for edges in node["edges"]])


def test_vertex_and_pileup_weights_turn_the_crossings_of_simulation_into_those_of_data():
    effects = ("vertex", "pileup")
    truth, events = with_effects(*effects), gun(EVENTS)
    _, data = measured(events, effects, is_data=True, seed=1)
    _, simulation = measured(events, effects, is_data=False, seed=2)
    z, n_true = simulation["GenVtx_z"], simulation["Pileup_nTrueInt"]
    by_z = dense(payload_conditions.vertex(truth))[:, 0]
    by_pileup = dense(payload_conditions.pileup(truth))
    place = np.clip(np.searchsorted(payload_conditions.Z_EDGES, z, side="right") - 1, 0, len(by_z) - 1)
    weights = by_z[place] * by_pileup[np.floor(n_true).astype(int)]
    weights *= len(data["PV_z"]) / len(z)
    plain = np.full(len(z), len(data["PV_z"]) / len(z))
    for branch, edges in (("PV_z", np.linspace(-12, 12, 25)), ("PV_npvsGood", np.arange(1.0, 42, 2))):
        assert chi2(simulation[branch], weights, data[branch], edges) < 50  # of 24, 20
        assert chi2(simulation[branch], plain, data[branch], edges) > 1000


def recoil_of(events, kept, branches) -> tuple[np.ndarray, np.ndarray]:
    """Return u = -(missing + muon) along and across the boson's pT, with that, and in which events there is a muon."""
    found = branches["Muon"]
    hard = found["isGlobal"] & (found["pt"] > VETO_PT)
    one = np.bincount(found.event[hard], minlength=len(kept)) == 1
    first = np.flatnonzero(hard & one[found.event])
    met = branches[f"{ESTIMATOR}_pt"] * np.exp(1j * branches[f"{ESTIMATOR}_phi"])
    u = -(met[one] + found["pt"][first] * np.exp(1j * found["phi"][first]))
    boson = (events.recoiling @ np.array([1, 1j]))[kept][one]
    u = u * np.conj(boson) / np.abs(boson)
    return np.stack([u.real, u.imag, np.abs(boson)], axis=1), one


def quantile_morph(values, z, knots, component, scores) -> np.ndarray:
    """Return F_data^-1(F_mc(u | z) | z): linear in z between the knots' shifts, and between the quantiles."""

    def at(knot, u):
        simulated, data = (np.array(component[kind][knot]) for kind in ("mc", "data"))
        score = np.interp(u, simulated, scores)
        outside = (u - np.clip(u, simulated[0], simulated[-1])) * 1.0
        return np.interp(score, scores, data) + outside - u

    place = np.clip(np.interp(z, knots, np.arange(len(knots))), 0, len(knots) - 1.000001)
    low = place.astype(int)
    shift = np.zeros(len(z))
    for knot in range(len(knots)):
        for chosen, part in ((low == knot, 1 - (place - low)), (low + 1 == knot, place - low)):
            shift[chosen] += part[chosen] * at(knot, values[chosen])
    return values + shift


def test_morphing_gives_simulation_the_recoil_of_data():
    effects = ("recoil", "pileup")
    truth, events = with_effects(*effects), gun(EVENTS)
    kept, data = measured(events, effects, is_data=True, seed=1)
    everything, simulation = measured(events, effects, is_data=False, seed=2)
    observed, _ = recoil_of(events, kept, data)
    u, one = recoil_of(events, everything, simulation)
    fired = (simulation["HLT_IsoMu24"] | simulation["HLT_IsoTkMu24"])[one]
    u = u[fired]
    by_pileup = dense(payload_conditions.pileup(truth))
    weights = by_pileup[np.floor(simulation["Pileup_nTrueInt"][one][fired]).astype(int)]
    document = payload_recoil.recoil(truth)
    knots, scores = document["boson_pt"], payload_recoil.SCORES
    morphed = [
        quantile_morph(u[:, i], u[:, 2], knots, component, scores)
        for i, component in enumerate(document["components"])
    ]
    share = np.full(len(u), len(observed) / len(u))
    edges = np.linspace(-40, 30, 36), np.linspace(-30, 30, 31)
    for i in (0, 1):
        assert chi2(morphed[i], weights * share, observed[:, i], edges[i]) < 70  # of 35, 30
        assert chi2(u[:, i], weights * share, observed[:, i], edges[i]) > 110
    for low, high in ((0, 5), (5, 15), (15, 40)):  # at each boson pT
        ours, theirs = ((low <= x[:, 2]) & (x[:, 2] < high) for x in (u, observed))
        assert chi2(morphed[0][ours], (weights * share)[ours], observed[theirs, 0], edges[0]) < 70


def test_weighted_simulation_has_the_production_of_data():
    truth = with_effects("theory")
    generated, simulation = gun(2_000_000, 3), gun(2_000_000, 4)
    data = production._accepted_by_theory(
        generated, find("Wplusmunu"), truth, np.random.default_rng(4)
    ).boson_pt
    weights = theory.lookup(
        theory.nominal_weights(truth.theory),
        simulation.boson_charge,
        np.abs(simulation.boson_rapidity),
        simulation.boson_pt,
    )
    share, edges = len(data) / len(simulation), np.arange(0.0, 60, 2)
    weights *= share / weights.mean()
    assert chi2(simulation.boson_pt, weights, data, edges) < 60  # of 29
    assert chi2(simulation.boson_pt, np.full(len(simulation), share), data, edges) > 110


def test_global_parameters_give_refitted_tracks_their_momentum_back():
    truth, events = with_effects("cvh", "momentum_scale"), gun(2000)
    _, branches = measured(events, truth.effects, is_data=True, seed=1)
    _, without = measured(events, ("momentum_scale",), is_data=True, seed=1)
    found, plain = branches["Muon"], without["Muon"]
    sizes, jacobians = found["cvhmergedGlobalIdxs_Counts"], branches["Muon_cvhJacRef_Vals"]
    indices = branches["Muon_cvhmergedGlobalIdxs_Vals"]
    np.testing.assert_array_equal(found["cvhJacRef_Counts"], 3 * sizes)
    np.testing.assert_array_equal(indices.counts, np.bincount(found.event, sizes, len(found.counts)))
    assert set(np.unique(sizes)) == {0, 3, 4}
    x = np.array(payload_momentum.cvh(truth)["data"])
    ends = np.cumsum(sizes)
    for m in range(len(sizes)):
        begin = ends[m] - sizes[m]
        jacobian = jacobians[""][3 * begin : 3 * ends[m]].reshape(3, sizes[m])
        move = jacobian @ x[indices[""][begin : ends[m]]]
        curvature = found["cvhCharge"][m] / (found["cvhPt"][m] * np.cosh(found["cvhEta"][m])) + move[0]
        dip = np.arctan(np.sinh(found["cvhEta"][m])) + move[1]
        assert np.cos(dip) / abs(curvature) == pytest.approx(plain["pt"][m], rel=1e-12)
        assert np.arcsinh(np.tan(dip)) == pytest.approx(plain["eta"][m], abs=1e-12)
        turned = (found["cvhPhi"][m] + move[2] - plain["phi"][m]) / (2 * np.pi)
        assert turned - np.rint(turned) == pytest.approx(0, abs=1e-12)
    moved = np.abs(found["cvhPt"] / plain["pt"] - 1)[sizes > 0]
    assert 1e-4 < np.median(moved) < 5e-3
