"""The fixed cost of a chunk: twenty columns of a file with 1700 branches and few events. ``python wide_file.py``.

Warm: the file is open. Cold: the process has its index, but the file is closed. New: a worker that has just started and
has never seen the file, with the index that the service keeps, and without. Beside them coffea, which opens
and parses the file for each chunk.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory

from binworks.processors.columns import Field
from binworks.processors.fileindex import Files, Shelf
from binworks.processors.reading import close_files, inspect, read

BRANCHES, COLUMNS, EVENTS, CHUNK = 1700, 20, 1000, 50
WORKERS = 3
NUMBERS = range(0, BRANCHES, BRANCHES // COLUMNS)
FIELDS = [Field(f"field_{i}", (f"HLT_path{i}",)) for i in NUMBERS]


def fixed_ms(folder: Path) -> float:
    """Return the median milliseconds of a chunk of 50 events, the file open already."""
    path = str(_write(folder / "fixed.root", BRANCHES))
    uuid = inspect(path).uuid
    return _median(lambda start: read(path, uuid, FIELDS, start, start + CHUNK))


def measure(folder: Path) -> dict[str, float]:
    """Return the median milliseconds of a chunk of 50 events in each case."""
    wide, other = _write(folder / "wide.root", BRANCHES), _write(folder / "other.root", COLUMNS)
    shelf = folder / "indexes"
    uuid = inspect(str(wide), Shelf(Files(shelf))).uuid

    def warm(start: int) -> None:
        read(str(wide), uuid, FIELDS, start, start + CHUNK)

    def cold(start: int) -> None:
        close_files()
        warm(start)

    def coffea(start: int) -> None:
        _touch(wide, start)

    new = [str(path) for path in (wide, other)]
    return {
        "chunk_fixed_ms": _median(warm),
        "chunk_cold_ms": _median(cold),
        "chunk_new_worker_ms": _median_of_workers([*new, str(shelf)]),
        "chunk_new_worker_without_index_ms": _median_of_workers(new),
        "chunk_coffea_ms": _median(coffea),
    }


def _write(path: Path, branches: int) -> Path:
    values = np.arange(EVENTS, dtype="f4")
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        names = ["run", "luminosityBlock", "event", *(f"HLT_path{i}" for i in range(branches))]
        file.mktree("Events", dict.fromkeys(names, values))
    return path


def _median(chunk: Callable[[int], object]) -> float:
    chunk(0)
    times = []
    for start in range(0, EVENTS, CHUNK):
        begin = time.perf_counter()
        chunk(start)
        times.append(time.perf_counter() - begin)
    return round(1e3 * statistics.median(times), 2)


def _touch(path: Path, start: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = NanoEventsFactory.from_root(
            {str(path): "Events"},
            schemaclass=NanoAODSchema,
            entry_start=start,
            entry_stop=start + CHUNK,
            mode="virtual",
        ).events()
        for i in NUMBERS:
            ak.to_numpy(events.HLT[f"path{i}"])


def _median_of_workers(arguments: list[str]) -> float:
    """Return what new processes say of their first chunk of the wide file."""
    call = [sys.executable, __file__, *arguments]
    told = [subprocess.run(call, check=True, capture_output=True, text=True).stdout for _ in range(WORKERS)]
    return round(statistics.median(float(line) for line in told), 2)


def _first_chunk_ms(wide: str, other: str, shelf: str | None = None) -> float:
    """Return the milliseconds of a first chunk; another file was read before, so that the libraries are loaded."""
    few = [Field("field", ("HLT_path0",))]
    read(other, inspect(other).uuid, few, 0, CHUNK)
    begin = time.perf_counter()
    facts = inspect(wide, None if shelf is None else Shelf(Files(Path(shelf))))
    read(wide, facts.uuid, FIELDS, 0, CHUNK)
    return 1e3 * (time.perf_counter() - begin)


def main() -> None:
    """Measure and print; with arguments, be the worker that has just started."""
    if len(sys.argv) > 1:
        print(_first_chunk_ms(*sys.argv[1:]))
        return
    with tempfile.TemporaryDirectory(prefix="binworks-bench-") as folder:
        print(json.dumps(measure(Path(folder)), indent=1))


if __name__ == "__main__":
    main()
