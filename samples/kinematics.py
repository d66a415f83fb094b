"""Momenta in Cartesian and collider coordinates; GeV and radians."""

from __future__ import annotations

import numpy as np

from binworks.samples.arrays import Float64


def pt_eta_phi(p: Float64) -> tuple[Float64, Float64, Float64]:
    """Return transverse momentum, pseudorapidity and azimuth of momenta of shape (..., 3); eta 0 for no momentum."""
    pt = np.hypot(p[..., 0], p[..., 1])
    eta = np.arcsinh(np.divide(p[..., 2], pt, out=np.zeros_like(pt), where=pt > 0))
    return pt, eta, np.arctan2(p[..., 1], p[..., 0])


def wrapped(phi: Float64) -> Float64:
    """Return the angle in [-pi, pi]."""
    result: Float64 = phi - 2 * np.pi * np.rint(phi / (2 * np.pi))
    return result


def boosted(
    energy: Float64, p: Float64, frame_energy: Float64, frame_p: Float64, frame_mass: Float64 | float
) -> Float64:
    """Return momenta, given in the rest frame of a particle, in the frame where that particle moves.

    Parameters
    ----------
    energy, p : arrays of shape (n,), (n, 3)
        In the rest frame.
    frame_energy, frame_p, frame_mass
        The moving particle.
    """
    along = np.einsum("ij,ij->i", p, frame_p)
    factor = (along / (frame_energy + frame_mass) + energy) / frame_mass
    result: Float64 = p + factor[:, None] * frame_p
    return result


def rotated_to(direction: Float64, cos_theta: Float64, phi: Float64) -> Float64:
    """Return unit vectors at polar angle theta and azimuth phi about a direction of shape (n, 3)."""
    z = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    # any axis that is not parallel to z will do: the azimuth is uniform
    helper = np.where(np.abs(z[:, 2:]) < 0.9, np.array([[0.0, 0.0, 1.0]]), np.array([[1.0, 0.0, 0.0]]))
    x = np.cross(helper, z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(z, x)
    sin_theta = np.sqrt(np.maximum(1.0 - cos_theta**2, 0.0))
    transverse = np.cos(phi)[:, None] * x + np.sin(phi)[:, None] * y
    result: Float64 = cos_theta[:, None] * z + sin_theta[:, None] * transverse
    return result
