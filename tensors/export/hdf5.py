"""HDF5, an optional package, for the formats that need it."""

from __future__ import annotations

from typing import Any

from binworks.tensors.errors import RequestError


def h5py_for(format: str) -> Any:  # noqa: A002  what everybody calls it
    """Return the package h5py.

    Raises
    ------
    RequestError
        Code ``missing-extra``.
    """
    try:
        import h5py
    except ImportError:
        hint = "pip install 'binworks[rabbit]'"
        message = f"The format {format} needs the package h5py."
        raise RequestError(message, code="missing-extra", hint=hint) from None
    return h5py
