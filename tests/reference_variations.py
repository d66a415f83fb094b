"""Every named variation by brute force: what each event's weight is multiplied by, worked out from its definition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from reference_payloads import bin_of, eigen_shifts, poisson_counts
from reference_physics import STEPS, Boson, Event, Factor, Reference, harmonics

QT_GROUPS = [0, 3, 5, 7, 9, 11, 14, 18, 23, 30, 40, np.inf]
SIGNS = ("minus", "plus")
POLES = {"W": (80.379, 2.085), "Z": (91.1876, 2.4941)}
EVENT_GROUPS = ("prefire", "pileup")
MUON_GROUPS = (
    *(f"efficiency_{step}" for step in STEPS), "efficiency_systematics", "momentum_scale", "z_closure",
    "calibration_mz", "resolution", "pixel_hits",
)  # fmt: skip
BOSON_GROUPS = {
    "W": ("pdf", "theory", "ew", "mass", "width_W"),
    "Z": ("pdf", "theory", "ew", "mass_Z", "width_Z", "sin2theta"),
}

Ratios = dict[str, Any]
"""Template name -> what the weight of each event is multiplied by, shape (events,)."""


def groups_of(reference: Reference) -> tuple[str, ...]:
    """Return the groups that vary the sample in its channel."""
    if reference.is_data:
        return ()
    found = [*EVENT_GROUPS, *MUON_GROUPS, *BOSON_GROUPS.get(reference.boson or "", ())]
    if reference.boson == measured(reference):
        found.append("angular")
    elif reference.boson == "Z":
        found += ["veto_stat", "veto_systematics"]
    return tuple(found)


def measured(reference: Reference) -> str:
    """Return the boson that the channel is about."""
    return "W" if reference.channel == "w_mass" else "Z"


def ratios_of(reference: Reference, group: str) -> Ratios:
    """Return the group's templates as ratios to the nominal weight, event by event."""
    if group.startswith("efficiency_") and group != "efficiency_systematics":
        return statistical(reference, group.removeprefix("efficiency_"), "effStat_{step}")
    made = {
        "efficiency_systematics": lambda: alternatives(reference, STEPS, "effSyst_{step}_"),
        "veto_stat": lambda: statistical(reference, "veto", "vetoStat"),
        "veto_systematics": lambda: alternatives(reference, ("veto",), "vetoSyst_"),
        "momentum_scale": lambda: scale(reference, reference.documents["momentum_scale"], "muonScaleStat"),
        "z_closure": lambda: scale(reference, reference.documents["z_closure"], "zClosure"),
        "calibration_mz": lambda: z_mass_in_calibration(reference),
        "resolution": lambda: resolution(reference),
        "pixel_hits": lambda: pixel_hits(reference),
        "prefire": lambda: prefire(reference),
        "pileup": lambda: pileup(reference),
        "pdf": lambda: pdf(reference),
        "angular": lambda: angular(reference),
        "theory": lambda: theory(reference),
        "ew": lambda: electroweak(reference),
        "mass": lambda: mass(reference),
        "mass_Z": lambda: mass(reference),
        "width_W": lambda: steps(reference, "MEParamWeightAltSet1", "widthW"),
        "width_Z": lambda: steps(reference, "MEParamWeightAltSet1", "widthZ"),
        "sin2theta": lambda: steps(reference, "MEParamWeightAltSet4", "sin2thetaZ"),
    }
    return made[group]()


def ones(reference: Reference, names: Iterable[str]) -> Ratios:
    return {name: np.ones(len(reference.events)) for name in names}


def by_event(names: Sequence[str], rows: Sequence[Any]) -> Ratios:
    """Turn one row of ratios an event into one column a template."""
    return dict(zip(names, np.reshape(rows, (-1, len(names))).T, strict=True))


def clipped(ratio: Any) -> Any:
    return np.clip(ratio, -10.0, 10.0)


def symmetrised(pairs: Ratios, averaged: Sequence[str] = ()) -> Ratios:
    """Add average (nominal + half the difference) and mean of each pair NameUp, NameDown that is not averaged."""
    found = dict(pairs)
    for up in pairs:
        name = up.removesuffix("Up")
        if up.endswith("Up") and f"{name}Down" in pairs and name not in averaged:
            found[f"{name}SymAvg"] = 1 + (pairs[up] - pairs[f"{name}Down"]) / 2
            found[f"{name}SymDiff"] = (pairs[up] + pairs[f"{name}Down"]) / 2
    return found


# Efficiencies


