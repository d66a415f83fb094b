"""The detector does to events what its truth says, and the corrections undo it."""

from __future__ import annotations

import dataclasses

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples_tools import events, quiet_truth

from binworks.corrections import efficiency as efficiency_kernels
from binworks.corrections import momentum_scale as scale_kernels
from binworks.samples import kinematics, momentum, tau_decay
from binworks.samples.arrays import Jagged, rounded
from binworks.samples.detector import Detector
from binworks.samples.efficiency import EfficiencyCurve
from binworks.samples.muons import MuonSystem
from binworks.samples.nonprompt import draw_nonprompt
from binworks.samples.truth import EFFECTS, STEPS, Truth

pytest.importorskip("pythia8mc", exc_type=ImportError)


def measure(truth: Truth, sample, *, is_data: bool, seed: int = 1):
    return Detector(truth, is_data=is_data).measure(sample, np.random.default_rng(seed))


def kernel_scale(truth: Truth) -> scale_kernels.MomentumScale:
    scale = truth.momentum_scale
    return scale_kernels.MomentumScale(*(np.array(getattr(scale, name)) for name in "AeM"))


@given(
    st.floats(3, 500),
    st.integers(0, 47),
    st.sampled_from([-1, 1]),
    st.sampled_from([0.0, 1.0, 30.0]),
)
def test_correction_undoes_the_distortion_of_the_scale(pt, eta_bin, charge, strength):
    scale = Truth.draw(3).momentum_scale
    scale = scale.model_copy(
        update={n: tuple(strength * x for x in getattr(scale, n)) for n in ("A", "e", "M")}
    )
    measured = momentum.distorted(np.array([1 / pt]), np.array([eta_bin]), np.array([charge]), scale)
    parameters = scale_kernels.MomentumScale(*(np.array(getattr(scale, n)) for n in "AeM"))
    assert scale_kernels.corrected_pt(1 / measured[0], eta_bin, charge, parameters) == pytest.approx(
        pt, rel=1e-11
    )


def test_data_muons_differ_from_simulation_by_the_scale_alone():
    truth = Truth.draw(3, ("momentum_scale",), 0.0)
    sample = events("Wplusmunu")
    recorded, data = measure(truth, sample, is_data=True)
    _, simulated = measure(truth, sample, is_data=False)
    assert isinstance(data["Muon"], Jagged)
    muons, reference = data["Muon"], simulated["Muon"].take(recorded)
    np.testing.assert_array_equal(muons["eta"], reference["eta"])
    hard = muons["pt"] > 15
    ratio = muons["pt"][hard] / reference["pt"][hard]
    assert 1e-5 < np.abs(ratio - 1).max() < 5e-3
    bins = np.clip(np.floor((muons["eta"][hard] + 2.4) * 10).astype(int), 0, 47)
    corrected = [
        scale_kernels.corrected_pt(*values, kernel_scale(truth))
        for values in zip(muons["pt"][hard], bins, muons["charge"][hard], strict=True)
    ]
    np.testing.assert_allclose(corrected, reference["pt"][hard], rtol=1e-10)


def test_missing_momentum_moves_with_the_measured_muon():
    truth = Truth.draw(3, ("momentum_scale",), 0.0)
    sample = events("Wplusmunu")
    recorded, data = measure(truth, sample, is_data=True)
    _, simulated = measure(truth, sample, is_data=False)

    def total(branches, chosen):
        met = branches["DeepMETPVRobust_pt"][chosen] * np.exp(1j * branches["DeepMETPVRobust_phi"][chosen])
        muons = branches["Muon"].take(chosen)
        vector = muons["pt"] * np.exp(1j * muons["phi"]) * (muons["isGlobal"] & (muons["pt"] > 15))
        return (
            met
            + np.bincount(muons.event, vector.real, len(chosen))
            + 1j * np.bincount(muons.event, vector.imag, len(chosen))
        )

    one = data["Muon"].counts == 1
    everything = np.arange(len(recorded))[one]
    np.testing.assert_allclose(total(data, everything), total(simulated, recorded[one]), atol=1e-9)


