"""Tensors for other programs' fits: one format, one file, one line in the table."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from binworks.tensors.errors import unknown_name
from binworks.tensors.tensor import Tensor

FORMATS: dict[str, str] = {
    "rabbit": "binworks.tensors.export.rabbit",
}
"""Module of each format; its ``write(tensor, path)`` makes the file."""


def export(tensor: Tensor, path: str | os.PathLike[str], format: str) -> Path:  # noqa: A002  what everybody calls it
    """Write a tensor in the format of another program; the file appears whole or not at all.

    Parameters
    ----------
    tensor : Tensor
    path : path
        Of the file; one that exists is replaced.
    format : str
        A key of `FORMATS`.

    Returns
    -------
    Path

    Raises
    ------
    RequestError
        ``unknown-format``; ``missing-extra`` if a package of the format is not installed; what the format cannot hold.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, list(FORMATS))
    write: Callable[[Tensor, Path], None] = import_module(FORMATS[format]).write
    target = Path(path)
    half = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        write(tensor, half)
        half.replace(target)
    finally:
        half.unlink(missing_ok=True)
    return target
