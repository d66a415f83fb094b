"""The slow computation itself: against published numbers, closed forms, and events worked out by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import brute_force_cases
import numpy as np
import pytest
import reference_variations
import small_corrections
from reference_payloads import (
    Efficiency,
    Prefire,
    Quantiles,
    Recoil,
    Response,
    normal,
    philox,
    poisson_counts,
)
from reference_physics import Reference, collins_soper, harmonics, invariant_mass, momentum
from scipy.stats import norm

from binworks.corrections.sets import CorrectionSet

PROBABILITIES = norm.cdf(np.linspace(-3, 3, 13)).tolist()


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_numbers_that_its_authors_published(
    counter: list[int], key: list[int], words: list[int]
) -> None:
    assert philox(counter, key) == words


def test_random_numbers_have_the_moments_of_their_distributions() -> None:
    gauss = np.array([normal(1, 2, event, 0) for event in range(4000)])
    counts = np.ravel([poisson_counts(1, 2, event, 4) for event in range(4000)])
    assert abs(gauss.mean()) < 0.05
    assert abs(gauss.std() - 1) < 0.05
    assert abs(counts.mean() - 1) < 0.03
    assert abs(counts.var() - 1) < 0.05


def test_a_gaussian_response_has_the_scores_of_a_gaussian() -> None:
    middle, width = 1.002, 0.015
    quantiles = (middle + width * norm.ppf(PROBABILITIES)).tolist()
    response = Response(
        {
            "gen_pt_edges": [0, 100],
            "gen_eta_edges": [-2.4, 2.4],
            "probabilities": PROBABILITIES,
            "quantiles": [[[quantiles] * 2]],
        }
    )
    for r in (0.97, 1.0, 1.03):
        slope = -(r - middle) / width**2
        expected = (-1 - r * slope, (slope**2 - 1 / width**2) / 2)
        np.testing.assert_allclose(response.scores(40.0, 0.0, 1.0, r), expected, rtol=1e-9)
    assert response.scores(40.0, 0.0, 1.0, 5.0) == response.scores(40.0, 0.0, 1.0, quantiles[-1])


def recoil_document(change: float, stretch: float) -> dict[str, Any]:
    """Return straight quantile functions; data are those of simulation, stretched and moved."""
    z = norm.ppf(PROBABILITIES)
    simulated = np.array([-5 + 9 * z, -20 + 10 * z])
    component = {"mc": simulated.tolist(), "data": (stretch * simulated + change).tolist(), "given": []}
    across = {"given": [[-1.0, 1.0]]} | {
        name: np.repeat(np.array(component[name])[:, None], 2, axis=1).tolist() for name in ("mc", "data")
    }
    return {
        "boson_pt": [5.0, 20.0],
        "probabilities": PROBABILITIES,
        "components": [component, component | across],
    }


def test_recoil_stays_where_data_and_simulation_agree() -> None:
    assert Recoil(recoil_document(0.0, 1.0)).morphed(11.0, -7.3, 2.9) == (-7.3, 2.9)


def test_recoil_with_straight_quantile_functions_is_stretched_and_moved() -> None:
    recoil = Recoil(recoil_document(3.0, 1.5))
    for boson_pt in (1.0, 11.0, 90.0):
        np.testing.assert_allclose(recoil.morphed(boson_pt, -7.3, 2.9), [1.5 * -7.3 + 3, 1.5 * 2.9 + 3])


def test_score_and_quantile_are_inverse() -> None:
    curve = Quantiles(np.linspace(-2, 2, 7), np.array([-30.0, -12.0, -5.0, 0.0, 6.0, 15.0, 40.0]))
    for t in (-4.0, -1.9, -0.3, 0.0, 1.7, 3.5):
        assert curve.score(curve.at(t)) == pytest.approx(t, abs=1e-12)


def test_muons_that_pass_and_muons_that_fail_stay_as_many() -> None:
    efficiency = Efficiency(small_corrections.documents()["efficiency_iso"][1])
    place, pt, ut = efficiency.place(1.23, 1), 41.0, -7.0
    row = efficiency.coefficients[place]
    passing = efficiency.factor(row, place, pt, ut, fails=False)
    failing = efficiency.factor(row, place, pt, ut, fails=True)
    simulated = efficiency.factor(
        np.array(efficiency.document["simulated"])[place], place, pt, ut, fails=False
    )
    assert passing * simulated + failing * (1 - simulated) == pytest.approx(1, abs=1e-14)


def test_a_hot_spot_comes_before_the_bins_of_eta() -> None:
    document = small_corrections.documents()["prefire"][1]
    prefire = Prefire(document)
    assert prefire.probability(40.0, 1.3, 2.6)[0] == 11
    assert prefire.probability(40.0, -1.3, 2.6)[0] == 5
    assert prefire.probability(40.0, 2.45, 0.0) == (None, 0.0)
    assert prefire.probability(1e4, 0.1, 0.0)[1] == pytest.approx(document["plateau"][0])


def test_collins_soper_angles_are_those_of_the_closed_form() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        pt, eta, phi = rng.uniform(20, 60, 2), rng.normal(0, 1.5, 2), rng.uniform(-np.pi, np.pi, 2)
        particle, antiparticle = (momentum(pt[i], eta[i], phi[i], 0.0) for i in range(2))
        boson = particle + antiparticle
        mass, qt, sign = invariant_mass(boson), np.hypot(boson[0], boson[1]), np.sign(boson[2])
        up, down = (np.array([p[3] + s * p[2] for p in (particle, antiparticle)]) for s in (1, -1))
        cosine = sign * (up[0] * down[1] - down[0] * up[1]) / (mass * np.hypot(mass, qt))
        direction = boson[:2] / qt
        difference = particle[:2] - antiparticle[:2]
        across = sign * (difference[1] * direction[0] - difference[0] * direction[1])
        tangent = np.hypot(mass, qt) / mass * across / (difference @ direction)
        found = collins_soper(particle, antiparticle)
        assert found[0] == pytest.approx(cosine, abs=1e-12)
        assert np.tan(found[1]) == pytest.approx(tangent, rel=1e-8)
        assert np.sign(np.cos(found[1])) == np.sign(difference @ direction)


def test_all_angular_functions_but_the_first_average_to_zero() -> None:
    cosines, weights = np.polynomial.legendre.leggauss(8)
    phis = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    mean = sum(
        w / 16 * harmonics(cosine, phi) for cosine, w in zip(cosines, weights, strict=True) for phi in phis
    )
    np.testing.assert_allclose(mean, [4 / 3, *[0] * 8], atol=1e-14)


# One event by hand


def constant_table(name: str, document: Any, value: float) -> Any:
    """Return the document with one value everywhere in the branch of ``nominal``."""
    changed = copy.deepcopy(document)

    def fill(node: Any) -> None:
        if node["nodetype"] == "category":
            for item in node["content"]:
                fill(item["value"])
        else:
            node["content"] = [value] * len(node["content"])

    data = changed["corrections"][0]["data"]
    fill(
        next(item["value"] for item in data["content"] if item["key"] == "nominal")
        if name != "vertex"
        else data
    )
    return changed


@pytest.fixture
def plain(tmp_path: Path) -> CorrectionSet:
    """Constant factors, prime numbers in hundredths; no shift of momentum, no change of the recoil."""
    documents = {name: document for name, (_, document) in small_corrections.documents().items()}
    changed: dict[str, Any] = {}
    for name, value in (("pileup", 1.1), ("vertex", 1.3), ("theory", 0.7), ("ew", 1.7)):
        changed[name] = constant_table(name, documents[name], value)
    for i, step in enumerate(("reco", "tracking", "idip", "trigger", "iso")):
        changed[f"efficiency_{step}"] = copy.deepcopy(documents[f"efficiency_{step}"])
        rows = np.zeros(np.shape(documents[f"efficiency_{step}"]["coefficients"]))
        rows[..., 0] = 0.95 + 0.01 * i
        changed[f"efficiency_{step}"]["coefficients"] = rows.tolist()
    changed["momentum_scale"] = copy.deepcopy(documents["momentum_scale"])
    changed["momentum_scale"]["mc"] = {name: [0.0] * 48 for name in "AeM"}
    changed["resolution"] = copy.deepcopy(documents["resolution"])
    changed["resolution"]["data"] = changed["resolution"]["mc"]
    changed["recoil"] = copy.deepcopy(documents["recoil"])
    for component in changed["recoil"]["components"]:
        component["data"] = component["mc"]
    spot = documents["prefire"]["hot_spot"] | {"plateau": 0.3}
    flat = {"plateau": [0.2] * 11, "middle": [-1e4] * 11}
    changed["prefire"] = documents["prefire"] | flat | {"hot_spot": spot}
    return brute_force_cases.correction_set(tmp_path, 5, **changed)


def one_event() -> dict[str, Any]:
    """Return an event with a W+ at rest across the beam, its muon at 40 GeV, and a soft loose muon beside."""
    muon = {
        "pt": [40.0, 5.0], "eta": [0.25, 1.0], "phi": [0.0, 2.0], "charge": [1, -1], "dxybs": [0.01, 0.01],
        "pfRelIso04_all": [0.05, 2.0], "looseId": [True, True], "mediumId": [True, False],
        "isGlobal": [True, True], "highPurity": [True, True], "standalonePt": [38.0, 4.0],
        "standaloneEta": [0.27, 1.0], "standalonePhi": [0.01, 2.0], "standaloneNumberOfValidHits": [20, 20],
        "cvhNValidPixelHits": [3, 3],
    }  # fmt: skip
    generated = {
        "pt": [40.0, 40.0, 40.0, 40.0], "eta": [0.25, -0.25, 0.25, -0.25], "phi": [0.0, np.pi, 0.0, np.pi],
        "mass": [0.0] * 4, "pdgId": [-13, 14, -13, 14], "status": [23, 23, 1, 1],
        "statusFlags": [385, 385, 1, 1],
    }  # fmt: skip
    electron = {name: [] for name in ("pt", "eta", "dxy", "dz", "cutBased")}
    fired = {"id": [13], "filterBits": [16], "eta": [0.25], "phi": [0.1]}
    collections = {"Muon": muon, "GenPart": generated, "Electron": electron, "TrigObj": fired}
    flat = {
        "run": 1, "luminosityBlock": 1, "event": 1, "HLT_IsoMu24": True, "HLT_IsoTkMu24": False, "MET_pt": 30.0,
        "MET_phi": np.pi / 2, "genWeight": -3.0, "Pileup_nTrueInt": 20.0, "GenVtx_z": 0.0,
        "L1PreFiringWeight_ECAL_Nom": 0.9, "L1PreFiringWeight_ECAL_Up": 0.8, "L1PreFiringWeight_ECAL_Dn": 0.99,
        "LHEPdfWeight": [1.9, 2.0, 1.8, 60.0, 1.9, 1.9, 1.9], "MEParamWeight": [1.0] * 21,
        "Flag_goodVertices": True, "Flag_HBHENoiseFilter": True, "Flag_BadPFMuonFilter": True,
    }  # fmt: skip
    return {name: [value] for name, value in flat.items()} | {
        name: {key: [values] for key, values in columns.items()} for name, columns in collections.items()
    }


EFFICIENCIES = 0.95 * 0.96 * 0.97 * 0.98 * 0.99
BY_HAND = -1 * 1.9 * 0.7 * 1.7 * 1.1 * 1.3 * 0.8**2 * 0.9 * EFFICIENCIES


def test_one_event_has_the_weight_and_the_cell_worked_out_by_hand(plain: CorrectionSet) -> None:
    reference = Reference(one_event(), plain)
    (event,) = reference.events
    assert event.weight == pytest.approx(BY_HAND, rel=1e-12)
    assert event.mt == pytest.approx(np.sqrt(2 * 40 * 30), rel=1e-12)
    h = reference.fill()
    assert h[26, 14, 1, 2, 0].value == event.weight
    assert h.sum().value == event.weight
    assert event.boson is not None
    assert event.boson.mass == pytest.approx(80 * np.cosh(0.25))
    assert event.boson.radiated == pytest.approx(0.0, abs=1e-12)


def test_the_change_of_a_muon_is_carried_into_the_missing_momentum(
    plain: CorrectionSet, tmp_path: Path
) -> None:
    documents = {name: plain.payload(name, entry.kind) for name, entry in plain.manifest.payloads.items()}
    documents["momentum_scale"]["mc"]["A"] = [-0.2] * 48
    (event,) = Reference(one_event(), brute_force_cases.correction_set(tmp_path / "b", 5, **documents)).events
    pt, missing = 50.0, complex(-10.0, 30.0)
    assert event.muons[0].pt == pytest.approx(pt, rel=1e-12)
    assert event.mt == pytest.approx(np.sqrt(2 * pt * (abs(missing) - missing.real)), rel=1e-12)


def test_variations_of_one_event_are_those_worked_out_by_hand(plain: CorrectionSet) -> None:
    reference = Reference(one_event(), plain)

    def ratio(group: str, name: str) -> float:
        return float(reference_variations.ratios_of(reference, group)[name][0])

    assert ratio("pdf", "pdf1Up") == pytest.approx(2.0 / 1.9)
    assert ratio("pdf", "pdf2Up") == 10.0
    assert ratio("pdf", "pdf1SymAvg") == pytest.approx(1 + 0.1 / 1.9)
    assert ratio("pdf", "pdf1SymDiff") == pytest.approx(1.0)
    assert ratio("prefire", "ecalPrefireUp") == pytest.approx(0.8 / 0.9)
    uncertainty = plain.payload("prefire", "prefire")["uncertainty"]
    assert ratio("prefire", "muonPrefireStat1Up") == pytest.approx((1 - 0.2 * (1 + uncertainty[1])) / 0.8)
    assert ratio("prefire", "muonPrefireSystDown") == pytest.approx(((1 - 0.2 * 0.89) / 0.8) ** 2)
    assert ratio("prefire", "muonPrefireHotSpotUp") == 1.0
    assert ratio("mass", "massShiftW100MeVUp") == 1.0
    covariance = np.array(plain.payload("efficiency_reco", "efficiency")["covariance"][26][1])
    x = 2 * (40 - 26) / (60 - 26) - 1
    names = [f"effStat_reco_eta26_plus_{j}" for j in range(4)]
    deviations = [ratio("efficiency_reco", name) - 1 for name in names]
    variance = x ** np.arange(4) @ covariance @ x ** np.arange(4) / 0.95**2
    assert np.sum(np.square(deviations)) == pytest.approx(variance)
    assert ratio("efficiency_reco", "effStat_reco_eta26_minus_0") == 1.0


def test_momentum_variations_of_one_event_add_up_to_the_covariance(plain: CorrectionSet) -> None:
    reference = Reference(one_event(), plain)
    covariance = np.array(plain.payload("momentum_scale", "momentum_scale")["covariance"])
    gradient = np.zeros(144)
    gradient[[26, 48 + 26, 96 + 26]] = 1.0, -1 / 40, 40.0
    score, _ = reference.response.scores(40.0, 0.25, 1.0, 1.0)
    ratios = reference_variations.ratios_of(reference, "momentum_scale")
    variance = sum((ratio[0] - 1) ** 2 for ratio in ratios.values())
    assert variance == pytest.approx(score**2 * gradient @ covariance @ gradient)


# The events of the comparison


@pytest.fixture(scope="module")
def z_events() -> dict[str, Any]:
    return brute_force_cases.nano_events("Z", 250, 5)


def fingerprint(nano: dict[str, Any], folder: Path, channel: Any, **changed: Any) -> Any:
    """Return the events' weights and cells, and the sum of what each group does to them."""
    reference = Reference(nano, brute_force_cases.correction_set(folder, 1, **changed), channel, boson="Z")
    numbers = [
        number
        for event in reference.events
        for number in (event.row, event.weight, event.mt, *np.ravel([*event.cells.values()]))
    ]
    numbers += [
        np.sum([*reference_variations.ratios_of(reference, group).values()])
        for group in reference_variations.groups_of(reference)
    ]
    return np.array(numbers)


@pytest.fixture(scope="module")
def unchanged(z_events: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("unchanged")
    return {channel: fingerprint(z_events, folder, channel) for channel in ("w_mass", "z_wlike")}


@pytest.mark.parametrize("payload", sorted(small_corrections.documents()))
def test_every_payload_matters(
    payload: str, z_events: dict[str, Any], unchanged: dict[str, Any], tmp_path: Path
) -> None:
    channel = "w_mass" if payload == "efficiency_veto" else "z_wlike"
    other = {payload: small_corrections.documents(99)[payload][1]}
    assert not np.array_equal(fingerprint(z_events, tmp_path, channel, **other), unchanged[channel])
