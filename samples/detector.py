"""The parametric detector: from events to NanoAOD's branches, with the truth's parameters.

Each effect is in a module of its own: `muons` (with `momentum`, `efficiency` and `pixel_hits`), `refit`, `recoil`,
`conditions`, `prefire`.
"""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Bools, Column, Float64, Int64, Jagged, group_by_event, take_column
from binworks.samples.conditions import Conditions, draw_conditions
from binworks.samples.events import Events
from binworks.samples.muons import PRIVATE, VETO_PT, MuonSystem
from binworks.samples.prefire import ecal_probability, ecal_weights, muon_probability
from binworks.samples.recoil import missing_momentum
from binworks.samples.refit import refit
from binworks.samples.truth import Truth

FLAGS = (
    "globalSuperTightHalo2016Filter",
    "EcalDeadCellTriggerPrimitiveFilter",
    "goodVertices",
    "HBHENoiseIsoFilter",
    "HBHENoiseFilter",
    "BadPFMuonFilter",
)
ISO_MU, ISO_TK_MU, SINGLE_MU = 1 << 4, 1 << 5, 1 << 3
"""Filter bits of trigger objects: those of 2016, and that of other years."""

_ELECTRON_MASS = 0.000511
_FLAG_FAILS = 1e-4
_ELECTRON_FOUND, _ELECTRON_FAKED = 0.85, 0.003


class Detector:
    """Turns events into what a file holds.

    Parameters
    ----------
    truth : Truth
        All parameters.
    is_data : bool
        Whether the effects in which data differ apply; data hold triggered events only, and no generator's branches.
    """

    def __init__(self, truth: Truth, *, is_data: bool) -> None:
        self._truth, self._is_data = truth, is_data
        self._muons = MuonSystem(truth, is_data=is_data)

    def measure(self, events: Events, rng: np.random.Generator) -> tuple[Int64, dict[str, Column]]:
        """Return which events were recorded, and their branches; a collection's fields are those of a `Jagged`."""
        truth, is_data, n = self._truth, self._is_data, len(events)
        conditions = draw_conditions(
            n,
            truth.pileup[truth.kind("pileup", is_data=is_data)],
            truth.vertex[truth.kind("vertex", is_data=is_data)],
            rng,
        )
        muons, lists = self._refitted(self._muons.reconstruct(events, rng))
        visible = events.other + _sum_of(muons)
        estimators = truth.recoil[truth.kind("recoil", is_data=is_data)]
        missing = missing_momentum(events, visible, conditions.n_true, estimators, truth.recoil["mc"], rng)
        electrons = _electrons(events, rng)
        branches: dict[str, Column] = {
            "PV_npvsGood": conditions.n_vertices,
            **_vertex("PV", conditions.measured),
            **_missing_branches(missing),
            **{f"Flag_{flag}": rng.random(n) >= _FLAG_FAILS for flag in FLAGS},
            **_trigger(muons, electrons),
            "Electron": electrons,
            "Muon": _without(muons, *PRIVATE),
            **lists,
        }
        if is_data:
            keep = np.flatnonzero(self._kept(branches, muons, rng))
            return keep, {name: take_column(column, keep) for name, column in branches.items()}
        return np.arange(n), {**branches, **self._simulated(conditions, rng), **events.branches}

    def _refitted(self, muons: Jagged) -> tuple[Jagged, dict[str, Column]]:
        """Return the muons, refitted where that is an effect, and the refit's branches that are no muon's fields."""
        if not self._truth.has("cvh"):
            return muons, {}
        x = np.asarray(self._truth.cvh)
        return refit(muons, x if self._is_data else 0 * x, "cvh" if self._is_data else "cvhideal")

    def _kept(self, branches: dict[str, Column], muons: Jagged, rng: np.random.Generator) -> Bools:
        """Whether an event of data was recorded."""
        fired: Bools = np.asarray(branches["HLT_IsoMu24"]) | np.asarray(branches["HLT_IsoTkMu24"])
        if self._truth.has("prefire"):
            truth, n = self._truth.prefire, len(fired)
            fired &= rng.random(n) >= ecal_probability(n, truth, rng)
            fired &= rng.random(n) >= muon_probability(muons, truth)
        return fired

    def _simulated(self, conditions: Conditions, rng: np.random.Generator) -> dict[str, Column]:
        """Return what only simulation knows of its crossing; no prefiring in data, no weight for it."""
        truth, n = self._truth.prefire, len(conditions.n_true)
        probability = ecal_probability(n, truth, rng) if self._truth.has("prefire") else np.zeros(n)
        return {
            "Pileup_nTrueInt": conditions.n_true,
            **_vertex("GenVtx", conditions.generated),
            **ecal_weights(probability, truth),
        }


