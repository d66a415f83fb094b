"""Muons from heavy quarks, parametric: Pythia's QCD is too slow by orders of magnitude for so rare an event.

A falling spectrum in pT, flat in eta; a jet recoils against the muon and its neutrino. The detector makes most of them
non-isolated and displaced.
"""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Column, Int64, Jagged
from binworks.samples.events import NONPROMPT, Events
from binworks.samples.genpart import IS_FIRST_COPY, IS_LAST_COPY
from binworks.samples.truth import Nonprompt

_MAX_ETA = 2.5


def draw_nonprompt(n: int, truth: Nonprompt, rng: np.random.Generator, *, branches: bool) -> Events:
    """Draw n events with one muon each; ``branches`` as in `binworks.samples.simulation.simulate`."""
    pt = truth.threshold + rng.exponential(truth.pt_slope, n)
    eta, phi = rng.uniform(-_MAX_ETA, _MAX_ETA, n), rng.uniform(-np.pi, np.pi, n)
    charge = 2 * rng.integers(0, 2, n) - 1
    one = np.ones(n, np.int64)
    along = pt + rng.exponential(truth.neutrino_slope, n)
    recoiling = along[:, None] * np.stack([np.cos(phi), np.sin(phi)], axis=1)
    muon = {"pt": pt, "eta": eta, "phi": phi, "charge": charge, "origin": np.full(n, NONPROMPT)}
    nothing = np.zeros(0)
    return Events(
        boson_charge=np.zeros(n, np.int8),
        boson_mass=np.zeros(n),
        boson_rapidity=np.zeros(n),
        recoiling=recoiling,
        other=truth.imbalance * rng.standard_normal((n, 2)),
        muons=Jagged(one, muon),
        electrons=Jagged(0 * one, {"pt": nothing, "eta": nothing, "phi": nothing}),
        branches=_branches(Jagged(one, muon)) if branches else {},
    )


def _branches(muons: Jagged) -> dict[str, Column]:
    """Return the generator's branches: the muon itself; there is no matrix element to weigh."""
    n = len(muons.counts)
    charge: Int64 = muons["charge"]
    flags = np.full(n, IS_FIRST_COPY | IS_LAST_COPY, np.int32)
    fields = {
        **{name: muons[name] for name in ("pt", "eta", "phi")},
        "mass": np.zeros(n),
        "pdgId": (-13 * charge).astype(np.int32),
        "status": np.ones(n, np.int32),
        "statusFlags": flags,
        "genPartIdxMother": np.full(n, -1, np.int32),
    }
    return {"GenPart": Jagged(muons.counts, fields)}
