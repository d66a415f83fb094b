"""The digest of the code that decides what a cell holds: part of a partial's name and of the kernel cache's."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

NUMERICAL_ROOMS = ("tensors", "corrections", "processors")
IDLE = (
    "corrections/plots",
    "corrections/show.py",
    "processors/cards.py",
    "tensors/card.py",
    "tensors/export/",
    "tensors/fit",
    "tensors/incomplete.py",
    "tensors/markup.py",
    "tensors/nonprompt.py",
    "tensors/select.py",
    "tensors/smoothing.py",
    "tensors/source.py",
    "tensors/spline.py",
    "tensors/systematics.py",
    "tensors/tensor.py",
)
"""How the names of sources begin that draw, list, or come after the loop; no cell depends on them."""
LIBRARIES = ("numpy", "numba", "awkward", "uproot", "correctionlib", "coffea", "boost-histogram")


@cache
def source_digest(*, idle: bool = False) -> str:
    """Return the sha256 over the sources of the numerical rooms and the versions of the libraries they compute with.

    Parameters
    ----------
    idle : bool
        Include what decides no cell: for what is made after the loop.
    """
    house = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in NUMERICAL_ROOMS:
        for path in sorted((house / room).rglob("*.py")):
            name = path.relative_to(house).as_posix()
            if idle or not name.startswith(IDLE):
                digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}\0".encode())
    return digest.hexdigest()
