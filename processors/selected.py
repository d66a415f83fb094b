"""The events that a channel keeps: which they are, and their muons, as arrays with one entry an event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.processors.columns import Columns
from binworks.processors.muons import Muons
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.axes import ETA_BINS, ETA_HIGH, ETA_LOW, ISO_EDGES
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin

Array = NDArray[Any]

ISOLATED = ISO_EDGES[1]
CUTS = (
    "cut/1 trigger", "cut/2 MET filters", "cut/3 veto muons", "cut/4 good muons", "cut/5 no veto electron",
    "cut/6 trigger match", "cut/7 generator match",
)  # fmt: skip
TRIGGER, FILTERS, VETO_MUONS, GOOD_MUONS, NO_ELECTRON, TRIGGER_MATCH, GENERATOR_MATCH = CUTS
ODD_KINEMATICS, ODD_WEIGHT, ODD_GENERATOR = (
    f"odd/{what} not finite" for what in ("kinematics", "weight", "generator")
)
COUNTS = ("entries", "sum_sign", *CUTS, "selected", ODD_KINEMATICS, ODD_WEIGHT, ODD_GENERATOR)


class Leg(NamedTuple):
    """One selected muon of each event.

    Parameters
    ----------
    place : array of int
        Where it stands among the range's muons.
    match : array of int
        Its generated muon; -1 if none is asked for.
    pt, eta, phi : arrays
        Corrected; GeV.
    charge : array of int
        -1 or +1.
    eta_bin, charge_bin : arrays of int
        Of 48 and of 2.
    isolated, fires : arrays of bool
        Whether it passes the isolation; whether the event is here by its trigger.
    """

    place: Array
    match: Array
    pt: Array
    eta: Array
    phi: Array
    charge: Array
    eta_bin: Array
    charge_bin: Array
    isolated: Array
    fires: Array


class Selection(NamedTuple):
    """Events by their place in the range, and one or two legs."""

    events: Array
    legs: tuple[Leg, ...]

    def where(self, keep: Array) -> Selection:
        """Return the events that a mask keeps; mostly it keeps all, and nothing is copied."""
        if keep.all():
            return self
        legs = tuple(Leg._make(array[keep] for array in leg) for leg in self.legs)
        return Selection(self.events[keep], legs)


def leg(places: Array, matches: Array, muons: Muons, *, fires: bool) -> Leg:
    """Return the muons at these places."""
    pt, eta, phi = (np.ascontiguousarray(column[places]) for column in (muons.pt, muons.eta, muons.phi))
    positive = muons.charge[places] > 0
    return Leg(
        place=places,
        match=matches,
        pt=pt,
        eta=eta,
        phi=phi,
        charge=np.where(positive, 1, -1),
        eta_bin=eta_bins(eta),
        charge_bin=positive.astype(np.int64),
        isolated=muons.iso[places].astype(np.float64) < ISOLATED,
        fires=np.full(len(places), fires),
    )


class CutFlow:
    """Counts what passes, and keeps the numbers of events that are left out because something was not finite."""

    def __init__(self, columns: Columns, accumulator: Accumulator) -> None:
        self._columns, self._accumulator = columns, accumulator

    def passed(self, name: str, events: Array) -> None:
        """Count the events that passed a cut."""
        self.add(name, len(events))

    def add(self, name: str, number: int) -> None:
        """Add to a count."""
        self._accumulator.counts[name] += number

    def odd(self, name: str, events: Array | Sequence[int]) -> None:
        """Count events that are left out, and name the first."""
        self.add(name, len(events))
        run, lumi, event = (self._columns[key] for key in ("run", "lumi", "event"))
        for i in events[:10]:
            self._accumulator.note("odd", f"{run[i]}:{lumi[i]}:{event[i]}")


def eta_bins(eta: Array) -> Array:
    """Return the bins of the 48."""
    bins = np.empty(len(eta), np.int64)
    bin_eta(eta, bins)
    return bins


def triggered(columns: Columns, events: Array, flow: CutFlow) -> Array:
    """Return the events that fired the trigger and passed the filters on missing momentum."""
    for field, cut in (("trigger", TRIGGER), ("met_filters", FILTERS)):
        events = events[columns[field][events] != 0]
        flow.passed(cut, events)
    return events


@kernel
def bin_eta(eta: Array, bins: Array) -> None:
    """Fill the bins of the 48."""
    for j in range(len(eta)):
        bins[j] = regular_bin(eta[j], ETA_LOW, ETA_HIGH, ETA_BINS)