def shifted(reference: Reference, factor: Factor, row: Any) -> float:
    """Return the factor with other coefficients, over the nominal one."""
    efficiency = reference.efficiency[factor.step]
    return efficiency.factor(row, factor.place, factor.pt, factor.ut, fails=factor.fails) / factor.value


def of_step(event: Event, step: str) -> list[Factor]:
    return [factor for factor in event.efficiencies if factor.step == step]


def statistical(reference: Reference, step: str, prefix: str) -> Ratios:
    """Shift the coefficients of one eta bin and charge along one eigenvector; a product over the event's muons."""
    efficiency = reference.efficiency[step]
    bins, charges, n, _ = efficiency.shifts.shape
    prefix = prefix.format(step=step)

    def name(eta: int, charge: int, j: int) -> str:
        return f"{prefix}_eta{eta}_{SIGNS[charge]}_{j}" if charges == 2 else f"{prefix}_eta{eta}_{j}"

    found = ones(reference, (name(*place) for place in np.ndindex(bins, charges, n)))
    for i, event in enumerate(reference.events):
        for factor in of_step(event, step):
            for j, shift in enumerate(efficiency.shifts[factor.place]):
                row = efficiency.coefficients[factor.place] + shift
                found[name(*factor.place, j)][i] *= shifted(reference, factor, row)
    return found


def both_in_one_bin(reference: Reference, step: str) -> Ratios:
    """Return the part of `statistical` that is of second order: two muons that share a factor's eta bin and charge."""
    efficiency = reference.efficiency[step]
    found: Ratios = {}
    for i, event in enumerate(reference.events):
        factors = of_step(event, step)
        if len(factors) == 2 and factors[0].place == factors[1].place:
            eta = factors[0].place[0]
            for j, shift in enumerate(efficiency.shifts[factors[0].place]):
                row = efficiency.coefficients[factors[0].place] + shift
                product = np.prod([shifted(reference, factor, row) - 1 for factor in factors])
                found.setdefault(f"effStat_{step}_eta{eta}_{j}", np.zeros(len(reference.events)))[i] = product
    return found


def alternatives(reference: Reference, steps: Sequence[str], prefix: str) -> Ratios:
    """Replace the coefficients by alternative ones, in one eta bin or in all; a product over the event's muons."""
    found: Ratios = {}
    for step in steps:
        efficiency = reference.efficiency[step]
        for alternative, rows in efficiency.alternatives.items():
            start = f"{prefix.format(step=step)}{alternative}"
            places = [*(f"eta{e}" for e in range(len(rows))), "all"]
            found |= ones(reference, (f"{start}_{place}" for place in places))
            for i, event in enumerate(reference.events):
                for factor in of_step(event, step):
                    ratio = shifted(reference, factor, rows[factor.place])
                    found[f"{start}_eta{factor.place[0]}"][i] *= ratio
                    found[f"{start}_all"][i] *= ratio
    return found


# Momentum: the weight is 1 + (change of scale or variance) x (derivative of ln p), summed over the muons


def scores(reference: Reference, event: Event) -> Iterable[tuple[float, float, float, float, float]]:
    """Yield eta, charge, k = 1/pT and the two scores of each muon that has a match."""
    for muon in event.muons:
        if muon.match is not None:
            pt, eta = muon.match["pt"], muon.match["eta"]
            charge = float(-np.sign(muon.match["pdgId"]))
            r = (muon.charge / (muon.pt * np.cosh(muon.eta))) / (charge / (pt * np.cosh(eta)))
            yield muon.eta, muon.charge, 1 / muon.pt, *reference.response.scores(pt, eta, charge, r)


def linear(
    reference: Reference, names: Sequence[str], edges: Sequence[float], changes: Any, kind: str
) -> Ratios:
    """Sum over muons the score times a change that is linear in three parameters of the muon's eta bin.

    ``changes`` has shape (names, 3, bins): shifts of (A, e, M) or of (a^2, c^2, b^2).
    """
    rows = []
    for event in reference.events:
        row = np.ones(len(names))
        for eta, charge, k, scale_score, width_score in scores(reference, event):
            b = bin_of(eta, edges)
            first, second, third = changes[:, :, b].T
            if kind == "scale":
                row += scale_score * (first - second * k + charge * third / k)
            else:
                d = reference.documents["resolution"]["data"]["d"][b]
                row += width_score * (first + second / k**2 + third / (1 + d**2 * k**2))
        rows.append(row)
    return by_event(names, rows)


def scale(reference: Reference, document: Any, prefix: str) -> Ratios:
    changes = eigen_shifts(document["covariance"])
    names = [f"{prefix}{i}" for i in range(len(changes))]
    return linear(reference, names, document["eta_edges"], changes.reshape(len(names), 3, -1), "scale")


