"""The one decorator of all kernels.

numba looks only at a kernel's own file to decide whether its cached machine code is stale, not at the files of the
functions it calls. So the cache lives in a folder named by the digest of all numerical sources: a changed line anywhere
starts a new folder, and an old result can never come back.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from binworks.tensors.code import source_digest

F = TypeVar("F", bound=Callable[..., object])


def cache_folder() -> Path:
    """Return where compiled kernels are kept: ``$BINWORKS_KERNEL_CACHE``, else the user's cache folder."""
    base = os.environ.get("BINWORKS_KERNEL_CACHE")
    if base is None:
        base = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "binworks" / "kernels")
    return Path(base) / source_digest()[:16]


class CacheFile(IndexDataCacheFile):  # type: ignore[misc]
    """The index and the machine code of one kernel, also if several processes write at the same time.

    numba itself numbers the files of machine code, index first: of two processes that start on an empty cache each
    takes the same number, and the index then gives one signature the code of another. Here a file has a name of its
    own. What one process writes into the index may still be lost to another: it is compiled once more, that is all.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep the machine code of a signature."""
        name = self._data_name_pattern.replace("{number:d}", uuid.uuid4().hex)
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


class Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache of one kernel, kept in a `CacheFile`."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        self._cache_file = CacheFile(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )


def kernel(function: F) -> F:
    """Compile for one core without the GIL, with IEEE arithmetic (no reordering), and keep the machine code.

    A kernel allocates nothing and returns no array: without reference counts, and with every call inlined, the hot
    loops take half the time. What it fills is given to it.
    """
    numba.config.CACHE_DIR = str(cache_folder())
    compiled: F = numba.njit(nogil=True, error_model="numpy", forceinline=True, _nrt=False)(function)
    compiled._cache = Cache(function)  # type: ignore[attr-defined]
    return compiled
