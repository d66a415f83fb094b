"""Generated events as the detector sees them: what is visible, what recoils, and the generator's branches."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from binworks.samples.arrays import Array, Column, Float64, Int64, Jagged, concatenate, take_column
from binworks.samples.kinematics import wrapped

PROMPT, FROM_TAU, NONPROMPT = 0, 1, 2
"""Origins of a muon."""

_ARRAYS = ("boson_charge", "boson_mass", "boson_rapidity", "recoiling", "other", "muons", "electrons")


@dataclass(frozen=True)
class Events:
    """n events.

    Parameters
    ----------
    boson_charge : array of int8
        -1, 0, +1.
    boson_mass, boson_rapidity : arrays
        GeV; mass 0 where there is no boson.
    recoiling : array, shape (n, 2)
        Transverse momentum (GeV) against which the hadrons recoil: the boson's.
    other : array, shape (n, 2)
        Transverse momentum of what else is measured beside hadrons and muons (photons, electrons, taus' hadrons).
    muons : Jagged
        pt, eta, phi, charge, origin of the final muons.
    electrons : Jagged
        pt, eta, phi.
    branches : dict
        The generator's branches in NanoAOD's names; empty for data.
    """

    boson_charge: Array
    boson_mass: Float64
    boson_rapidity: Float64
    recoiling: Float64
    other: Float64
    muons: Jagged
    electrons: Jagged
    branches: dict[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.boson_mass)

    @property
    def boson_pt(self) -> Float64:
        """Transverse momentum of the boson (GeV)."""
        return np.hypot(self.recoiling[:, 0], self.recoiling[:, 1])

    def take(self, index: Int64) -> Events:
        """Return the events of that index, in its order."""
        columns: dict[str, Any] = {name: take_column(getattr(self, name), index) for name in _ARRAYS}
        return Events(**columns, branches={k: take_column(v, index) for k, v in self.branches.items()})

    def rotated(self, angle: Float64) -> Events:
        """Return the events, each turned about the beam by its angle."""

        def turned(vector: Float64) -> Float64:
            cosine, sine = np.cos(angle), np.sin(angle)
            x, y = vector[:, 0], vector[:, 1]
            return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)

        def turned_all(collection: Jagged) -> Jagged:
            return collection.replace(phi=wrapped(collection["phi"] + np.repeat(angle, collection.counts)))

        branches = {
            name: turned_all(column) if isinstance(column, Jagged) and "phi" in column.fields else column
            for name, column in self.branches.items()
        }
        return replace(
            self,
            recoiling=turned(self.recoiling),
            other=turned(self.other),
            muons=turned_all(self.muons),
            electrons=turned_all(self.electrons),
            branches=branches,
        )


def concatenate_events(parts: list[Events]) -> Events:
    """Return the events of all parts, one after the other, without the generator's branches."""
    columns: dict[str, Any] = {name: concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    return Events(**columns)
