"""Generator weights of an event, in NanoAOD's layout: densities, scales, mass, width and mixing, parton shower.

All are ratios to the generated event and follow from what was generated: the partons, their momentum fractions, the
mass of the boson and (for the Z) the decay angle.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from binworks.samples.arrays import Float64
from binworks.samples.generator import Collisions
from binworks.samples.parton_densities import (
    ALTERNATIVES,
    EIGENVECTORS,
    DensityTable,
    alpha_s_response,
    deformations,
    density_table,
)
from binworks.samples.processes import W_MASS, W_WIDTH, Z_MASS, Z_WIDTH, Process

MASS_SHIFTS_MEV = tuple(range(-100, 101, 10))
WIDTH_SHIFTS_MEV = {"W": (-84.0, -42.0, 0.0, 42.0, 84.0), "Z": (-4.6, -2.3, 0.0, 2.3, 4.6)}
ALPHA_S_CHANGE = 0.0015
SCALE_FACTORS = (0.5, 1.0, 2.0)
LARGEST_WEIGHT = 10.0
SIN2_THETA = 0.2312
SIN2_THETA_SHIFTS = tuple(1e-4 * i for i in range(-5, 6))

Resonance = Callable[[float, float], Float64]
"""Squared amplitude of each event for a boson of that mass and width (GeV), up to a constant."""


def theory_weights(process: Process, collisions: Collisions) -> dict[str, Float64]:
    """Return the weight blocks by branch name, each of shape (n, weights)."""
    if process.boson == "W":
        resonance, mass, width = w_resonance(collisions), W_MASS, W_WIDTH
    else:
        resonance, mass, width = z_resonance(collisions), Z_MASS, Z_WIDTH
    width_shifts = WIDTH_SHIFTS_MEV[process.boson or "Z"]
    blocks = {
        "LHEPdfWeight": pdf_weights(collisions),
        "LHEScaleWeight": scale_weights(collisions),
        "MEParamWeight": mass_weights(resonance, mass, width),
        "MEParamWeightAltSet1": width_weights(resonance, mass, width, width_shifts),
    }
    if process.boson == "Z":
        blocks["MEParamWeightAltSet4"] = mixing_weights(collisions)
    generated = _luminosity(density_table(), collisions, 1.0)
    for i, pdf in enumerate(ALTERNATIVES, 1):
        other = _luminosity(density_table(pdf), collisions, 1.0)
        blocks[f"LHEPdfWeightAltSet{i}"] = np.minimum(other / generated, LARGEST_WEIGHT)[:, None]
    if collisions.shower_weights is not None:
        blocks["PSWeight"] = shower_weights(collisions.shower_weights)
    return blocks


def pdf_weights(collisions: Collisions) -> Float64:
    """Return 61 weights: central, 29 pairs of directions (plus, minus), alpha_s up and down by 0.0015."""
    ids, x = collisions.parton_ids, collisions.parton_x
    first, second = (deformations(ids[:, side], x[:, side]) for side in (0, 1))
    plus = (1.0 + first) * (1.0 + second)
    minus = (1.0 - first) * (1.0 - second)
    pairs = np.stack([plus, minus], axis=2).reshape(len(x), 2 * EIGENVECTORS)
    table = density_table()
    response = sum(
        alpha_s_response(table, ids[:, side], x[:, side], collisions.mass, ALPHA_S_CHANGE) for side in (0, 1)
    )
    alpha_s = np.stack([np.exp(response), np.exp(-response)], axis=1)
    return np.concatenate([np.ones((len(x), 1)), pairs, alpha_s], axis=1)


def scale_weights(collisions: Collisions) -> Float64:
    """Return NanoAOD's 9 weights: muR in (1/2, 1, 2), and within it muF in (1/2, 1, 2).

    To this order the hard process has no strong coupling, so muR changes nothing.
    """
    table = density_table()
    nominal = _luminosity(table, collisions, 1.0)
    factors = [_luminosity(table, collisions, factor) / nominal for factor in SCALE_FACTORS]
    return np.tile(np.stack(factors, axis=1), (1, len(SCALE_FACTORS)))


def mass_weights(resonance: Resonance, mass: float, width: float) -> Float64:
    """Return 21 weights: the boson's mass shifted by -100 to +100 MeV."""
    nominal = resonance(mass, width)
    return np.stack([resonance(mass + 1e-3 * d, width) / nominal for d in MASS_SHIFTS_MEV], axis=1)


