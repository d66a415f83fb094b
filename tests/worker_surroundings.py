"""What somebody's processor finds on a worker; a module of its own, as the worker imports it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import psutil


def surroundings() -> dict[str, Any]:
    """Return what somebody's processor finds, run on a worker."""
    line = [psutil.Process(), *psutil.Process().parents()]
    host = next(
        number for number, process in enumerate(line) if "binworks.deploy.worker" in process.cmdline()
    )
    inherited = [
        word for process in line[: host + 1] for word in (*process.environ().values(), *process.cmdline())
    ]
    return {
        "environment": dict(os.environ),
        "inherited": inherited,
        "corrections": importlib.util.find_spec("corrections") is not None,
        "here": str(Path.cwd()),
        "safe": sys.flags.safe_path,
    }
