"""Parton distributions: dense weights member / central, Hessian pairs, and the two alphaS members last."""

from __future__ import annotations

from typing import Any

from binworks.tensors.errors import RequestError
from binworks.tensors.groups.base import VariationGroup, symmetrised_group
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import clip_ratio

NAME = "pdf"


def group(members: int) -> VariationGroup:
    """Return the group for a block of 1 + 2 n + 2 members: central, n Hessian pairs (up, down), alphaS up and down.

    Each pair becomes two nuisances, average and difference.

    Raises
    ------
    RequestError
        If the number of members is not odd or less than 5.
    """
    if members < 5 or members % 2 == 0:
        raise RequestError(
            f"A Hessian set has a central member, pairs, and two for alphaS: an odd number >= 5, got {members}.",
            code="bad-option",
            where="pdf_members",
        )
    pairs = (members - 3) // 2
    names = [f"pdf{i + 1}{way}" for i in range(pairs) for way in ("Up", "Down")]
    return symmetrised_group(NAME, [*names, "pdfAlphaSUp", "pdfAlphaSDown"])


@kernel
def add(block: Float64, cell: int, w: float, members: Any) -> None:
    """Add w times member / central for every member but the central one; w holds the central weight already."""
    inverse = 1.0 / members[0]
    for j in range(block.shape[1]):
        block[cell, j] += w * clip_ratio(members[j + 1] * inverse)
