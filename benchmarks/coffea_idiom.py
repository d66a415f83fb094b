"""The usual way: NanoEvents, an awkward selection, and for each variation one array of weights and one `hist.fill`.

It comes in two forms. As it is written in tutorials and in the Analysis Grand Challenge, one histogram has a category
axis that grows with each variation. Tuned, each variation has a histogram of its own, which stays in the cache.

Both are favoured where one has to choose: the events' cells and factors that a correction gives are computed once,
and a variation is one line of NumPy on the selected events.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import hist
import numpy as np
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from numpy.typing import NDArray

Array = NDArray[Any]
STORED: Mapping[str, str] = {
    "pdf": "LHEPdfWeight",
    "mass": "MEParamWeight",
    "width_W": "MEParamWeightAltSet1",
}
"""Groups whose weights are in the file; those of the others follow from tables and formulas."""


def opened(path: Path, start: int, stop: int) -> Any:
    """Return a range of the file as NanoEvents."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NanoEventsFactory.from_root(
            {str(path): "Events"},
            schemaclass=NanoAODSchema,
            entry_start=start,
            entry_stop=stop,
            mode="virtual",
        ).events()


def chosen(events: Any) -> Any:
    """Return which events are selected."""
    veto = _veto_muons(events)
    good = ak.fill_none(ak.firsts(veto.mediumId & (veto.pt > 26) & (veto.pt < 56)), False)
    return (events.HLT.IsoMu24 | events.HLT.IsoTkMu24) & (ak.num(veto) == 1) & good


def run(path: Path, start: int, stop: int, groups: Mapping[str, Mapping[str, Any]], *, growing: bool) -> int:
    """Fill the nominal and each variation of a range; return the number of histograms or categories.

    Parameters
    ----------
    path, start, stop
        The events.
    groups : mapping
        By name, the ``templates`` of a variation group, and ``own`` if a template changes only events in its own (eta,
        charge) bin.
    growing : bool
        Whether one histogram grows, or each variation has its own.
    """
    events = opened(path, start, stop)
    events = events[chosen(events)]
    muon = _veto_muons(events)[:, 0]
    met, phi = events.DeepMETPVRobust.pt, events.DeepMETPVRobust.phi
    mt = np.sqrt(2 * muon.pt * met * (1 - np.cos(phi - muon.phi)))
    cells = [ak.to_numpy(x) for x in (muon.eta, muon.pt, muon.charge, mt, muon.vtxAgnPfRelIso04_all)]
    weight = np.sign(ak.to_numpy(events.genWeight)) * ak.to_numpy(events.LHEPdfWeight[:, 0])
    factors = {
        f"{name}{i}": factor
        for name, group in groups.items()
        for i, factor in enumerate(_factors(name, group["templates"], group["own"], events, cells))
    }
    if not growing:
        own = {"nominal": _histogram(hist.storage.Weight()).fill(*cells, weight=weight)}
        for name, factor in factors.items():
            own[name] = _histogram(hist.storage.Double()).fill(*cells, weight=weight * factor())
        return len(own)
    one = _histogram(hist.storage.Weight(), hist.axis.StrCategory([], growth=True, name="variation"))
    one.fill(*cells, "nominal", weight=weight)
    for name, factor in factors.items():
        one.fill(*cells, name, weight=weight * factor())
    return len(one.axes["variation"])


def _factors(
    name: str, templates: int, own: bool, events: Any, cells: list[Array]
) -> Iterator[Callable[[], Array]]:
    """Give for each template what computes its factor, shape (selected events,)."""
    eta, pt, charge = cells[:3]
    if name in STORED:
        block = ak.to_numpy(events[STORED[name]])
        for i in range(templates):
            yield lambda i=i: block[:, i] / block[:, 0] if name == "pdf" else block[:, i]  # type: ignore[misc]
    elif own:
        place = 2 * np.clip(((eta + 2.4) * 10).astype(np.int64), 0, 47) + (charge > 0)
        for i in range(templates):
            yield lambda i=i: np.where(place == i % 96, 1 + 1e-4 * pt, 1.0)  # type: ignore[misc]
    else:
        for i in range(templates):
            yield lambda i=i: 1 + (1e-5 * i) * pt  # type: ignore[misc]


def _veto_muons(events: Any) -> Any:
    muons = events.Muon
    return muons[
        muons.looseId & muons.isGlobal & (abs(muons.dxybs) < 0.05) & (muons.pt > 15) & (abs(muons.eta) < 2.4)
    ]


def _histogram(storage: Any, *more: Any) -> hist.Hist:
    return hist.Hist(
        hist.axis.Regular(48, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Regular(30, 26, 56, name="pt", flow=False),
        hist.axis.Regular(2, -2, 2, name="charge", flow=False),
        hist.axis.Variable([0, 20, 40, np.inf], name="mt", flow=False),
        hist.axis.Variable([0, 0.15, np.inf], name="relIso", flow=False),
        *more,
        storage=storage,
    )
