"""The correction set that goes with a truth, as calibrations would have measured it.

Momentum scale, resolution, efficiencies and prefire come with uncertainties; their central values lie off the truth by
one draw from these, so that a fit that constrains them is neither too sure nor too careful. The others are the truth
itself. Where data do not differ from simulation in an effect, its correction changes nothing; its variations stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from binworks.corrections import sets
from binworks.corrections.sets import CorrectionSet
from binworks.samples import (
    payload_conditions,
    payload_efficiency,
    payload_momentum,
    payload_recoil,
    payload_theory,
)
from binworks.samples.truth import STEPS, Truth


def write_corrections(folder: Path, name: str, truth: Truth) -> CorrectionSet:
    """Write the correction set of a truth, all payloads, and return it."""
    resolution = payload_momentum.resolution(truth)
    payloads: dict[str, tuple[str, Any]] = {
        "momentum_scale": ("momentum_scale", payload_momentum.momentum_scale(truth)),
        "z_closure": ("z_closure", payload_momentum.z_closure()),
        "resolution": ("resolution", resolution),
        "response": ("response", payload_momentum.response(resolution)),
        **{
            f"efficiency_{step}": ("efficiency", payload_efficiency.efficiency(step, truth)) for step in STEPS
        },
        "efficiency_veto": ("efficiency", payload_efficiency.veto(truth)),
        "prefire": ("prefire", payload_conditions.prefire(truth)),
        "pixel_hits": ("correctionlib", payload_conditions.pixel_hits(truth)),
        "pileup": ("correctionlib", payload_conditions.pileup(truth)),
        "vertex": ("correctionlib", payload_conditions.vertex(truth)),
        "recoil": ("recoil", payload_recoil.recoil(truth)),
        "theory": ("correctionlib", payload_theory.theory(truth)),
        "angular": ("correctionlib", payload_theory.angular()),
        "ew": ("correctionlib", payload_theory.electroweak()),
    }
    if truth.has("cvh"):  # files without the effect have no refitted tracks
        payloads["cvh"] = ("cvh", payload_momentum.cvh(truth))
    return sets.write(folder, name, payloads)
