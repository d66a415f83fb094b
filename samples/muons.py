"""Reconstructed muons: tracks, momenta, identification, trigger and isolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from binworks.samples.arrays import Array, Bools, Float64, Int64, Jagged, group_by_event
from binworks.samples.efficiency import EfficiencyCurve
from binworks.samples.events import FROM_TAU, NONPROMPT, Events
from binworks.samples.kinematics import wrapped
from binworks.samples.momentum import distorted, smeared
from binworks.samples.pixel_hits import PixelHitCounts
from binworks.samples.truth import STEPS, Truth

MAX_ETA, SOFTEST = 2.4, 3.0
ISOLATION = 0.15
VETO_PT = 15.0
MUON_MASS = 0.1056584
PRIVATE = ("iso_trigger", "tk_trigger", "hard")
"""Which paths a muon fired, and whether it belongs to the hard collision."""

_SOFT_SHARE = 0.03
_ANGLE = 2e-4


@dataclass(frozen=True)
class _Tracks:
    """Muons in a flat list; momenta in GeV. ``ideal_pt`` is measured without the data's distortion."""

    event: Int64
    eta_bin: Int64
    charge: Array
    origin: Array
    eta: Float64
    phi: Float64
    ut: Float64
    ideal_pt: Float64
    pt: Float64

    def __len__(self) -> int:
        return len(self.event)


class MuonSystem:
    """Reconstructs muons with the truth's parameters for data or for simulation."""

    def __init__(self, truth: Truth, *, is_data: bool) -> None:
        self._truth = truth
        self._resolution = truth.resolution[truth.kind("resolution", is_data=is_data)]
        self._distorts = is_data and truth.has("momentum_scale")
        self._curves: Mapping[str, EfficiencyCurve] = {
            step: EfficiencyCurve(truth.efficiency[step], scaled=is_data and truth.has(f"efficiency_{step}"))
            for step in STEPS
        }
        self._hits = PixelHitCounts(truth.pixel_hits[truth.kind("pixel_hits", is_data=is_data)])

    def reconstruct(self, events: Events, rng: np.random.Generator) -> Jagged:
        """Return the events' muons, highest pT first, with NanoAOD's fields and the detector's own (`PRIVATE`)."""
        tracks = self._tracks(events, rng)
        passed = {step: self._passes(step, tracks, rng) for step in STEPS[1:]}
        heavy = tracks.origin == NONPROMPT
        isolated = np.where(heavy, rng.random(len(tracks)) < self._nonprompt_isolated(tracks), passed["iso"])
        share = np.where(heavy & ~isolated, self._truth.nonprompt.triggered, 1.0)
        fired = passed["reco"] & passed["idip"] & passed["trigger"] & (rng.random(len(tracks)) < share)
        tracker_path = fired & (rng.random(len(tracks)) < 0.92)
        fields = {
            "pt": tracks.pt,
            "eta": tracks.eta,
            "phi": tracks.phi,
            "mass": np.full(len(tracks), MUON_MASS),
            "charge": tracks.charge.astype(np.int32),
            **_impact(tracks, rng),
            **_isolation(isolated, rng),
            "looseId": np.ones(len(tracks), np.bool_),
            "mediumId": passed["idip"],
            "isGlobal": passed["reco"],
            "highPurity": np.ones(len(tracks), np.bool_),
            **_standalone(tracks, passed["reco"], rng),
            "iso_trigger": fired & (~tracker_path | (rng.random(len(tracks)) < 0.92)),
            "tk_trigger": tracker_path,
            "hard": np.ones(len(tracks), np.bool_),
        }
        soft_event, soft = _soft_muons(len(events), rng)
        event = np.concatenate([tracks.event, soft_event])
        merged = {name: np.concatenate([content, soft[name]]) for name, content in fields.items()}
        merged["cvhNValidPixelHits"] = self._hits.draw(eta_bins(merged["eta"]), rng)
        return group_by_event(event, len(events), merged, descending="pt")

    def _tracks(self, events: Events, rng: np.random.Generator) -> _Tracks:
        """Measure the muons whose track is found."""
        source, event = events.muons, events.muons.event
        eta = source["eta"] + _ANGLE * rng.standard_normal(len(event))
        eta_bin = eta_bins(eta)
        # where there is no boson simulation cannot know uT, and data are what the correction makes of it
        ut = np.where(events.boson_mass[event] > 0, _along(events.recoiling[event], source["phi"]), 0.0)
        seen = (np.abs(eta) < MAX_ETA) & (source["pt"] > SOFTEST)
        found = self._curves["tracking"](source["pt"], eta_bin, source["charge"], ut)
        keep = np.flatnonzero(seen & (rng.random(len(event)) < found))
        charge, eta_bin = source["charge"][keep], eta_bin[keep]
        ideal = smeared(1 / source["pt"][keep], eta_bin, self._resolution, rng)
        k = distorted(ideal, eta_bin, charge, self._truth.momentum_scale) if self._distorts else ideal
        phi = wrapped(source["phi"][keep] + _ANGLE * rng.standard_normal(len(keep)))
        origin = source["origin"][keep]
        return _Tracks(event[keep], eta_bin, charge, origin, eta[keep], phi, ut[keep], 1 / ideal, 1 / k)

    def _nonprompt_isolated(self, tracks: _Tracks) -> Float64 | float:
        """Return how often a muon from a heavy quark is isolated: those that are have the scale factors of all."""
        share, curve = self._truth.nonprompt.isolated, self._curves["iso"]
        if not curve.scaled:
            return share
        return share * curve.scale_factor(tracks.ideal_pt, tracks.eta_bin, tracks.charge, tracks.ut)

    def _passes(self, step: str, tracks: _Tracks, rng: np.random.Generator) -> Bools:
        probability = self._curves[step](tracks.ideal_pt, tracks.eta_bin, tracks.charge, tracks.ut)
        return rng.random(len(tracks)) < probability


