"""The three channels in plain Python and NumPy, event by event from the text of the physics; slow, to be read.

It shares no arithmetic with the kernels: payloads are evaluated from their documents (reference_payloads), cells are
filled by boost-histogram, and every variation has its own weight (reference_variations).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import awkward as ak
import hist
import numpy as np
from reference_payloads import (
    Efficiency,
    Prefire,
    Recoil,
    Resolution,
    Response,
    Scale,
    Table,
    normal,
)

from binworks.corrections.sets import CorrectionSet

Channel = Literal["w_mass", "z_wlike", "z_dilepton"]
PROMPT, FROM_TAU, HARD, LAST_COPY = 1, 1 << 5, 1 << 7, 1 << 13
MUON_MASS = 0.1056583755
FILTERS = ("Flag_goodVertices", "Flag_HBHENoiseFilter", "Flag_BadPFMuonFilter")
STEPS = ("reco", "tracking", "idip", "trigger", "iso")
PTLL_EDGES = [*range(31), 32, 34, 36, 40, 45, 50, 60, 80, 100]
MATRIX_ELEMENT = ("MEParamWeight", "MEParamWeightAltSet1", "MEParamWeightAltSet4")


def histograms(channel: Channel) -> dict[str, hist.Hist]:
    """Return the channel's empty histograms by name."""

    def regular(name: str, bins: int, low: float, high: float) -> Any:
        return hist.axis.Regular(bins, low, high, name=name, flow=False)

    def variable(name: str, edges: Any) -> Any:
        return hist.axis.Variable(edges, name=name, flow=False)

    eta, charge = regular("eta", 48, -2.4, 2.4), regular("charge", 2, -2, 2)
    axes = {
        "w_mass": {
            "nominal": [eta, regular("pt", 30, 26, 56), charge, variable("mt", [0, 20, 40, np.inf]),
                        variable("relIso", [0, 0.15, np.inf])]
        },
        "z_wlike": {"nominal": [eta, regular("pt", 34, 26, 60), charge]},
        "z_dilepton": {
            "mll": [regular("mll", 25, 60, 120), regular("forward_eta", 14, 0, 2.4)],
            "ptll": [variable("ptll", PTLL_EDGES), regular("absyll", 20, 0, 2.5)],
        },
    }  # fmt: skip
    return {name: hist.Hist(*its, storage=hist.storage.Weight()) for name, its in axes[channel].items()}


def dphi(a: float, b: float) -> float:
    return float((a - b + np.pi) % (2 * np.pi) - np.pi)


def near(eta1: float, phi1: float, eta2: float, phi2: float) -> bool:
    return bool(np.hypot(eta1 - eta2, dphi(phi1, phi2)) < 0.3)


def transverse(pt: float, phi: float) -> complex:
    return complex(pt * np.cos(phi), pt * np.sin(phi))


def momentum(pt: float, eta: float, phi: float, mass: float) -> Any:
    """Return (px, py, pz, energy)."""
    x, y, z = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return np.array([x, y, z, np.sqrt(x**2 + y**2 + z**2 + mass**2)])


def invariant_mass(p: Any) -> float:
    return float(np.sqrt(max(p[3] ** 2 - p[0] ** 2 - p[1] ** 2 - p[2] ** 2, 0.0)))


def boosted(p: Any, frame: Any) -> Any:
    """Return the momentum in the rest frame of another one."""
    mass = invariant_mass(frame)
    energy = (p[3] * frame[3] - p[:3] @ frame[:3]) / mass
    along = (p[3] + energy) / (frame[3] + mass)
    return np.array([*(p[:3] - along * frame[:3]), energy])


