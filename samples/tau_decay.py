"""Tau decays for many events at once: the muon channel, the electron channel, and hadrons as one body.

Leptonic decays follow the V-A matrix element with the tau's polarisation (daughter masses neglected); hadronic ones are
two-body decays to a pion, rho or a1 of fixed mass. Taus from a W are left-handed; those from a Z are so in
(1 + A_tau) / 2 of the events, both taus of an event together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from binworks.samples.arrays import Array, Float64
from binworks.samples.kinematics import boosted, rotated_to
from binworks.samples.processes import TAU_TO_E, TAU_TO_MU

TAU_MASS = 1.77686
Z_ASYMMETRY = 0.147
MUON, ELECTRON, HADRONS = 0, 1, 2

_HADRON_MASSES = np.array([0.1396, 0.775, 1.23])
_HADRON_SHARES = np.array([0.17, 0.42, 0.41])
_X = np.linspace(0.0, 1.0, 1001)
_X_BELOW = 2 * _X**3 - _X**4  # integral of 2 x^2 (3 - 2 x)


@dataclass(frozen=True)
class TauDecays:
    """Products of n taus; momenta in GeV, shape (n, 3).

    Parameters
    ----------
    channel : array of int
        MUON, ELECTRON or HADRONS.
    visible : array
        Momentum of the lepton or of the hadrons.
    lepton_neutrino, tau_neutrino : arrays
        The former is zero for hadrons.
    """

    channel: Array
    visible: Float64
    lepton_neutrino: Float64
    tau_neutrino: Float64


def channels_of_pairs(n: int, rng: np.random.Generator) -> Array:
    """Return the channels of n pairs of taus, shape (n, 2), at least one of each pair a muon."""
    both = TAU_TO_MU / (2 - TAU_TO_MU)
    other = np.where(rng.random(n) < TAU_TO_E / (1 - TAU_TO_MU), ELECTRON, HADRONS)
    other[rng.random(n) < both] = MUON
    swapped = rng.random(n) < 0.5
    return np.stack([np.where(swapped, other, MUON), np.where(swapped, MUON, other)], axis=1)


def handedness_from_z(n: int, rng: np.random.Generator) -> Float64:
    """Return +1 for a left-handed tau- with a right-handed tau+, -1 for the opposite."""
    return np.where(rng.random(n) < (1 + Z_ASYMMETRY) / 2, 1.0, -1.0)


def decay(momenta: Float64, channel: Array, handedness: Float64, rng: np.random.Generator) -> TauDecays:
    """Decay taus of these momenta; handedness +1 is that of W decays."""
    n = len(momenta)
    energy = np.sqrt((momenta**2).sum(axis=1) + TAU_MASS**2)
    leptonic = channel != HADRONS
    x = np.interp(rng.random(n), _X_BELOW, _X)
    hadron_mass = _HADRON_MASSES[rng.choice(3, size=n, p=_HADRON_SHARES)]
    # distribution of the visible product: 1 + slope cos(theta), theta from the tau's flight direction
    weak = (TAU_MASS**2 - 2 * hadron_mass**2) / (TAU_MASS**2 + 2 * hadron_mass**2)
    slope = handedness * np.where(leptonic, (2 * x - 1) / (3 - 2 * x), -weak)
    direction = rotated_to(momenta, _sample_linear(slope, rng), _azimuth(n, rng))
    own_mass = np.where(leptonic, 0.0, hadron_mass)
    size = np.where(leptonic, x * TAU_MASS / 2, (TAU_MASS**2 - hadron_mass**2) / (2 * TAU_MASS))
    lost = _neutrinos(TAU_MASS - x * TAU_MASS / 2, -size[:, None] * direction, TAU_MASS * np.sqrt(1 - x), rng)
    visible = boosted(np.hypot(size, own_mass), size[:, None] * direction, energy, momenta, TAU_MASS)
    lepton_neutrino = boosted(np.linalg.norm(lost, axis=1), lost, energy, momenta, TAU_MASS)
    lepton_neutrino[~leptonic] = 0.0
    return TauDecays(channel, visible, lepton_neutrino, momenta - visible - lepton_neutrino)


def _neutrinos(energy: Float64, momentum: Float64, mass: Float64, rng: np.random.Generator) -> Float64:
    """Return the momentum of one of two neutrinos that share a pair's momentum isotropically."""
    n = len(mass)
    mass = np.maximum(mass, 1e-6)
    axis = np.zeros((n, 3)) + np.array([0.0, 0.0, 1.0])
    unit = rotated_to(axis, 2 * rng.random(n) - 1, _azimuth(n, rng))
    return boosted(mass / 2, unit * (mass / 2)[:, None], energy, momentum, mass)


def _sample_linear(slope: Float64, rng: np.random.Generator) -> Float64:
    """Return c in [-1, 1] with density (1 + slope c) / 2."""
    u = rng.random(len(slope))
    root = np.sqrt((1 - slope) ** 2 + 4 * slope * u)
    result: Float64 = 4 * u / (1 - slope + root + 1e-300) - 1
    return result


def _azimuth(n: int, rng: np.random.Generator) -> Float64:
    return 2 * np.pi * rng.random(n)
