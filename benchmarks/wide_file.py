"""The fixed cost of a chunk: twenty columns of a file with 1700 branches and few events."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import uproot

from binworks.processors.columns import Field
from binworks.processors.reading import inspect, read

BRANCHES, COLUMNS, EVENTS, CHUNKS = 1700, 20, 1000, 20


def fixed_ms(folder: Path) -> float:
    """Return the median milliseconds of a chunk of 50 events, the file open already."""
    path = folder / "wide.root"
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        file.mktree("Events", {f"branch_{i}": np.arange(EVENTS, dtype="f4") for i in range(BRANCHES)})
    uuid = inspect(str(path)).uuid
    fields = [Field(f"field_{i}", (f"branch_{i * 80}",)) for i in range(COLUMNS)]
    read(str(path), uuid, fields, 0, 1)
    times = []
    for chunk in range(CHUNKS):
        begin = time.perf_counter()
        read(str(path), uuid, fields, chunk * 50, chunk * 50 + 50)
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)
