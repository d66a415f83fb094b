"""The one decorator of all kernels.

numba looks only at a kernel's own file to decide whether its cached machine code is stale, not at the files of the
functions it calls. So the cache lives in a folder named by the digest of all numerical sources: a changed line anywhere
starts a new folder, and an old result can never come back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba

from binworks.tensors.code import source_digest

F = TypeVar("F", bound=Callable[..., object])


def cache_folder() -> Path:
    """Return where compiled kernels are kept: ``$BINWORKS_KERNEL_CACHE``, else the user's cache folder."""
    base = os.environ.get("BINWORKS_KERNEL_CACHE")
    if base is None:
        base = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "binworks" / "kernels")
    return Path(base) / source_digest()[:16]


def kernel(function: F) -> F:
    """Compile for one core without the GIL, with IEEE arithmetic (no reordering), and keep the machine code.

    A kernel allocates nothing and returns no array: without reference counts, and with every call inlined, the hot
    loops take half the time. What it fills is given to it.
    """
    numba.config.CACHE_DIR = str(cache_folder())
    compiled: F = numba.njit(nogil=True, cache=True, error_model="numpy", forceinline=True, _nrt=False)(
        function
    )
    return compiled