def eta_bins(eta: Float64) -> Int64:
    """Return the places in the 48 bins of eta; beyond them the nearest."""
    return np.clip(np.floor((eta + MAX_ETA) * 10).astype(np.int64), 0, 47)


def _along(vector: Float64, phi: Float64) -> Float64:
    """Return the component of transverse vectors (m, 2) in a direction."""
    result: Float64 = vector[:, 0] * np.cos(phi) + vector[:, 1] * np.sin(phi)
    return result


def _impact(tracks: _Tracks, rng: np.random.Generator) -> dict[str, Float64]:
    """Return impact parameters (cm): to the vertex, and to the beam line."""
    flight = np.where(tracks.origin == NONPROMPT, 0.012, np.where(tracks.origin == FROM_TAU, 0.004, 0.0))
    displaced = flight * rng.exponential(1.0, len(tracks)) * np.sign(rng.random(len(tracks)) - 0.5)
    dxy = displaced + (0.0012 + 0.01 / tracks.pt) * rng.standard_normal(len(tracks))
    return {"dxy": dxy, "dxybs": dxy + 0.001 * rng.standard_normal(len(tracks))}


def _isolation(isolated: Bools, rng: np.random.Generator) -> dict[str, Float64]:
    """Return relative isolations: those below the threshold fall towards it, the others fall from it."""
    n = len(isolated)
    inside = ISOLATION * np.minimum(rng.random(n), rng.random(n))
    inside[rng.random(n) < 0.3] = 0.0
    value = np.where(isolated, inside, ISOLATION * 1.0001 + rng.exponential(0.35, n))
    return {
        "vtxAgnPfRelIso04_all": value,
        "pfRelIso04_all": value * np.exp(0.1 * rng.standard_normal(n)),
    }


def _standalone(tracks: _Tracks, found: Bools, rng: np.random.Generator) -> dict[str, Array]:
    """Return the track of the muon chambers alone, where there is one.

    It is never so soft that the veto loses a muon on its account: the veto's efficiency is that of track and chambers.
    """
    n = len(tracks)
    angle = 0.015 * rng.standard_normal((2, n))
    pt = tracks.pt * np.exp(0.12 * rng.standard_normal(n))
    return {
        "standalonePt": np.where(found, np.maximum(pt, np.minimum(tracks.pt, 1.01 * VETO_PT)), -1.0),
        "standaloneEta": np.where(found, tracks.eta + angle[0], -10.0),
        "standalonePhi": np.where(found, wrapped(tracks.phi + angle[1]), -10.0),
        "standaloneNumberOfValidHits": np.where(found, rng.integers(8, 46, n), 0).astype(np.int32),
    }


def _soft_muons(n: int, rng: np.random.Generator) -> tuple[Int64, dict[str, Array]]:
    """Return the events and fields of muons from pile-up and kaons: soft, and seldom of good quality."""
    event = np.flatnonzero(rng.random(n) < _SOFT_SHARE)
    m = len(event)
    pt, eta, phi = SOFTEST + rng.exponential(1.8, m), rng.uniform(-2.4, 2.4, m), rng.uniform(-np.pi, np.pi, m)
    through, medium, pure = rng.random((3, m)) < np.array([[0.5], [0.3], [0.9]])
    never = np.zeros(m, np.bool_)
    isolation = ISOLATION + rng.exponential(1.0, m)
    return event, {
        "pt": pt,
        "eta": eta,
        "phi": phi,
        "mass": np.full(m, MUON_MASS),
        "charge": (2 * rng.integers(0, 2, m) - 1).astype(np.int32),
        "dxy": 0.03 * rng.standard_normal(m),
        "dxybs": 0.03 * rng.standard_normal(m),
        "vtxAgnPfRelIso04_all": isolation,
        "pfRelIso04_all": isolation,
        "looseId": rng.random(m) < 0.8,
        "mediumId": medium,
        "isGlobal": through,
        "highPurity": pure,
        "standalonePt": np.where(through, pt * np.exp(0.2 * rng.standard_normal(m)), -1.0),
        "standaloneEta": np.where(through, eta, -10.0),
        "standalonePhi": np.where(through, phi, -10.0),
        "standaloneNumberOfValidHits": np.where(through, 12, 0).astype(np.int32),
        "iso_trigger": never,
        "tk_trigger": never,
        "hard": never,
    }
