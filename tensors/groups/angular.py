"""Angular coefficients: scale variations of each helicity in its own qT group, and the parton shower's.

An event adds to 18 columns: up and down of eight coefficients in the group of its qT, and up and down of the shower.
The W's are different for the two charges, which the histogram's axis tells apart.
"""

from __future__ import annotations

import numpy as np

from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.groups.base import CHARGES, VariationGroup, mirrored
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clamped_bin

NAME = "angular"
QT_EDGES = np.array([0.0, 3.0, 5.0, 7.0, 9.0, 11.0, 14.0, 18.0, 23.0, 30.0, 40.0, np.inf])
QT_GROUPS, HELICITIES = len(QT_EDGES) - 1, 8
WAYS = ("Up", "Down")
SHOWER = QT_GROUPS * HELICITIES * 2


def group(*, by_charge: bool) -> VariationGroup:
    """Return the group: 353 nuisances if by charge (W), else 177.

    Columns hold the deviations w (ratio - 1), ordered by qT group, helicity, up and down; then the shower's two.
    """
    places = [f"qt{t}_A{h}" for t in range(QT_GROUPS) for h in range(HELICITIES)]
    charges = [f"{charge}_" for charge in CHARGES] if by_charge else [""]
    names: list[str] = []
    rows: list[Float64] = []
    nuisances: list[Nuisance] = []
    width = SHOWER + 2
    for c, charge in enumerate(charges):
        for p, place in enumerate(places):
            up, down = np.zeros((2, len(charges), width))
            up[c, 2 * p], down[c, 2 * p + 1] = 1.0, 1.0
            templates = {"Up": up, "Down": down, "SymAvg": (up - down) / 2, "SymDiff": (up + down) / 2}
            names += [f"angular_{charge}{place}{suffix}" for suffix in templates]
            rows += templates.values()
            nuisances += mirrored(NAME, names[-2:])
    for i, way in enumerate(WAYS):
        names.append(f"angularShower{way}")
        rows.append(np.zeros((len(charges), width)))
        rows[-1][:, SHOWER + i] = 1.0
    nuisances.append(Nuisance("angularShower", NAME, "angularShowerUp", "angularShowerDown"))
    axes = ("charge",) if by_charge else ()
    expansion = Expansion.dense(NAME, names, nuisances, np.array(rows), block_axes=axes, base=1.0)
    columns = [f"{place}{way}" for place in places for way in WAYS]
    return VariationGroup((*columns, "showerUp", "showerDown"), expansion)


@kernel
def add(block: Float64, cell: int, w: float, qt: float, ratios: Float64) -> None:
    """Add the event's 18 ratios (varied over nominal) to the columns of its qT (GeV)."""
    first = clamped_bin(qt, QT_EDGES) * HELICITIES * 2
    for j in range(HELICITIES * 2):
        block[cell, first + j] += w * (ratios[j] - 1.0)
    block[cell, SHOWER] += w * (ratios[HELICITIES * 2] - 1.0)
    block[cell, SHOWER + 1] += w * (ratios[HELICITIES * 2 + 1] - 1.0)
