"""Selected simulated events with their weights: made factor by factor, then filled group by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.processors.columns import Columns
from binworks.processors.fills import fill_conditions, fill_production
from binworks.processors.generator import Bosons, Generated, lost_muons
from binworks.processors.legs import (
    Factors,
    StepFactors,
    Veto,
    factors_of,
    fill_leg,
    fill_ratios,
    fill_veto,
    veto_of,
)
from binworks.processors.muons import Muons
from binworks.processors.payloads import Corrections
from binworks.processors.selected import Selection
from binworks.processors.weights import Weights, event_weights, pileup_weights

Array = NDArray[Any]


class Simulated(NamedTuple):
    """Selected events, shape (events,) each.

    Parameters
    ----------
    chosen : Selection
    cells : array of int
        Flat cell of the nominal histogram.
    w, w_without_pileup : arrays
        Weights.
    pileup : array, shape (events, 3)
        Nominal, up, down.
    prefire : array, shape (events, 13, 2)
        Varied over nominal.
    bosons : Bosons
    factors : tuple of Factors
        Of each leg.
    veto : Veto or None
        Of the lost second muon.
    """

    chosen: Selection
    cells: Array
    w: Array
    w_without_pileup: Array
    pileup: Array
    prefire: Array
    bosons: Bosons
    factors: tuple[Factors, ...]
    veto: Veto | None

    def where(self, keep: Array) -> Simulated:
        """Return the events that a mask keeps; mostly it keeps all, and nothing is copied."""
        if keep.all():
            return self
        factors = tuple(
            Factors(f.ut[keep], tuple(StepFactors._make(a[keep] for a in step) for step in f.steps))
            for f in self.factors
        )
        veto = None if self.veto is None else Veto._make(a[keep] for a in self.veto)
        bosons = self.bosons.where(keep)
        return Simulated(
            self.chosen.where(keep),
            self.cells[keep],
            self.w[keep],
            self.w_without_pileup[keep],
            self.pileup[keep],
            self.prefire[keep],
            bosons,
            factors,
            veto,
        )


def weighed(
    chosen: Selection,
    cells: Array,
    bosons: Bosons,
    muons: Muons,
    generated: Generated,
    weights: Weights,
    corrections: Corrections,
    *,
    loses_muons: bool,
) -> Simulated:
    """Return the events with their weights, which are not finite where something that they need is not.

    ``loses_muons``: whether a second muon was produced that the veto did not see.
    """
    w, prefire = event_weights(chosen.events, bosons, muons, weights, corrections)
    factors = tuple(factors_of(leg, bosons, corrections) for leg in chosen.legs)
    for factor in factors:
        w *= factor.total
    veto = None
    if loses_muons:
        veto = veto_of(lost_muons(chosen.events, chosen.legs[0].match, generated), generated, corrections)
        w *= veto.factor
    pileup = pileup_weights(chosen.events, weights.n_true, corrections.pileup)
    return Simulated(chosen, cells, w * pileup[:, 0], w, pileup, prefire, bosons, factors, veto)


def fill_groups(
    blocks: Mapping[str, Array],
    filled: Simulated,
    columns: Columns,
    muons: Muons,
    generated: Generated,
    weights: Weights,
    corrections: Corrections,
) -> None:
    """Add the events to every variation group that is asked for."""
    chosen, cells, w, bosons = filled.chosen, filled.cells, filled.w, filled.bosons
    fill_production(blocks, cells, w, chosen.events, bosons, weights, corrections)
    pileup = (filled.w_without_pileup, filled.pileup)
    fill_conditions(blocks, cells, w, chosen.events, columns, weights, pileup, filled.prefire)
    spread = len(chosen.legs) > 1
    for leg, factors in zip(chosen.legs, filled.factors, strict=True):
        fill_leg(blocks, cells, w, leg, factors, generated, corrections, spread=spread)
    ratios = tuple(factors.ratios for factors in filled.factors)
    fill_ratios(blocks, cells, w, chosen.legs, ratios, muons.pixel_hits, corrections)
    if filled.veto is not None:
        fill_veto(blocks, cells, w, filled.veto, corrections)


def finite_matches(chosen: Selection, generated: Generated) -> Array:
    """Return whether the generated muons of all legs have finite momenta."""
    good = np.ones(len(chosen.events), np.bool_)
    for leg in chosen.legs:
        matched = np.flatnonzero(leg.match >= 0)
        g = leg.match[matched]
        good[matched] &= np.isfinite(generated.pt[g]) & np.isfinite(generated.eta[g])
    return good