def test_response_has_the_width_of_the_resolution():
    truth = quiet_truth()
    rng = np.random.default_rng(2)
    k, bins = np.full(200_000, 1 / 40.0), np.full(200_000, 5)
    measured = momentum.smeared(k, bins, truth.resolution["mc"], rng)
    part = truth.resolution["mc"]
    a, b, c, d = (getattr(part, name)[2] for name in "abcd")
    expected = np.sqrt(a**2 + (c * 40) ** 2 + b**2 / (1 + (d / 40) ** 2))
    assert (measured / k).std() == pytest.approx(expected, rel=0.01)
    assert (measured / k).mean() == pytest.approx(1, abs=4 * expected / np.sqrt(len(k)))


@given(
    st.floats(10, 100),
    st.floats(-100, 100),
    st.integers(0, 47),
    st.sampled_from([-1, 1]),
    st.sampled_from(STEPS),
)
def test_scale_factor_of_data_is_that_of_the_kernels(pt, ut, eta_bin, charge, step):
    truth = Truth.draw(3).efficiency[step]
    coefficients = np.repeat(np.array(truth.coefficients), 2 if step == "iso" else 1, axis=1)
    payload = efficiency_kernels.identity(step)._replace(
        low=truth.pt_range[0],
        high=truth.pt_range[1],
        ut_low=truth.ut_range[0],
        ut_high=truth.ut_range[1],
        coefficients=coefficients,
    )
    basis = np.zeros(12)
    n = efficiency_kernels.fill_basis(pt, ut, payload, basis)
    expected = efficiency_kernels.scale_factor(basis[:n], eta_bin, int(charge > 0), payload)
    arguments = (np.array([pt]), np.array([eta_bin]), np.array([charge]), np.array([ut]))
    found = EfficiencyCurve(truth, scaled=True).scale_factor(*arguments)
    assert found[0] == pytest.approx(expected, rel=1e-12)


def test_identified_muons_are_as_frequent_as_the_truth_says():
    truth = Truth.draw(3, ("efficiency_idip",), 0.0)
    sample = draw_nonprompt(200_000, truth.nonprompt, np.random.default_rng(1), branches=False)
    shares = {}
    for is_data in (True, False):
        _, branches = measure(truth.model_copy(update={"effects": truth.effects}), sample, is_data=is_data)
        muons = branches["Muon"]
        if not is_data:
            hard = muons["pt"] > 22
            shares["found"] = muons["mediumId"][hard].mean()
    eta_bin = np.arange(48)
    curve = EfficiencyCurve(truth.efficiency["idip"], scaled=False)
    expected = curve(np.full(48, 26.0), eta_bin, np.ones(48), np.zeros(48)).mean()
    assert shares["found"] == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("step", STEPS)
def test_no_step_differs_between_data_and_simulation_unless_it_is_an_effect(step):
    truth = Truth.draw(3, (), 0.0)
    sample = events("Zmumu")
    recorded, data = measure(truth, sample, is_data=True)
    _, simulated = measure(truth, sample, is_data=False)
    fired = simulated["HLT_IsoMu24"] | simulated["HLT_IsoTkMu24"]
    np.testing.assert_array_equal(recorded, np.flatnonzero(fired))
    for name in data:
        if isinstance(data[name], Jagged):
            for field, content in data[name].fields.items():
                np.testing.assert_array_equal(content, simulated[name].take(recorded)[field])
        else:
            np.testing.assert_array_equal(data[name], simulated[name][recorded])
    different = Truth.draw(3, (f"efficiency_{step}",), 0.0)
    changed, _ = measure(different, sample, is_data=True)
    if step in ("tracking", "idip", "trigger", "reco"):
        assert not np.array_equal(changed, recorded)


@pytest.mark.parametrize(
    "effect", ["pileup", "vertex", "recoil", "prefire", "resolution", "cvh", "pixel_hits"]
)
def test_each_effect_changes_the_data(effect):
    sample = events("Wplusmunu")
    _, before = measure(Truth.draw(3, (), 0.0), sample, is_data=True)
    _, after = measure(Truth.draw(3, (effect,), 0.0), sample, is_data=True)
    seen = {
        "pileup": lambda b: b["PV_npvsGood"].mean(),
        "vertex": lambda b: b["PV_z"].std(),
        "recoil": lambda b: b["MET_pt"].mean(),
        "prefire": lambda b: len(b["PV_z"]),
        "resolution": lambda b: b["Muon"]["pt"].sum(),
        "cvh": lambda b: b["MET_pt"].sum(),
        "pixel_hits": lambda b: b["Muon"]["cvhNValidPixelHits"].sum(),
    }[effect]
    assert seen(after) != seen(before)
    assert effect in EFFECTS


