"""A folder of a process's own among those of others, which is removed in the end, whatever that is."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "lock"
FRESH_SECONDS = 60.0
"""A folder so young may belong to a process that has not locked it yet."""


@contextmanager
def private_folder(parent: Path | None, prefix: str) -> Iterator[Path]:
    """Give a new folder that no other user can enter; remove those that killed processes of this user left.

    Parameters
    ----------
    parent : Path or None
        Made if it is not there; default: where the system keeps temporary files. It may be open to all users.
    prefix : str
        Of the folder's name.
    """
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for other in folder.parent.glob(f"{prefix}*"):
                if other != folder:
                    _remove_if_left(other)
            yield folder


def _remove_if_left(folder: Path) -> None:
    try:
        status = folder.lstat()
        if status.st_uid != os.geteuid() or time.time() - status.st_mtime < FRESH_SECONDS:
            return
        with (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # it is in use, or gone, or not one of ours
        return
