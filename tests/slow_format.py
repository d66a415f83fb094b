"""``python slow_format.py --home HOME``: the process that exports, with formats that misbehave as a test wants."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import numpy as np

from binworks.service import exporting
from binworks.tensors import export
from binworks.tensors.fitinput import FitInput

SUFFIX = ".slow"
MEDIA_TYPE = "text/plain"
WHERE, LONGEST = "SLOW_FORMAT", "SLOW_FORMAT_LONGEST"
HALF, GO = "half", "go"


def write(fit: FitInput, path: Path) -> None:
    """Write half of the file, wait until the test says go on, and do what it says."""
    folder = Path(os.environ[WHERE])
    path.write_bytes(b"x" * 1000)
    (folder / HALF).write_text(str(os.getpid()))
    while not (folder / GO).exists():
        for channel in fit.channels:
            for process in range(len(channel.processes)):
                for _ in channel.effects(process):
                    pass
        time.sleep(0.02)
    what = (folder / GO).read_text()
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if what == "large":
        np.ones(10**10)
    if what == "wrong":
        raise ValueError("secret")
    path.write_bytes(f"{fit.parameters}".encode())


def register() -> None:
    """Let the formats be known to this process."""
    export.FORMATS["slow"] = "slow_format"


if __name__ == "__main__":
    sys.modules["slow_format"] = sys.modules["__main__"]
    register()
    exporting.LONGEST_SECONDS = float(os.environ.get(LONGEST, exporting.LONGEST_SECONDS))
    exporting.main()