def test_what_no_correction_can_know_is_the_same_in_data_and_simulation():
    """Without a boson there is no recoil and no uT: nonprompt data are what the corrections make of simulation."""
    truth = Truth.draw(3, ("recoil",), 0.0)
    sample = draw_nonprompt(3000, truth.nonprompt, np.random.default_rng(1), branches=False)
    recorded, data = measure(truth, sample, is_data=True)
    _, simulated = measure(truth, sample, is_data=False)
    np.testing.assert_array_equal(data["MET_pt"], simulated["MET_pt"][recorded])
    truth = Truth.draw(3, ("efficiency_trigger", "efficiency_iso"), 0.0)
    turned = dataclasses.replace(sample, recoiling=-sample.recoiling)
    fired = [measure(truth, events, is_data=True)[1]["Muon"]["pt"] for events in (sample, turned)]
    np.testing.assert_array_equal(*fired)


def test_isolated_muons_from_heavy_quarks_have_the_scale_factors_of_all():
    truth = Truth.draw(3, ("efficiency_iso",), 0.0)
    sample = draw_nonprompt(400_000, truth.nonprompt, np.random.default_rng(1), branches=False)
    shares = [
        MuonSystem(truth, is_data=flag).reconstruct(sample, np.random.default_rng(2))
        for flag in (True, False)
    ]
    data, simulated = (np.mean(muons["vtxAgnPfRelIso04_all"][muons["hard"]] < 0.15) for muons in shares)
    factor = np.mean(np.array(truth.efficiency["iso"].coefficients)[:, 0, 0])
    # the same random numbers: only those between the two shares differ
    assert data / simulated == pytest.approx(factor, abs=0.002)


def test_prefire_weights_are_the_probability_to_be_kept():
    sample = events("Wplusmunu")
    _, off = measure(Truth.draw(3, (), 0.0), sample, is_data=False)
    assert (off["L1PreFiringWeight_ECAL_Nom"] == 1).all()
    truth = Truth.draw(3, ("prefire",), 0.0)
    _, on = measure(truth, sample, is_data=False)
    assert 1 - on["L1PreFiringWeight_ECAL_Nom"].mean() == pytest.approx(truth.prefire.mean, rel=0.15)
    assert (on["L1PreFiringWeight_ECAL_Up"] <= on["L1PreFiringWeight_ECAL_Nom"]).all()


def test_muon_spectrum_falls_steepest_at_half_the_mass():
    muons = events("Wplusmunu", 12_000).muons
    central = np.abs(muons["eta"]) < 2.4
    counts, edges = np.histogram(muons["pt"][central], np.arange(20, 60, 2.0))
    fall = np.diff(counts) / np.sqrt(counts[1:])
    assert edges[1 + np.argmin(fall)] == pytest.approx(80.4 / 2, abs=2.1)
    assert fall.min() < -8


def test_reconstructed_z_has_its_mass():
    _, branches = measure(quiet_truth(), events("Zmumu"), is_data=False)
    muons = branches["Muon"]
    pairs = np.flatnonzero(muons.counts == 2)
    two = muons.take(pairs)
    pt, eta, phi = (two[name].reshape(-1, 2) for name in ("pt", "eta", "phi"))
    mass = np.sqrt(2 * pt.prod(axis=1) * (np.cosh(eta[:, 0] - eta[:, 1]) - np.cos(phi[:, 0] - phi[:, 1])))
    assert np.median(mass[(mass > 70) & (mass < 110)]) == pytest.approx(91.0, abs=0.4)


