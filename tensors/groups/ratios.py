"""Ratios of a muon's varied factor over its nominal one: efficiency systematics, veto systematics, pixel hits."""

from __future__ import annotations

from collections.abc import Sequence

from binworks.tensors.axes import ETA_BINS
from binworks.tensors.groups.base import Layout, VariationGroup, ratio_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel

EFFICIENCY, VETO, PIXEL_HITS = "efficiency_systematics", "veto_systematics", "pixel_hits"


def efficiency(sources: Sequence[str], layout: Layout = "own") -> VariationGroup:
    """Return the group of alternative scale factors; sources are ``{step}_{alternative}``."""
    return ratio_group(EFFICIENCY, "effSyst_", [f"{source}_" for source in sources], layout)


def veto(sources: Sequence[str]) -> VariationGroup:
    """Return the group of alternative veto factors; the lost muon is in no axis."""
    return ratio_group(VETO, "vetoSyst_", [f"{source}_" for source in sources], "spread")


def pixel_hits(layout: Layout = "own") -> VariationGroup:
    """Return the group of the number of pixel hits."""
    return ratio_group(PIXEL_HITS, "pixelHits_", [""], layout)


@kernel
def add_spread(block: Float64, cell: int, source: int, w: float, eta_bin: int, ratio: float) -> None:
    """Add one muon's ratio to its eta bin and to the bin of all, in the spread layout."""
    first = source * (ETA_BINS + 1)
    block[cell, first + eta_bin] += w * (ratio - 1.0)
    block[cell, first + ETA_BINS] += w * (ratio - 1.0)


@kernel
def add_pair(
    block: Float64, cell: int, source: int, w: float, bin1: int, ratio1: float, bin2: int, ratio2: float
) -> None:
    """Add two muons' ratios; the product stands in the common bin, and in an eta bin that both share."""
    first = source * (ETA_BINS + 1)
    product = w * (ratio1 * ratio2 - 1.0)
    block[cell, first + ETA_BINS] += product
    if bin1 == bin2:
        block[cell, first + bin1] += product
    else:
        block[cell, first + bin1] += w * (ratio1 - 1.0)
        block[cell, first + bin2] += w * (ratio2 - 1.0)