def _vertex(name: str, position: Float64) -> dict[str, Column]:
    return {f"{name}_{axis}": position[:, i] for i, axis in enumerate("xyz")}


def _sum_of(muons: Jagged) -> Float64:
    """Return the transverse momentum of each event's muons, shape (n, 2).

    A muon that the veto does not see is missed here, too, for whatever reason it is not seen: so what balances the
    missing momentum and the muons that one counts is the recoil, and one factor describes all muons that are lost.
    """
    event, n = muons.event, len(muons.counts)
    pt = muons.fields.get("cvhPt", muons["pt"])  # of data's refit; simulation's is the same
    phi = muons.fields.get("cvhPhi", muons["phi"])
    pt = pt * (muons["hard"] & muons["isGlobal"] & (pt > VETO_PT))
    weights = pt * np.cos(phi), pt * np.sin(phi)
    return np.stack([np.bincount(event, weight, minlength=n) for weight in weights], axis=1)


def _missing_branches(missing: dict[str, Float64]) -> dict[str, Column]:
    branches: dict[str, Column] = {}
    for name, vector in missing.items():
        branches[f"{name}_pt"] = np.hypot(vector[:, 0], vector[:, 1])
        branches[f"{name}_phi"] = np.arctan2(vector[:, 1], vector[:, 0])
    return branches


def _electrons(events: Events, rng: np.random.Generator) -> Jagged:
    """Return found electrons and a few that are jets."""
    source, n = events.electrons, len(events)
    seen = (
        (np.abs(source["eta"]) < 2.5) & (source["pt"] > 5) & (rng.random(len(source["pt"])) < _ELECTRON_FOUND)
    )
    real = np.flatnonzero(seen)
    fake = np.flatnonzero(rng.random(n) < _ELECTRON_FAKED)
    m, total = len(fake), len(fake) + len(real)
    fields = {
        "pt": np.concatenate(
            [source["pt"][real] * (1 + 0.02 * rng.standard_normal(len(real))), 5 + rng.exponential(8, m)]
        ),
        "eta": np.concatenate([source["eta"][real], rng.uniform(-2.5, 2.5, m)]),
        "phi": np.concatenate([source["phi"][real], rng.uniform(-np.pi, np.pi, m)]),
        "mass": np.full(total, _ELECTRON_MASS),
        "charge": (2 * rng.integers(0, 2, total) - 1).astype(np.int32),
        "dxy": 0.01 * rng.standard_normal(total),
        "dz": 0.03 * rng.standard_normal(total),
        "cutBased": np.concatenate([rng.integers(1, 5, len(real)), rng.integers(0, 3, m)]).astype(np.int32),
    }
    return group_by_event(np.concatenate([source.event[real], fake]), n, fields, descending="pt")


def _trigger(muons: Jagged, electrons: Jagged) -> dict[str, Column]:
    """Return the paths' decisions and the trigger's objects: the muons that fired, and the electrons."""
    n, event = len(muons.counts), muons.event
    iso, tracker = muons["iso_trigger"], muons["tk_trigger"]
    fired = np.flatnonzero(iso | tracker)
    bits = ISO_MU * iso[fired] + ISO_TK_MU * tracker[fired] + SINGLE_MU
    parts = (
        (event[fired], muons, fired, np.full(len(fired), 13), bits),
        (electrons.event, electrons, slice(None), np.full(len(electrons.event), 11), 0 * electrons.event + 1),
    )
    fields = {
        name: np.concatenate([source[name][chosen] for _, source, chosen, _, _ in parts])
        for name in ("pt", "eta", "phi")
    }
    fields["id"] = np.concatenate([identity for _, _, _, identity, _ in parts]).astype(np.int32)
    fields["filterBits"] = np.concatenate([b for *_, b in parts]).astype(np.int32)
    objects = group_by_event(np.concatenate([e for e, *_ in parts]), n, fields, descending="pt")
    return {
        "HLT_IsoMu24": np.bincount(event[iso], minlength=n) > 0,
        "HLT_IsoTkMu24": np.bincount(event[tracker], minlength=n) > 0,
        "TrigObj": objects,
    }


def _without(collection: Jagged, *names: str) -> Jagged:
    return Jagged(collection.counts, {k: v for k, v in collection.fields.items() if k not in names})
