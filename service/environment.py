"""The environment that workers need before any library is loaded."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from binworks.processors.sources import XROOTD_ENVIRONMENT

KERNEL_CACHE = "BINWORKS_KERNEL_CACHE"

WORKER: Mapping[str, str] = {
    "PYTHONSAFEPATH": "1",  # a corrections.py in the folder of the start must not be imported
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # free memory goes back to the system, but not the columns of each chunk: fresh pages for them take longer to get
    # than to decompress into
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_ARENA_MAX": "1",
    **XROOTD_ENVIRONMENT,
}


def kernel_cache(base: str | None) -> Path:
    """Return where this machine keeps compiled kernels: never shared with machines of another kind.

    Parameters
    ----------
    base : str or None
        What the environment says; default: the user's cache folder. It should be on a local disk.
    """
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "binworks" / "kernels"
    kind = f"{_cpu()} {platform.python_version()} numba {version('numba')} llvmlite {version('llvmlite')}"
    return Path(base or usual) / hashlib.sha256(kind.encode()).hexdigest()[:16]


def _cpu() -> str:
    """Return the processor's model and features."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "CPU part", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