def collins_soper(particle: Any, antiparticle: Any) -> tuple[float, float]:
    """Return cos(theta) and phi of the particle; z along the boson's longitudinal direction, x along its pT."""
    boson = particle + antiparticle
    sign = 1.0 if boson[2] >= 0 else -1.0
    beams = [boosted(np.array([0, 0, way * sign, 1.0]), boson)[:3] for way in (1, -1)]
    beams = [beam / np.linalg.norm(beam) for beam in beams]
    z = beams[0] - beams[1]
    z /= np.linalg.norm(z)
    y = -np.cross(beams[0], beams[1])
    y /= np.linalg.norm(y)
    x = np.cross(y, z)
    direction = boosted(particle, boson)[:3]
    direction /= np.linalg.norm(direction)
    return float(direction @ z), float(np.arctan2(direction @ y, direction @ x))


def harmonics(cosine: float, phi: float) -> Any:
    """Return the nine angular functions, unpolarised first."""
    sine = np.sqrt(1 - cosine**2)
    return np.array([
        1 + cosine**2,
        (1 - 3 * cosine**2) / 2,
        2 * sine * cosine * np.cos(phi),
        sine**2 * np.cos(2 * phi) / 2,
        sine * np.cos(phi),
        cosine,
        sine**2 * np.sin(2 * phi),
        2 * sine * cosine * np.sin(phi),
        sine * np.sin(phi),
    ])  # fmt: skip


@dataclass
class Muon:
    """A muon with corrected momentum; ``stored`` is its transverse momentum as in the file."""

    index: int
    pt: float
    eta: float
    phi: float
    charge: float
    stored: complex
    iso: float
    match: dict[str, float] | None = None

    @property
    def corrected(self) -> complex:
        return transverse(self.pt, self.phi)


@dataclass
class Boson:
    """The vector boson before radiation; a mass of zero says that there is none."""

    mass: float
    absy: float
    qt: float
    phi: float
    charge: int
    angles: tuple[float, float] | None
    radiated: float

    @property
    def place(self) -> dict[str, Any]:
        return {"mass": self.mass, "absy": self.absy, "qt": self.qt, "charge": self.charge}


@dataclass
class Factor:
    """One efficiency factor of a muon, with all that is needed to vary it."""

    step: str
    place: tuple[int, int]
    pt: float
    ut: float
    fails: bool
    value: float


@dataclass
class Event:
    """A selected event: its coordinates in each histogram, and what its weight and their variations are made of."""

    row: int
    cells: dict[str, tuple[float, ...]]
    muons: list[Muon]
    boson: Boson | None = None
    mt: float = 0.0
    weight: float = 1.0
    efficiencies: list[Factor] = field(default_factory=list)
    prefire: list[tuple[int, float]] = field(default_factory=list)


