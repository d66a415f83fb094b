"""The selected muons' factors, and what they add to the groups of efficiency, momentum and pixel hits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import efficiency, pixel_hits, response
from binworks.corrections.efficiency import STEPS, Efficiency
from binworks.processors.generator import Bosons, Generated
from binworks.processors.payloads import Corrections
from binworks.processors.selected import Leg, eta_bins
from binworks.tensors.groups import efficiency as efficiency_group
from binworks.tensors.groups import momentum_scale as scale_group
from binworks.tensors.groups import ratios as ratios_group
from binworks.tensors.groups import resolution as resolution_group
from binworks.tensors.jit import kernel

Array = NDArray[Any]
MOST = max(efficiency.COEFFICIENTS.values())


class StepFactors(NamedTuple):
    """One efficiency step of one leg.

    Parameters
    ----------
    factor : array, shape (events,)
        1 where the step is not asked of the muon.
    relative : array, shape (events,)
        d ln(factor) / dSF, 0 where the step is not asked.
    ratios : array, shape (events, alternatives)
        Of the alternative factors over the nominal one.
    """

    factor: Array
    relative: Array
    ratios: Array


class Factors(NamedTuple):
    """All efficiency steps of a leg; ``ut`` (GeV) is the boson's transverse momentum along the muon."""

    ut: Array
    steps: tuple[StepFactors, ...]

    @property
    def total(self) -> Array:
        """The product of the steps' factors."""
        product = self.steps[0].factor.copy()
        for step in self.steps[1:]:
            product *= step.factor
        return product

    @property
    def ratios(self) -> Array:
        """The ratios of all steps, shape (events, alternatives of all)."""
        return np.concatenate([step.ratios for step in self.steps], axis=1)


def factors_of(leg: Leg, bosons: Bosons, corrections: Corrections) -> Factors:
    """Return the leg's efficiency factors: every step, the trigger's only if the muon fires it."""
    ut = np.empty(len(leg.pt))
    project(bosons.px, bosons.py, leg.phi, ut)
    always = np.ones(len(ut), np.bool_)
    steps = []
    for s, name in enumerate(STEPS):
        asked = leg.fires if name == "trigger" else always
        passes = leg.isolated if name == "iso" else always
        bins = (leg.eta_bin, leg.charge_bin)
        steps.append(step_factors(leg.pt, ut, bins, asked, passes, corrections.steps[s]))
    return Factors(ut, tuple(steps))


def step_factors(
    pt: Array, ut: Array, bins: tuple[Array, Array], asked: Array, passes: Array, step: Efficiency
) -> StepFactors:
    """Return one step's factors for muons of pT and uT (GeV) in (eta, charge) bins."""
    n = len(pt)
    found = StepFactors(np.ones(n), np.zeros(n), np.ones((n, len(step.alternatives))))
    evaluate_step(pt, ut, bins, asked, passes, step, found, np.empty(MOST))
    return found


