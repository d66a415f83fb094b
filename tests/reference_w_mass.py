"""The W channel in plain Python and NumPy, event by event from the text of the physics contract; slow, to be read.

It shares no arithmetic with the kernels: payloads are evaluated from their documents (lookup tables by correctionlib),
cells are filled by boost-histogram, and every variation is filled by brute force with its own weight.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import correctionlib
import hist
import numpy as np

from binworks.corrections.sets import CorrectionSet

PROMPT, FROM_TAU, HARD = 1, 1 << 5, 1 << 7
FILTERS = ("Flag_goodVertices", "Flag_HBHENoiseFilter", "Flag_BadPFMuonFilter")


def histogram() -> hist.Hist:
    return hist.Hist(
        hist.axis.Regular(48, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Regular(30, 26, 56, name="pt", flow=False),
        hist.axis.Regular(2, -2, 2, name="charge", flow=False),
        hist.axis.Variable([0, 20, 40, np.inf], name="mt", flow=False),
        hist.axis.Variable([0, 0.15, np.inf], name="relIso", flow=False),
        storage=hist.storage.Weight(),
    )


def dphi(a: float, b: float) -> float:
    return float((a - b + np.pi) % (2 * np.pi) - np.pi)


def near(eta1: float, phi1: float, eta2: float, phi2: float) -> bool:
    return bool(np.hypot(eta1 - eta2, dphi(phi1, phi2)) < 0.3)


class Reference:
    """Evaluates one sample's events."""

    def __init__(self, corrections: CorrectionSet, *, is_data: bool, boson: str | None) -> None:
        self.is_data, self.boson = is_data, boson
        scale = corrections.payload("momentum_scale", "momentum_scale")
        self.scale = scale["data" if is_data else "mc"]
        self.scale_covariance = np.array(scale["covariance"])
        self.width = corrections.payload("resolution", "resolution")["mc"]
        self.idip = corrections.payload("efficiency_idip", "efficiency")
        theory = corrections.payload("theory", "correctionlib")["corrections"][0]["data"]
        self.theory_names = [item["key"] for item in theory["content"]]
        self.tables = {
            name: correctionlib.CorrectionSet.from_string(
                json.dumps(corrections.payload(name, "correctionlib"))
            )[name]
            for name in ("pileup", "theory")
        }

    def selected(self, events: dict[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield (event, its muon's quantities) of the selected events."""
        for i in range(len(events["run"])):
            muon = self._select(events, i)
            if muon is not None:
                yield i, muon

    def _select(self, events: dict[str, Any], i: int) -> dict[str, float] | None:
        if not (events["HLT_IsoMu24"][i] or events["HLT_IsoTkMu24"][i]) or not all(
            events[f][i] for f in FILTERS
        ):
            return None
        mu = {name: np.asarray(values[i], dtype=float) for name, values in events["Muon"].items()}
        veto = []
        for m in range(len(mu["pt"])):
            pt = self._corrected(mu["pt"][m], mu["eta"][m], mu["charge"][m])
            identified = mu["looseId"][m] and mu["isGlobal"][m] and mu["highPurity"][m]
            kinematic = abs(mu["dxybs"][m]) < 0.05 and pt > 15 and abs(mu["eta"][m]) < 2.4
            alone = mu["standalonePt"][m] > 15 and mu["standaloneNumberOfValidHits"][m] >= 1
            close = near(mu["standaloneEta"][m], mu["standalonePhi"][m], mu["eta"][m], mu["phi"][m])
            if identified and kinematic and alone and close:
                veto.append((m, pt))
        if len(veto) != 1:
            return None
        m, pt = veto[0]
        eta, phi = mu["eta"][m], mu["phi"][m]
        if not mu["mediumId"][m] or not 26 < pt < 56 or self._electron(events, i):
            return None
        trigger = {name: np.asarray(values[i], dtype=float) for name, values in events["TrigObj"].items()}
        if not any(
            trigger["id"][t] == 13
            and int(trigger["filterBits"][t]) & 48
            and near(trigger["eta"][t], trigger["phi"][t], eta, phi)
            for t in range(len(trigger["id"]))
        ):
            return None
        match = self._match(events, i, eta, phi)
        if not self.is_data and match is None:
            return None
        met = events["MET_pt"][i].astype(float) * np.exp(1j * events["MET_phi"][i].astype(float))
        met -= (pt - mu["pt"][m]) * np.exp(1j * phi)
        mt = np.sqrt(max(2 * pt * abs(met) * (1 - np.cos(np.angle(met) - phi)), 0))
        return {
            "eta": eta, "pt": pt, "charge": mu["charge"][m], "mt": mt, "relIso": mu["pfRelIso04_all"][m],
            "match_pt": match[0] if match else np.nan, "match_eta": match[1] if match else np.nan,
        }  # fmt: skip

    def _corrected(self, pt: float, eta: float, charge: float) -> float:
        if not -2.4 <= eta < 2.4:
            return pt
        b = int((eta + 2.4) / 4.8 * 48)
        k = 1 / pt
        return 1 / (k * (1 + self.scale["A"][b] - self.scale["e"][b] * k + charge * self.scale["M"][b] / k))

    def _electron(self, events: dict[str, Any], i: int) -> bool:
        e = {name: np.asarray(values[i], dtype=float) for name, values in events["Electron"].items()}
        passing = (e["pt"] > 10) & (abs(e["eta"]) < 2.4) & (e["cutBased"] >= 1) & (abs(e["dxy"]) < 0.05)
        return bool((passing & (abs(e["dz"]) < 0.2)).any())

    def _match(self, events: dict[str, Any], i: int, eta: float, phi: float) -> tuple[float, float] | None:
        if self.is_data:
            return None
        gen = {name: np.asarray(values[i], dtype=float) for name, values in events["GenPart"].items()}
        found = []
        for g in range(len(gen["pt"])):
            wanted = (
                abs(gen["pdgId"][g]) == 13
                and gen["status"][g] == 1
                and int(gen["statusFlags"][g]) & (PROMPT | FROM_TAU)
            )
            distance = np.hypot(gen["eta"][g] - eta, dphi(gen["phi"][g], phi))
            if wanted and distance < 0.3:
                found.append((distance, gen["pt"][g], gen["eta"][g]))
        return min(found)[1:] if found else None

    def boson_kinematics(self, events: dict[str, Any], i: int) -> tuple[float, float, float, int]:
        gen = {name: np.asarray(values[i], dtype=float) for name, values in events["GenPart"].items()}
        hard = [g for g in range(len(gen["pt"])) if int(gen["statusFlags"][g]) & HARD]
        px = sum(gen["pt"][g] * np.cos(gen["phi"][g]) for g in hard)
        py = sum(gen["pt"][g] * np.sin(gen["phi"][g]) for g in hard)
        pz = sum(gen["pt"][g] * np.sinh(gen["eta"][g]) for g in hard)
        energy = sum(np.hypot(gen["pt"][g] * np.cosh(gen["eta"][g]), gen["mass"][g]) for g in hard)
        charge = sum(-np.sign(gen["pdgId"][g]) for g in hard if abs(gen["pdgId"][g]) in (11, 13, 15))
        return (
            np.sqrt(energy**2 - px**2 - py**2 - pz**2),
            abs(np.arctanh(pz / energy)),
            np.hypot(px, py),
            int(charge),
        )

    def factors(self, events: dict[str, Any], i: int, muon: dict[str, float]) -> dict[str, Any]:
        """Return each factor of the event's weight, and what its variations need."""
        eta_bin, charge_bin = int((muon["eta"] + 2.4) / 4.8 * 48), int(muon["charge"] > 0)
        low, high = self.idip["pt_range"]
        x = np.clip(2 * (muon["pt"] - low) / (high - low) - 1, -1, 1)
        factor = np.polynomial.polynomial.polyval(x, self.idip["coefficients"][eta_bin][charge_bin])
        n_true = float(events["Pileup_nTrueInt"][i])
        found = {
            "sign": np.sign(events["genWeight"][i]),
            "idip": factor,
            "idip terms": x ** np.arange(4) / factor,
            "pileup": {
                v: min(self.tables["pileup"].evaluate(n_true, v), 5.0) for v in ("nominal", "up", "down")
            },
            "block": (eta_bin, charge_bin),
            "score": self._score(muon, eta_bin // 2),
        }
        if self.boson is not None:
            kinematics = self.boson_kinematics(events, i)
            found["theory"] = {v: self.tables["theory"].evaluate(*kinematics, v) for v in self.theory_names}
            found["pdf"] = np.asarray(events["LHEPdfWeight"][i], dtype=float)
        return found

    def _score(self, muon: dict[str, float], b: int) -> float:
        """Return d ln p / ds by a central difference of the Gaussian core, clipped at 5 sigma as documented."""
        k = 1 / muon["match_pt"]
        a, bb, c, d = (self.width[name][b] for name in "abcd")
        sigma = np.sqrt(a**2 + (c / k) ** 2 + bb**2 / (1 + (d * k) ** 2))
        r = muon["match_pt"] * np.cosh(muon["match_eta"]) / (muon["pt"] * np.cosh(muon["eta"]))
        r = np.clip(r, 1 - 5 * sigma, 1 + 5 * sigma)
        return float(r * (r - 1) / sigma**2 - 1)