def z_mass_in_calibration(reference: Reference) -> Ratios:
    document = reference.documents["z_closure"]
    changes = np.zeros((1, 3, 24))
    changes[:, 0] = document["mz_shift"]
    return linear(reference, ["muonScaleMZ"], document["eta_edges"], changes, "scale")


def resolution(reference: Reference) -> Ratios:
    document = reference.documents["resolution"]
    changes = eigen_shifts(document["covariance"])
    names = [f"muonResolution{i}" for i in range(len(changes))]
    return linear(reference, names, document["eta_edges"], changes.reshape(len(names), 3, -1), "width")


# Muons, otherwise


def pixel_hits(reference: Reference) -> Ratios:
    """Multiply by the muon's ratio, in one eta bin or in all; muons whose hits are not known stay as they are."""
    found = ones(reference, [*(f"pixelHits_eta{e}" for e in range(48)), "pixelHits_all"])
    known = "cvhNValidPixelHits" in reference.nano["Muon"]
    for i, event in enumerate(reference.events):
        for muon in event.muons if known else ():
            hits = float(reference.nano["Muon"]["cvhNValidPixelHits"][event.row][muon.index])
            if hits >= 0:
                ratio = reference.tables["pixel_hits"](eta=muon.eta, hits=hits)
                found[f"pixelHits_eta{bin_of(muon.eta, reference.scale.edges)}"][i] *= ratio
                found["pixelHits_all"][i] *= ratio
    return found


def prefire(reference: Reference) -> Ratios:
    """Vary the plateau of one region, of the hot spot, of all together; and the factor of the ECAL."""
    sources = [
        *(f"muonPrefireStat{b}" for b in range(11)),
        "muonPrefireHotSpot",
        "muonPrefireSyst",
        "ecalPrefire",
    ]
    found = ones(reference, [f"{source}{way}" for source in sources for way in ("Up", "Down")])
    common = reference.documents["prefire"]["systematic"]
    for i, event in enumerate(reference.events):
        for region, probability in event.prefire:
            for source, relative in (
                (sources[region], reference.prefire.uncertainty(region)),
                ("muonPrefireSyst", common),
            ):
                for way, sign in (("Up", 1), ("Down", -1)):
                    varied = 1 - probability * (1 + sign * relative)
                    found[f"{source}{way}"][i] *= varied / (1 - probability)
        if "L1PreFiringWeight_ECAL_Nom" in reference.nano:
            nominal, up, down = (
                float(reference.nano[f"L1PreFiringWeight_ECAL_{name}"][event.row])
                for name in ("Nom", "Up", "Dn")
            )
            found["ecalPrefireUp"][i], found["ecalPrefireDown"][i] = (
                clipped(up / nominal),
                clipped(down / nominal),
            )
    return found


# The event


def pileup(reference: Reference) -> Ratios:
    names = ("nominal", "up", "down")
    rows = [[reference.pileup(event.row, name) for name in names] for event in reference.events]
    nominal, up, down = np.reshape(rows, (-1, 3)).T
    return {"pileupUp": up / nominal, "pileupDown": down / nominal}


def bootstrap(reference: Reference, replicas: int) -> Ratios:
    """Return how often each replica has the event."""
    keys = [
        [int(reference.nano[name][event.row]) for name in ("run", "luminosityBlock", "event")]
        for event in reference.events
    ]
    return by_event(
        [f"bootstrap{i}" for i in range(replicas)], [poisson_counts(*key, replicas) for key in keys]
    )


def pdf(reference: Reference) -> Ratios:
    members = np.array([reference.branch("LHEPdfWeight", event.row) for event in reference.events])
    pairs = (members.shape[1] - 3) // 2
    names = [f"pdf{i + 1}{way}" for i in range(pairs) for way in ("Up", "Down")]
    names += ["pdfAlphaSUp", "pdfAlphaSDown"]
    return symmetrised(by_event(names, clipped(members[:, 1:] / members[:, :1])))