def width_weights(resonance: Resonance, mass: float, width: float, shifts_mev: tuple[float, ...]) -> Float64:
    """Return one weight for each shift of the boson's width, its couplings kept."""
    nominal = resonance(mass, width)
    return np.stack([resonance(mass, width + 1e-3 * d) / nominal for d in shifts_mev], axis=1)


def w_resonance(collisions: Collisions) -> Resonance:
    """Return the W: a Breit-Wigner with running width; the decay angle does not depend on the mass."""
    s = collisions.mass**2

    def squared(mass: float, width: float) -> Float64:
        result: Float64 = 1.0 / ((s - mass**2) ** 2 + (s * width / mass) ** 2)
        return result

    return squared


def mixing_weights(collisions: Collisions) -> Float64:
    """Return 11 weights: the effective sin^2(theta) of the Z's vector couplings shifted by -5 to +5 times 0.0001."""
    nominal = z_resonance(collisions)(Z_MASS, Z_WIDTH)
    shifted = [z_resonance(collisions, SIN2_THETA + d)(Z_MASS, Z_WIDTH) for d in SIN2_THETA_SHIFTS]
    return np.stack([values / nominal for values in shifted], axis=1)


def z_resonance(collisions: Collisions, sin2_theta: float = SIN2_THETA) -> Resonance:
    """Return photon and Z with their interference, at the event's mass, quark and decay angle.

    ``sin2_theta`` is that of the vector couplings; the strength of the Z is kept.
    """
    s = collisions.mass**2
    up = np.abs(collisions.parton_ids[:, 0]) % 2 == 0
    charge, axial = np.where(up, 2 / 3, -1 / 3), np.where(up, 1.0, -1.0)
    vector = axial - 4 * sin2_theta * charge
    lepton_charge, lepton_axial = -1.0, -1.0
    lepton_vector = lepton_axial - 4 * sin2_theta * lepton_charge
    strength = s / (16 * SIN2_THETA * (1 - SIN2_THETA))
    even, odd = 1 + _cos_theta(collisions) ** 2, 2 * _cos_theta(collisions)

    def squared(mass: float, width: float) -> Float64:
        norm = (s - mass**2) ** 2 + (s * width / mass) ** 2
        interference = 2 * strength * (s - mass**2) / norm
        z = strength**2 / norm
        symmetric = (
            (charge * lepton_charge) ** 2
            + charge * vector * interference * lepton_charge * lepton_vector
            + (vector**2 + axial**2) * z * (lepton_vector**2 + lepton_axial**2)
        )
        asymmetric = (
            charge * axial * interference * lepton_charge * lepton_axial
            + 4 * vector * axial * z * lepton_vector * lepton_axial
        )
        result: Float64 = even * symmetric + odd * asymmetric
        return result

    return squared


def shower_weights(initial_state: Float64) -> Float64:
    """Return NanoAOD's 4 weights: ISR x 2, FSR x 2, ISR x 1/2, FSR x 1/2 (factors of the renormalisation scale).

    The generator's final state radiates photons only, so those of the final state are 1.
    """
    ones = np.ones(len(initial_state))
    return np.stack([initial_state[:, 0], ones, initial_state[:, 1], ones], axis=1)


def _luminosity(table: DensityTable, collisions: Collisions, factor: float) -> Float64:
    """Return the product of both densities at the factorisation scale ``factor`` times the boson's mass."""
    ids, x, q = collisions.parton_ids, collisions.parton_x, factor * collisions.mass
    return table.xf(ids[:, 0], x[:, 0], q) * table.xf(ids[:, 1], x[:, 1], q)


def _cos_theta(collisions: Collisions) -> Float64:
    """Return the cosine between the negative lepton and the quark in the boson's frame, before radiation."""
    half, rapidity = collisions.mass / 2, collisions.hard_rapidity
    energy = np.linalg.norm(collisions.hard_lepton, axis=1)
    cosine = (np.cosh(rapidity) * collisions.hard_lepton[:, 2] - np.sinh(rapidity) * energy) / half
    sign = np.sign(collisions.parton_ids[:, 0]) * np.sign(collisions.lepton_ids[:, 0])
    result: Float64 = np.clip(sign * cosine, -1.0, 1.0)
    return result
