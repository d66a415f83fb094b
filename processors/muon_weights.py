"""One selected muon's factors, and what it adds to the groups of efficiency, momentum and pixel hits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from binworks.corrections import efficiency, pixel_hits, response
from binworks.corrections.efficiency import STEPS
from binworks.tensors.groups import efficiency as efficiency_group
from binworks.tensors.groups import momentum_scale as scale_group
from binworks.tensors.groups import ratios as ratios_group
from binworks.tensors.groups import resolution as resolution_group
from binworks.tensors.jit import kernel

TRIGGER, ISO = STEPS.index("trigger"), STEPS.index("iso")


class Muon(NamedTuple):
    """A selected muon.

    Parameters
    ----------
    place : int
        Where it stands in the range.
    match : int
        Its generated muon; -1 if there is none.
    pt, eta, phi : float
        Corrected; GeV.
    charge : int
        -1 or +1.
    eta_bin, charge_bin : int
        Of 48 and of 2.
    isolated : bool
        Whether it passes the isolation.
    fires : bool
        Whether the event is here by its trigger.
    """

    place: int
    match: int
    pt: float
    eta: float
    phi: float
    charge: int
    eta_bin: int
    charge_bin: int
    isolated: bool
    fires: bool


@kernel
def muon_factor(slot: int, muon: Any, ut: float, corrections: Any, room: Any) -> float:
    """Return the product of the muon's scale factors; write what their variations need to its slot of ``room``.

    ``ut`` (GeV) is the boson's transverse momentum along the muon.
    """
    factor = 1.0
    a = 0
    for s in range(len(STEPS)):
        step = corrections.steps[s]
        alternatives = step.alternatives.shape[0]
        basis = room.basis[slot, s]
        if s == TRIGGER and not muon.fires:
            room.relative[slot, s] = 0.0
            for _ in range(alternatives):
                room.ratios[slot, a] = 1.0
                a += 1
            continue
        efficiency.fill_basis(muon.pt, ut, step, basis)
        fails = s == ISO and not muon.isolated
        if fails:
            value, slope = efficiency.failing_factor(basis, muon.eta_bin, muon.charge_bin, step)
        else:
            value, slope = efficiency.scale_factor(basis, muon.eta_bin, muon.charge_bin, step), 1.0
        for b in range(alternatives):
            if fails:
                other = efficiency.failing_alternative(b, basis, muon.eta_bin, muon.charge_bin, step)
            else:
                other = efficiency.alternative_factor(b, basis, muon.eta_bin, muon.charge_bin, step)
            room.ratios[slot, a] = other / value
            a += 1
        room.relative[slot, s] = slope / value
        factor *= value
    return factor


@kernel
def fill_muon(
    slot: int,
    cell: int,
    w: float,
    muon: Any,
    generated: Any,
    corrections: Any,
    blocks: Any,
    room: Any,
    spread: bool,
) -> None:
    """Add the muon's linear deviations: efficiencies, momentum scale, resolution.

    ``spread``: the columns carry the muon's eta bin and charge, as it is in no axis.
    """
    for s in range(len(STEPS)):
        block = blocks.efficiency[s]
        relative = room.relative[slot, s]
        if block.shape[1] > 0 and relative != 0.0:
            n = corrections.steps[s].coefficients.shape[2]
            place = muon.eta_bin if s == ISO else 2 * muon.eta_bin + muon.charge_bin
            offset = place * n if spread else 0
            efficiency_group.add(block, cell, offset, w * relative, room.basis[slot, s], n)
    if muon.match >= 0 and (blocks.momentum_scale.shape[1] > 0 or blocks.resolution.shape[1] > 0):
        scale_score, width_score = momentum_scores(muon, generated, corrections.response)
        k, offset = 1.0 / muon.pt, 3 * muon.eta_bin if spread else 0
        if blocks.momentum_scale.shape[1] > 0:
            scale_group.add(blocks.momentum_scale, cell, offset, w, scale_score, k, muon.charge)
        if blocks.resolution.shape[1] > 0:
            d = corrections.resolution.d[muon.eta_bin // 2]
            resolution_group.add(blocks.resolution, cell, offset, w, width_score, k, d)


@kernel
def fill_ratios(cell: int, w: float, muon: Any, muons: Any, corrections: Any, blocks: Any, room: Any) -> None:
    """Add one muon's alternative efficiencies and pixel hits, where its eta is an axis."""
    for a in range(blocks.efficiency_systematics.shape[1]):
        blocks.efficiency_systematics[cell, a] += w * (room.ratios[0, a] - 1.0)
    if blocks.pixel_hits.shape[1] > 0:
        blocks.pixel_hits[cell, 0] += w * (hits_ratio(muon, muons, corrections) - 1.0)


@kernel
def fill_pair_ratios(
    cell: int, w: float, one: Any, two: Any, muons: Any, corrections: Any, blocks: Any, room: Any
) -> None:
    """Add two muons' alternative efficiencies and pixel hits; products included."""
    if blocks.efficiency_systematics.shape[1] > 0:
        for a in range(room.ratios.shape[1]):
            ratios_group.add_pair(
                blocks.efficiency_systematics,
                cell,
                a,
                w,
                one.eta_bin,
                room.ratios[0, a],
                two.eta_bin,
                room.ratios[1, a],
            )
    if blocks.pixel_hits.shape[1] > 0:
        first, second = hits_ratio(one, muons, corrections), hits_ratio(two, muons, corrections)
        ratios_group.add_pair(blocks.pixel_hits, cell, 0, w, one.eta_bin, first, two.eta_bin, second)


@kernel
def hits_ratio(muon: Any, muons: Any, corrections: Any) -> float:
    """Return the varied over the nominal frequency of the muon's number of pixel hits."""
    return float(pixel_hits.ratio(muon.eta, muons.pixel_hits[muon.place], corrections.pixel_hits))


@kernel
def momentum_scores(muon: Any, generated: Any, table: Any) -> Any:
    """Return d ln p / ds and d ln p / d sigma^2 of the muon's response r = (q/p)_reco / (q/p)_gen."""
    pt, eta = np.float64(generated.pt[muon.match]), np.float64(generated.eta[muon.match])
    charge = -1 if generated.pdg_id[muon.match] > 0 else 1
    r = muon.charge * charge * pt * np.cosh(eta) / (muon.pt * np.cosh(muon.eta))
    return response.scores(r, pt, eta, charge, table)