def angular(reference: Reference) -> Ratios:
    """Vary one coefficient in one group of the boson's qT; the parton shower varies all.

    The templates of a W are by the charge of its muon, as measured.
    """
    charges = [f"{sign}_" for sign in SIGNS] if reference.boson == "W" else [""]
    places = [f"{charge}qt{t}_A{h}" for charge in charges for t in range(11) for h in range(8)]
    found = ones(reference, [f"angular_{place}{way}" for place in places for way in ("Up", "Down")])
    found |= ones(reference, ["angularShowerUp", "angularShowerDown"])
    for i, event in enumerate(reference.events):
        boson = event.boson
        if boson is None or boson.angles is None:
            continue
        charge = "" if reference.boson == "Z" else f"{SIGNS[int(event.muons[0].charge > 0)]}_"
        place = f"angular_{charge}qt{bin_of(boson.qt, QT_GROUPS)}"
        nominal = coefficients(reference, boson, "nominal")
        shapes = harmonics(*boson.angles)
        for way in ("Up", "Down"):
            varied = coefficients(reference, boson, f"scale{way}")
            for h in range(8):
                ratio = 1 + (varied[h + 1] - nominal[h + 1]) * shapes[h + 1] / (nominal @ shapes)
                found[f"{place}_A{h}{way}"][i] = clipped(ratio)
            shower = coefficients(reference, boson, f"shower{way}")
            found[f"angularShower{way}"][i] = clipped(shower @ shapes / (nominal @ shapes))
    return symmetrised(found, averaged=["angularShower"])


def coefficients(reference: Reference, boson: Boson, variation: str) -> Any:
    place = {"absy": boson.absy, "qt": boson.qt, "charge": boson.charge, "variation": variation}
    return np.array([reference.tables["angular"](**place, helicity=h) for h in range(-1, 8)])


def names_of(reference: Reference, table: str) -> list[str]:
    """Return the table's variations; in the Z channels only those that differ from nominal at charge 0."""
    content = {
        item["key"]: item["value"] for item in reference.documents[table]["corrections"][0]["data"]["content"]
    }
    nominal = content.pop("nominal")

    def at_zero(node: Any) -> Any:
        return next(item["value"] for item in node["content"] if item["key"] == 0)

    return [
        name
        for name, node in content.items()
        if measured(reference) == "W" or at_zero(node) != at_zero(nominal)
    ]


def theory(reference: Reference) -> Ratios:
    names, table = names_of(reference, "theory"), reference.tables["theory"]
    rows = []
    for event in reference.events:
        boson = event.boson
        if boson is None or boson.mass == 0:
            rows.append(np.ones(len(names)))
            continue
        nominal = table(**boson.place, variation="nominal")
        rows.append([clipped(table(**boson.place, variation=name) / nominal) for name in names])
    averaged = [name.removesuffix("Up") for name in names if name.startswith("resumTNP")]
    return symmetrised(by_event(names, rows), averaged)


def electroweak(reference: Reference) -> Ratios:
    names = names_of(reference, "ew")
    rows = []
    for event in reference.events:
        boson = event.boson
        if boson is None or boson.mass == 0:
            rows.append(np.ones(len(names)))
            continue
        nominal = reference.electroweak(boson, "nominal")
        rows.append([clipped(reference.electroweak(boson, name) / nominal) for name in names])
    return by_event(names, rows)


def way_of(step: float) -> str:
    return "Up" if step > 0 else "Down" if step < 0 else ""


def mass(reference: Reference) -> Ratios:
    """Return the file's weights, or ratios of running-width Breit-Wigners; for a Z in the W channel 2.1 MeV too."""
    boson = reference.boson or "W"
    shifts = range(-100, 101, 10)
    names = [f"massShift{boson}{abs(shift)}MeV{way_of(shift)}" for shift in shifts]
    if "MEParamWeight" in reference.nano:
        rows = [reference.branch("MEParamWeight", event.row) for event in reference.events]
    else:
        rows = [[breit_wigners(event.boson, boson, shift) for shift in shifts] for event in reference.events]
    found = by_event(names, rows)
    if boson == "Z" and reference.channel == "w_mass":
        for way in ("Up", "Down"):
            found[f"massShiftZ2p1MeV{way}"] = 1 + 0.21 * (found[f"massShiftZ10MeV{way}"] - 1)
    return found


def breit_wigners(boson: Boson | None, kind: str, shift: float) -> float:
    if boson is None or boson.mass == 0:
        return 1.0
    pole, width = POLES[kind]

    def running(pole: float) -> float:
        s = boson.mass**2
        return 1 / ((s - pole**2) ** 2 + s**2 * width**2 / pole**2)

    return running(pole + shift / 1000) / running(pole)


def steps(reference: Reference, branch: str, prefix: str) -> Ratios:
    """Return the file's weights, symmetric about no shift."""
    rows = [reference.branch(branch, event.row) for event in reference.events]
    half = (len(reference.nano[branch][0]) - 1) // 2
    names = [f"{prefix}{abs(step)}{way_of(step)}" for step in range(-half, half + 1)]
    return by_event(names, rows)