class Reference:
    """One channel's events of one sample.

    Parameters
    ----------
    nano : mapping
        Branches; collections are mappings of jagged arrays.
    corrections : CorrectionSet
        With all payloads.
    """

    def __init__(
        self,
        nano: Mapping[str, Any],
        corrections: CorrectionSet,
        channel: Channel = "w_mass",
        *,
        is_data: bool = False,
        boson: Literal["W", "Z"] | None = "W",
        prompt: bool = True,
    ) -> None:
        self.nano = {
            name: {key: ak.to_list(values) for key, values in branch.items()}
            if isinstance(branch, dict)
            else ak.to_list(branch)
            for name, branch in nano.items()
        }
        self.channel, self.is_data = channel, is_data
        self.boson, self.prompt = (None, False) if is_data else (boson, prompt)
        self.kind = "data" if is_data else "mc"
        self.documents = {
            name: corrections.payload(name, entry.kind)
            for name, entry in corrections.manifest.payloads.items()
        }
        tables = ("pileup", "vertex", "pixel_hits", "theory", "ew", "angular")
        self.tables = {name: Table(self.documents[name]) for name in tables}
        self.efficiency = {
            step: Efficiency(self.documents[f"efficiency_{step}"]) for step in (*STEPS, "veto")
        }
        self.prefire = Prefire(self.documents["prefire"])
        self.scale = Scale(self.documents["momentum_scale"], self.kind)
        self.resolution = Resolution(self.documents["resolution"])
        self.response = Response(self.documents["response"])
        self.recoil = Recoil(self.documents["recoil"])
        self.odd: list[int] = []

    def fill(self, ratio: Any = 1.0, name: str = "nominal") -> hist.Hist:
        """Return a histogram of the events, each with its weight times the ratio (a number, or one an event)."""
        h = histograms(self.channel)[name]
        if self.events:
            cells = np.array([event.cells[name] for event in self.events]).T
            h.fill(*cells, weight=self.weights * ratio)
        return h

    @cached_property
    def weights(self) -> Any:
        return np.array([event.weight for event in self.events])

    @cached_property
    def events(self) -> list[Event]:
        """The selected events; those with a number that is not finite are rows of ``odd`` instead."""
        found = []
        with np.errstate(all="ignore"):
            for row in range(len(self.nano["run"])):
                event = self._event(row)
                if event is not None:
                    found.append(event)
        return found

    def branch(self, name: str, row: int) -> Any:
        """Return a branch's entry in double precision, none where the file does not have it."""
        return np.asarray(self.nano[name][row], dtype=float) if name in self.nano else None

    def table(self, name: str, row: int) -> dict[str, Any]:
        """Return an event's collection: column -> numbers."""
        return {key: np.asarray(values[row], dtype=float) for key, values in self.nano[name].items()}

    def _event(self, row: int) -> Event | None:
        if not self.is_data and not np.isfinite(self.nano["genWeight"][row]):
            self.odd.append(row)
            return None
        if not self._triggered(row):
            return None
        muons = self._corrected_muons(row)
        if not np.isfinite([(muon.pt, muon.eta, muon.phi) for muon in muons]).all():
            self.odd.append(row)
            return None
        event = self._select(row, muons)
        if event is None:
            return None
        if not self.is_data:
            self._weigh(event, muons)
        numbers = [event.weight, event.mt, *np.concatenate(list(event.cells.values()))]
        if self.boson:
            names = ("LHEPdfWeight", *MATRIX_ELEMENT)
            numbers += [number for name in names if name in self.nano for number in self.branch(name, row)]
        if not np.isfinite(numbers).all():
            self.odd.append(row)
            return None
        return event

    # Muons

    def _corrected_muons(self, row: int) -> list[Muon]:
        """Return all muons of the event: refit, then calibrated, then (simulation) smeared."""
        columns = self.table("Muon", row)
        refit = "cvh" if self.is_data else "cvhideal"
        measured = [
            columns.get(f"{refit}{name.capitalize()}", columns[name])
            for name in ("pt", "eta", "phi", "charge")
        ]
        muons = []
        for m, (pt, eta, phi, charge) in enumerate(zip(*measured, strict=True)):
            stored = transverse(pt, phi)
            pt, eta, phi, charge = self._refitted(row, m, pt, eta, phi, charge)
            pt = self.scale.corrected(pt, eta, charge)
            if not self.is_data:
                key = (int(self.nano[name][row]) for name in ("run", "luminosityBlock", "event"))
                pt = self.resolution.smeared(pt, eta, normal(*key, m))
            muons.append(Muon(m, pt, eta, phi, charge, stored, columns["pfRelIso04_all"][m]))
        return muons

    def _refitted(
        self, row: int, m: int, pt: float, eta: float, phi: float, charge: float
    ) -> tuple[float, float, float, float]:
        """Add J x, x the global parameters that the muon's track depends on, to (q/p, lambda, phi)."""
        if "Muon_cvhJacRef_Vals" not in self.nano:
            return pt, eta, phi, charge
        counts = self.nano["Muon"]["cvhmergedGlobalIdxs_Counts"][row]
        first, size = int(sum(counts[:m])), int(counts[m])
        if size == 0:
            return pt, eta, phi, charge
        places = np.asarray(self.nano["Muon_cvhmergedGlobalIdxs_Vals"][row])[first : first + size]
        jacobian = self.branch("Muon_cvhJacRef_Vals", row)[3 * first : 3 * (first + size)].reshape(3, size)
        change = jacobian @ np.array(self.documents["cvh"][self.kind])[places]
        curvature = charge / (pt * np.cosh(eta)) + change[0]
        slope = np.arctan(np.sinh(eta)) + change[1]
        pt = abs(1 / curvature) * np.cos(slope)
        return pt, np.arcsinh(np.tan(slope)), phi + change[2], float(np.sign(curvature))

    def _veto_muons(self, row: int, muons: list[Muon]) -> list[Muon]:
        mu = self.table("Muon", row)
        found = []
        for muon in muons:
            m = muon.index
            identified = mu["looseId"][m] and mu["isGlobal"][m] and mu["highPurity"][m]
            kinematic = abs(mu["dxybs"][m]) < 0.05 and muon.pt > 15 and abs(muon.eta) < 2.4
            alone = mu["standalonePt"][m] > 15 and mu["standaloneNumberOfValidHits"][m] >= 1
            close = near(mu["standaloneEta"][m], mu["standalonePhi"][m], muon.eta, muon.phi)
            if identified and kinematic and alone and close:
                found.append(muon)
        return found

    # Selection

    def _triggered(self, row: int) -> bool:
        triggered = self.nano["HLT_IsoMu24"][row] or self.nano["HLT_IsoTkMu24"][row]
        return bool(triggered and all(self.nano[name][row] for name in FILTERS))

    def _select(self, row: int, muons: list[Muon]) -> Event | None:
        """Return the event without its weight, if it is selected."""
        chosen = self._veto_muons(row, muons)
        pair = self.channel != "w_mass"
        medium = self.nano["Muon"]["mediumId"][row]
        if len(chosen) != (2 if pair else 1):
            return None
        if not all(medium[muon.index] and 26 < muon.pt < (60 if pair else 56) for muon in chosen):
            return None
        if self._has_electron(row):
            return None
        for muon in chosen:
            muon.match = self._match(row, muon)
        if self.prompt and any(muon.match is None for muon in chosen):
            return None
        boson = self._boson(row) if self.boson else None
        if pair:
            return self._pair(row, chosen, boson)
        (muon,) = chosen
        if not self._fires(row, muon):
            return None
        mt = self._transverse_mass(row, muon, [muon], boson)
        cell = (muon.eta, muon.pt, muon.charge, mt, max(muon.iso, 0.0))
        return Event(row, {"nominal": cell}, [muon], boson, mt)

    def _pair(self, row: int, pair: list[Muon], boson: Boson | None) -> Event | None:
        """Return the event of two good muons; the muon that is kept, or that triggered, comes first."""
        plus, minus = sorted(pair, key=lambda muon: -muon.charge)
        if plus.charge == minus.charge or any(not muon.iso < 0.15 for muon in pair):
            return None
        total = sum(momentum(muon.pt, muon.eta, muon.phi, MUON_MASS) for muon in pair)
        mass = invariant_mass(total)
        if not 60 < mass < 120:
            return None
        if self.channel == "z_dilepton":
            if not self._fires(row, plus):
                plus, minus = minus, plus
            if not self._fires(row, plus):
                return None
            forward = max(abs(muon.eta) for muon in pair)
            rapidity = abs(np.arctanh(total[2] / total[3]))
            cells = {"mll": (mass, forward), "ptll": (float(np.hypot(total[0], total[1])), rapidity)}
            return Event(row, cells, [plus, minus], boson)
        kept, other = (plus, minus) if int(self.nano["event"][row]) % 2 else (minus, plus)
        if not self._fires(row, kept):
            return None
        mt = self._transverse_mass(row, kept, [kept, other], boson)
        if mt <= 45:
            return None
        return Event(row, {"nominal": (kept.eta, kept.pt, kept.charge)}, [kept, other], boson, mt)

    def _transverse_mass(self, row: int, kept: Muon, muons: list[Muon], boson: Boson | None) -> float:
        """Return mT of the kept muon with the corrected missing momentum, to which the other muons are added."""
        missing = transverse(float(self.nano["MET_pt"][row]), float(self.nano["MET_phi"][row]))
        missing -= sum(muon.corrected - muon.stored for muon in muons)
        visible = sum(muon.corrected for muon in muons)
        if boson is not None and boson.mass > 0:
            direction = transverse(1.0, boson.phi)
            u = -(missing + visible) / direction
            along, across = self.recoil.morphed(boson.qt, u.real, u.imag)
            missing = -complex(along, across) * direction - visible
        missing += visible - kept.corrected
        angle = np.angle(missing) - kept.phi
        return float(np.sqrt(max(2 * kept.pt * abs(missing) * (1 - np.cos(angle)), 0)))

    def _has_electron(self, row: int) -> bool:
        e = self.table("Electron", row)
        passing = (e["pt"] > 10) & (abs(e["eta"]) < 2.4) & (e["cutBased"] >= 1) & (abs(e["dxy"]) < 0.05)
        return bool((passing & (abs(e["dz"]) < 0.2)).any())

    def _fires(self, row: int, muon: Muon) -> bool:
        objects = self.table("TrigObj", row)
        return any(
            objects["id"][t] == 13
            and int(objects["filterBits"][t]) & 48
            and near(objects["eta"][t], objects["phi"][t], muon.eta, muon.phi)
            for t in range(len(objects["id"]))
        )

    # Generator

    def _generated(self, row: int) -> list[dict[str, float]]:
        gen = self.table("GenPart", row)
        return [dict(zip(gen, values, strict=True)) for values in zip(*gen.values(), strict=True)]

    def _final_muons(self, row: int) -> list[dict[str, float]]:
        return [p for p in self._generated(row) if abs(p["pdgId"]) == 13 and is_final(p)]

    def _match(self, row: int, muon: Muon) -> dict[str, float] | None:
        if not self.prompt:
            return None
        found = [(np.hypot(p["eta"] - muon.eta, dphi(p["phi"], muon.phi)), p) for p in self._final_muons(row)]
        found = sorted((pair for pair in found if pair[0] < 0.3), key=lambda pair: pair[0])
        return found[0][1] if found else None

    def _boson(self, row: int) -> Boson:
        particles = self._generated(row)
        hard = [p for p in particles if 11 <= abs(p["pdgId"]) <= 16 and int(p["statusFlags"]) & HARD][:2]
        if len(hard) == 2:
            total = sum(four(p) for p in hard)
            charge = int(sum(-np.sign(p["pdgId"]) for p in hard if abs(p["pdgId"]) % 2))
        else:
            copies = [
                p for p in particles if abs(p["pdgId"]) in (23, 24) and int(p["statusFlags"]) & LAST_COPY
            ]
            if not copies:
                return Boson(0.0, 0.0, 0.0, 0.0, 0, None, 0.0)
            total = four(copies[-1])
            charge = 0 if abs(copies[-1]["pdgId"]) == 23 else int(np.sign(copies[-1]["pdgId"]))
        mass, angles, radiated = invariant_mass(total), None, 0.0
        if len(hard) == 2 and hard[0]["pdgId"] * hard[1]["pdgId"] < 0:
            antiparticle, particle = sorted(hard, key=lambda p: p["pdgId"])
            angles = collins_soper(four(particle), four(antiparticle))
            radiated = self._radiated(particles, mass)
        return Boson(
            mass,
            abs(np.arctanh(total[2] / total[3])),
            float(np.hypot(total[0], total[1])),
            float(np.arctan2(total[1], total[0])),
            charge,
            angles,
            radiated,
        )

    @staticmethod
    def _radiated(particles: list[dict[str, float]], mass: float) -> float:
        """Return 1 - m_after / m_before, m_after of the hardest final lepton and antilepton."""
        final = [p for p in particles if 11 <= abs(p["pdgId"]) <= 16 and is_final(p)]
        sides = [[p for p in final if p["pdgId"] * way > 0] for way in (1, -1)]
        if not all(sides):
            return 0.0
        after = sum(four(max(side, key=lambda p: p["pt"])) for side in sides)
        return float(np.clip(1 - invariant_mass(after) / mass, 0, 1))

    # Weights

    def _weigh(self, event: Event, muons: list[Muon]) -> None:
        """Set the event's weight and note its factors."""
        row, boson = event.row, event.boson
        n_true = float(self.nano["Pileup_nTrueInt"][row])
        vertex = float(self.nano["GenVtx_z"][row]) if "GenVtx_z" in self.nano else 0.0
        event.weight = float(np.sign(self.nano["genWeight"][row]))
        event.weight *= self.pileup(row, "nominal")
        event.weight *= self.tables["vertex"](z=vertex, nTrueInt=n_true)
        if "L1PreFiringWeight_ECAL_Nom" in self.nano:
            event.weight *= float(self.nano["L1PreFiringWeight_ECAL_Nom"][row])
        if self.boson and "LHEPdfWeight" in self.nano:
            event.weight *= self.branch("LHEPdfWeight", row)[0]
        if boson is not None and boson.mass > 0:
            event.weight *= self.tables["theory"](**boson.place, variation="nominal")
            event.weight *= self.electroweak(boson, "nominal")
        for muon in muons:
            if self.nano["Muon"]["looseId"][row][muon.index]:
                region, probability = self.prefire.probability(muon.pt, muon.eta, muon.phi)
                event.weight *= 1 - probability
                if region is not None:
                    event.prefire.append((region, probability))
        event.efficiencies = self._efficiencies(event)
        for factor in event.efficiencies:
            event.weight *= factor.value

    def pileup(self, row: int, variation: str) -> float:
        n_true = float(self.nano["Pileup_nTrueInt"][row])
        return min(self.tables["pileup"](nTrueInt=n_true, variation=variation), 5.0)

    def electroweak(self, boson: Boson, variation: str) -> float:
        place = {"mass": boson.mass, "charge": boson.charge, "radiated": boson.radiated}
        return self.tables["ew"](**place, variation=variation)

    def _efficiencies(self, event: Event) -> list[Factor]:
        """Return the factors of the steps, of the first muon only for the trigger; and of a lost second muon."""
        found = []
        for i, muon in enumerate(event.muons):
            boson = event.boson
            ut = boson.qt * np.cos(boson.phi - muon.phi) if boson is not None and boson.mass > 0 else 0.0
            fails = self.channel == "w_mass" and not muon.iso < 0.15
            found += [
                self._factor(step, muon.eta, muon.charge, muon.pt, ut, step == "iso" and fails)
                for step in STEPS
                if i == 0 or step != "trigger"
            ]
        if self.channel == "w_mass" and self.boson == "Z" and event.muons[0].match is not None:
            match = event.muons[0].match
            lost = [p for p in self._final_muons(event.row) if p["pdgId"] * match["pdgId"] < 0]
            lost = [p for p in lost if p["pt"] > 15 and abs(p["eta"]) < 2.4]
            if lost:
                p = max(lost, key=lambda p: p["pt"])
                found.append(self._factor("veto", p["eta"], -np.sign(p["pdgId"]), p["pt"], 0.0, fails=True))
        return found

    def _factor(self, step: str, eta: float, charge: float, pt: float, ut: float, fails: bool) -> Factor:
        efficiency = self.efficiency[step]
        place = efficiency.place(eta, charge)
        value = efficiency.factor(efficiency.coefficients[place], place, pt, ut, fails=fails)
        return Factor(step, place, pt, ut, fails, value)


def is_final(p: Mapping[str, float]) -> bool:
    """Whether the generated particle is stable, and prompt or from a prompt tau."""
    return p["status"] == 1 and bool(int(p["statusFlags"]) & (PROMPT | FROM_TAU))


def four(p: Mapping[str, float]) -> Any:
    return momentum(p["pt"], p["eta"], p["phi"], p["mass"])