def test_transverse_momentum_is_balanced_at_the_generator():
    for process in ("Wplusmunu", "Zmumu", "Ztautau"):
        sample = events(process)
        gen = sample.branches["GenPart"]
        unseen = np.isin(np.abs(gen["pdgId"]), (12, 14, 16)) & (gen["status"] == 1)
        muon = (np.abs(gen["pdgId"]) == 13) & (gen["status"] == 1)
        vector = gen["pt"] * np.exp(1j * gen["phi"].astype(float)) * (unseen | muon)
        total = np.bincount(gen.event, vector.real) + sample.other[:, 0]
        np.testing.assert_allclose(total, sample.recoiling[:, 0], atol=2e-3 * (1 + sample.boson_pt.max()))


def test_every_muon_points_to_a_generated_one_with_prompt_flags():
    for process, bit in (("Wplusmunu", 0), ("Wtaunu", 5)):
        gen = events(process).branches["GenPart"]
        muon = (np.abs(gen["pdgId"]) == 13) & (gen["status"] == 1)
        assert (gen["statusFlags"][muon] >> bit & 1).all()
        assert np.array_equal(np.bincount(gen.event[muon]), np.ones(4000))
        hard = gen["statusFlags"] >> 7 & 1
        assert np.array_equal(np.bincount(gen.event, hard), np.full(4000, 2))


def test_tau_decays_conserve_momentum_and_follow_the_matrix_element():
    n, rng = 100_000, np.random.default_rng(4)
    momenta = np.tile([0.0, 30.0, 26.0], (n, 1))
    decays = tau_decay.decay(momenta, np.full(n, tau_decay.MUON), np.ones(n), rng)
    total = decays.visible + decays.lepton_neutrino + decays.tau_neutrino
    np.testing.assert_allclose(total, momenta, atol=1e-9)
    energy = np.sqrt((momenta[0] ** 2).sum() + tau_decay.TAU_MASS**2)
    share = np.linalg.norm(decays.visible, axis=1) / energy
    # left-handed: dN/dz = 4/3 (1 - z^3), mean 2/5; right-handed: mean 3/10
    assert share.mean() == pytest.approx(0.4, abs=0.004)
    right = tau_decay.decay(momenta, np.full(n, tau_decay.MUON), -np.ones(n), rng)
    assert (np.linalg.norm(right.visible, axis=1) / energy).mean() == pytest.approx(0.3, abs=0.004)


def test_rounding_keeps_the_asked_mantissa_and_the_mean():
    values = np.random.default_rng(1).uniform(0.5, 2, 10_000).astype(np.float32)
    short = rounded(values, 12)
    assert (short.view(np.uint32) & 0x7FF == 0).all()
    assert np.abs(short / values - 1).max() <= 2.0**-13 * 1.001
    assert (short / values).mean() == pytest.approx(1, abs=3e-6)
    np.testing.assert_array_equal(rounded(short, 12), short)
    np.testing.assert_array_equal(rounded(np.array([0.0, 1.0, -1.0]), 12), [0, 1, -1])


@given(st.lists(st.integers(0, 3), max_size=8), st.randoms())
def test_taking_events_keeps_each_with_its_members(counts, random):
    content = np.arange(sum(counts))
    collection = Jagged(np.array(counts, np.int64), {"x": content})
    index = np.array(random.choices(range(len(counts)), k=5) if counts else [], np.int64)
    lists = ak.unflatten(content, counts) if counts else []
    taken = collection.take(index)
    assert [len(lists[i]) for i in index] == taken.counts.tolist()
    assert [x for i in index for x in lists[i]] == taken["x"].tolist()


def test_rotation_turns_everything_alike():
    sample = events("Wplusmunu")
    angle = np.full(len(sample), 1.0)
    turned = sample.rotated(angle)
    shift = kinematics.wrapped(turned.muons["phi"] - sample.muons["phi"])
    np.testing.assert_allclose(shift, 1.0, atol=1e-9)
    np.testing.assert_allclose(turned.boson_pt, sample.boson_pt)
    gen = turned.branches["GenPart"]["phi"] - sample.branches["GenPart"]["phi"]
    np.testing.assert_allclose(kinematics.wrapped(gen), 1.0, atol=1e-5)
    np.testing.assert_array_equal(turned.branches["LHEPdfWeight"], sample.branches["LHEPdfWeight"])
