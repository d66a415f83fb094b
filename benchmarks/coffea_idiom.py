"""The usual way: NanoEvents, an awkward selection, and one `hist.fill` for each variation (21 masses and 60 PDFs)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import awkward as ak
import hist
import numpy as np
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory


def run(path: Path, events: int) -> hist.Hist:
    """Fill the nominal and each variation; return the nominal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = NanoEventsFactory.from_root(
            {str(path): "Events"}, schemaclass=NanoAODSchema, entry_stop=events, mode="virtual"
        ).events()
        return _fill(batch)


def _empty() -> hist.Hist:
    return hist.Hist(
        hist.axis.Regular(48, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Regular(30, 26, 56, name="pt", flow=False),
        hist.axis.Regular(2, -2, 2, name="charge", flow=False),
        hist.axis.Variable([0, 20, 40, np.inf], name="mt", flow=False),
        hist.axis.Variable([0, 0.15, np.inf], name="relIso", flow=False),
        storage=hist.storage.Weight(),
    )


def _fill(events: Any) -> hist.Hist:
    muons = events.Muon
    veto = muons[
        muons.looseId & muons.isGlobal & (abs(muons.dxybs) < 0.05) & (muons.pt > 15) & (abs(muons.eta) < 2.4)
    ]
    chosen = (events.HLT.IsoMu24 | events.HLT.IsoTkMu24) & (ak.num(veto) == 1)
    chosen = chosen & ak.fill_none(ak.firsts(veto.mediumId & (veto.pt > 26) & (veto.pt < 56)), False)
    muon, events = veto[chosen][:, 0], events[chosen]
    met, phi = events.DeepMETPVRobust.pt, events.DeepMETPVRobust.phi
    mt = np.sqrt(2 * muon.pt * met * (1 - np.cos(phi - muon.phi)))
    cells = [ak.to_numpy(x) for x in (muon.eta, muon.pt, muon.charge, mt, muon.vtxAgnPfRelIso04_all)]
    pdf = ak.to_numpy(events.LHEPdfWeight)
    mass = ak.to_numpy(events.MEParamWeight)
    weight = np.sign(ak.to_numpy(events.genWeight)) * pdf[:, 0]
    nominal = _empty().fill(*cells, weight=weight)
    ratios = [
        *(mass[:, j] for j in range(mass.shape[1])),
        *(pdf[:, j] / pdf[:, 0] for j in range(1, pdf.shape[1])),
    ]
    for ratio in ratios:
        _empty().fill(*cells, weight=weight * ratio)
    return nominal