def fill_leg(
    blocks: Mapping[str, Array],
    cells: Array,
    w: Array,
    leg: Leg,
    factors: Factors,
    generated: Generated,
    corrections: Corrections,
    *,
    spread: bool,
) -> None:
    """Add the muon's linear deviations: efficiencies, momentum scale, resolution.

    ``spread``: the columns carry the muon's eta bin and charge, as these are in no axis.
    """
    for s, name in enumerate(STEPS):
        if f"efficiency_{name}" in blocks:
            place = leg.eta_bin if name == "iso" else 2 * leg.eta_bin + leg.charge_bin
            fill_efficiency(
                blocks[f"efficiency_{name}"],
                cells,
                w * factors.steps[s].relative,
                leg.pt,
                factors.ut,
                place if spread else np.zeros_like(place),
                corrections.steps[s],
                np.empty(MOST),
            )
    if scale_group.NAME in blocks or resolution_group.NAME in blocks:
        scores = (np.zeros(len(cells)), np.zeros(len(cells)))
        find_scores(leg, (generated.pt, generated.eta, generated.pdg_id), corrections.response, *scores)
        eta_bin = leg.eta_bin if spread else np.zeros_like(leg.eta_bin)
        if scale_group.NAME in blocks:
            fill_scale(blocks[scale_group.NAME], cells, w, eta_bin, leg.pt, leg.charge, scores[0])
        if resolution_group.NAME in blocks:
            d = corrections.resolution.d[leg.eta_bin // 2]
            fill_resolution(blocks[resolution_group.NAME], cells, w, eta_bin, leg.pt, d, scores[1])


def fill_ratios(
    blocks: Mapping[str, Array],
    cells: Array,
    w: Array,
    legs: tuple[Leg, ...],
    ratios: tuple[Array, ...],
    hits: Array,
    corrections: Corrections,
) -> None:
    """Add the alternative efficiencies and the pixel hits of one leg, or of two with their product.

    Parameters
    ----------
    ratios : arrays, shape (events, alternatives)
        Of each leg's alternative factors.
    hits : array
        Pixel hits of the range's muons.
    """
    bins = tuple(leg.eta_bin for leg in legs)
    sources = {ratios_group.EFFICIENCY: ratios}
    if ratios_group.PIXEL_HITS in blocks:
        of_legs = tuple(np.empty((len(w), 1)) for _ in legs)
        for leg, found in zip(legs, of_legs, strict=True):
            find_hit_ratios(leg.eta, leg.place, hits, corrections.pixel_hits, found)
        sources[ratios_group.PIXEL_HITS] = of_legs
    for name, of_each in sources.items():
        if name in blocks and len(legs) == 1:
            fill_own_ratios(blocks[name], cells, w, of_each[0])
        elif name in blocks:
            fill_pair_ratios(blocks[name], cells, w, bins, of_each)


class Veto(NamedTuple):
    """The second muon that the veto did not see: pT (GeV), eta and charge bin, factor, its derivative, ratios."""

    pt: Array
    eta_bin: Array
    charge_bin: Array
    factor: Array
    relative: Array
    ratios: Array


def veto_of(lost: Array, generated: Generated, corrections: Corrections) -> Veto:
    """Return the factors of the lost muons, places in ``generated``; an event without one (-1) has the factor 1."""
    place = np.maximum(lost, 0)
    pt, eta = (column[place].astype(np.float64) for column in (generated.pt, generated.eta))
    charge_bin = (generated.pdg_id[place] < 0).astype(np.int64)
    eta_bin = np.maximum(eta_bins(eta), 0)
    nowhere, never = np.zeros(len(lost)), np.zeros(len(lost), np.bool_)
    found = step_factors(pt, nowhere, (eta_bin, charge_bin), lost >= 0, never, corrections.veto)
    return Veto(pt, eta_bin, charge_bin, *found)


def fill_veto(
    blocks: Mapping[str, Array], cells: Array, w: Array, veto: Veto, corrections: Corrections
) -> None:
    """Add the lost muons' deviations to the columns of their own eta bins and charges."""
    if "veto_stat" in blocks:
        place, nowhere = 2 * veto.eta_bin + veto.charge_bin, np.zeros(len(cells))
        weighted, basis = w * veto.relative, np.empty(MOST)
        fill_efficiency(
            blocks["veto_stat"], cells, weighted, veto.pt, nowhere, place, corrections.veto, basis
        )
    if ratios_group.VETO in blocks:
        fill_spread_ratios(blocks[ratios_group.VETO], cells, w, veto.eta_bin, veto.ratios)


@kernel
def project(px: Array, py: Array, phi: Array, out: Array) -> None:
    """Fill the components of transverse vectors in each direction."""
    for j in range(len(phi)):
        out[j] = px[j] * np.cos(phi[j]) + py[j] * np.sin(phi[j])


@kernel
def evaluate_step(
    pt: Array, ut: Array, bins: Any, asked: Array, passes: Array, step: Any, found: Any, basis: Array
) -> None:
    """Fill the arrays of ``found`` where the step is asked of the muon; ``basis`` is overwritten."""
    eta_bin, charge_bin = bins
    factor, relative, ratios = found
    for j in range(len(pt)):
        if not asked[j]:
            continue
        e, q = eta_bin[j], charge_bin[j]
        efficiency.fill_basis(pt[j], ut[j], step, basis)
        if passes[j]:
            factor[j] = efficiency.scale_factor(basis, e, q, step)
            relative[j] = 1.0 / factor[j]
        else:
            factor[j], slope = efficiency.failing_factor(basis, e, q, step)
            relative[j] = slope / factor[j]
        for a in range(ratios.shape[1]):
            if passes[j]:
                ratios[j, a] = efficiency.alternative_factor(a, basis, e, q, step) / factor[j]
            else:
                ratios[j, a] = efficiency.failing_alternative(a, basis, e, q, step) / factor[j]


@kernel
def fill_efficiency(
    block: Array, cells: Array, w: Array, pt: Array, ut: Array, place: Array, step: Any, basis: Array
) -> None:
    """Add w (times d ln(factor) / dSF) for each coefficient of the place, from column place x coefficients on."""
    for j in range(len(cells)):
        if w[j] != 0.0:
            n = efficiency.fill_basis(pt[j], ut[j], step, basis)
            efficiency_group.add(block, cells[j], place[j] * n, w[j], basis, n)


@kernel
def find_scores(leg: Any, generated: Any, table: Any, scale: Array, width: Array) -> None:
    """Fill d ln p / ds and d ln p / d sigma^2 of each matched muon's response r = (q/p)_reco / (q/p)_gen.

    ``generated`` are pT (GeV), eta and PDG identity of the range's generated particles.
    """
    gen_pt, gen_eta, gen_identity = generated
    for j in range(len(leg.pt)):
        g = leg.match[j]
        if g >= 0:
            pt, eta = np.float64(gen_pt[g]), np.float64(gen_eta[g])
            charge = -1 if gen_identity[g] > 0 else 1
            r = leg.charge[j] * charge * pt * np.cosh(eta) / (leg.pt[j] * np.cosh(leg.eta[j]))
            scale[j], width[j] = response.scores(r, pt, eta, charge, table)


@kernel
def fill_scale(
    block: Array, cells: Array, w: Array, eta_bin: Array, pt: Array, charge: Array, scores: Array
) -> None:
    """Add the derivatives to the momentum scale."""
    for j in range(len(cells)):
        scale_group.add(block, cells[j], 3 * eta_bin[j], w[j], scores[j], 1.0 / pt[j], charge[j])


@kernel
def fill_resolution(
    block: Array, cells: Array, w: Array, eta_bin: Array, pt: Array, d: Array, scores: Array
) -> None:
    """Add the derivatives to the resolution."""
    for j in range(len(cells)):
        resolution_group.add(block, cells[j], 3 * eta_bin[j], w[j], scores[j], 1.0 / pt[j], d[j])


@kernel
def find_hit_ratios(eta: Array, places: Array, hits: Array, table: Any, out: Array) -> None:
    """Fill the varied over the nominal frequency of each muon's number of pixel hits, shape (events, 1)."""
    for j in range(len(eta)):
        out[j, 0] = pixel_hits.ratio(eta[j], hits[places[j]], table)


@kernel
def fill_own_ratios(block: Array, cells: Array, w: Array, ratios: Array) -> None:
    """Add one leg's ratios, where its eta is an axis."""
    for j in range(len(cells)):
        for a in range(block.shape[1]):
            block[cells[j], a] += w[j] * (ratios[j, a] - 1.0)


@kernel
def fill_spread_ratios(block: Array, cells: Array, w: Array, eta_bin: Array, ratios: Array) -> None:
    """Add one muon's ratios to the columns of its eta bin, and to those of all bins."""
    for j in range(len(cells)):
        for a in range(ratios.shape[1]):
            ratios_group.add_spread(block, cells[j], a, w[j], eta_bin[j], ratios[j, a])


@kernel
def fill_pair_ratios(block: Array, cells: Array, w: Array, bins: Any, ratios: Any) -> None:
    """Add two legs' ratios and their product."""
    for j in range(len(cells)):
        for a in range(ratios[0].shape[1]):
            ratios_group.add_pair(
                block, cells[j], a, w[j], bins[0][j], ratios[0][j, a], bins[1][j], ratios[1][j, a]
            )
