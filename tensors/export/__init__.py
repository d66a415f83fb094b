"""Tensors for other programs' fits: one format, one file, one line in the table."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from binworks.tensors.errors import unknown_name
from binworks.tensors.fitbuild import from_tensor
from binworks.tensors.fitinput import FitInput, check
from binworks.tensors.tensor import Tensor

FORMATS: dict[str, str] = {
    "rabbit": "binworks.tensors.export.rabbit",
    "rabbit-sparse": "binworks.tensors.export.rabbit_sparse",
    "pyhf": "binworks.tensors.export.pyhf",
    "uhi-hdf5": "binworks.tensors.export.uhi_hdf5",
    "uhi-zip": "binworks.tensors.export.uhi_zip",
    "root": "binworks.tensors.export.root",
}
"""Module of each format: ``write(fit, path)`` makes the file; ``SUFFIX`` and ``MEDIA_TYPE`` say what it is."""


def module(format: str) -> Any:  # noqa: A002  what everybody calls it
    """Return the module of a format.

    Raises
    ------
    RequestError
        ``unknown-format``.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, list(FORMATS))
    return import_module(FORMATS[format])


def export(what: Tensor | FitInput, path: str | os.PathLike[str], format: str) -> Path:  # noqa: A002
    """Write a fit's input in the format of another program; the file appears whole or not at all.

    Parameters
    ----------
    what : Tensor or FitInput
        A tensor is one channel with all its nuisances as they are.
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
        ``unknown-format``; ``missing-extra`` if a package of the format is not installed; what no likelihood can take
        (`binworks.tensors.fitinput.check`), and what the format cannot hold.
    """
    write = module(format).write
    fit = from_tensor(what) if isinstance(what, Tensor) else what
    check(fit)
    target = Path(path)
    half = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        write(fit, half)
        half.replace(target)
    finally:
        half.unlink(missing_ok=True)
    return target
