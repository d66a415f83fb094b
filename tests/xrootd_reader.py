"""Reads what it is asked for on its input, a JSON document a line: a process of its own, beside a server."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

from binworks.processors.columns import Columns, Field
from binworks.processors.reading import FileInfo, inspect, read
from binworks.tensors.errors import BinworksError

FIELDS = (
    Field("run", ("run",), "i8"),
    Field("muon.pt", ("Muon_pt",), "f4", "jagged"),
    Field("muon.global", ("Muon_isGlobal",), "u1", "jagged"),
    Field("trigger", ("HLT_IsoMu24", "HLT_IsoTkMu24"), "u1", "any"),
    Field("pdf", ("LHEPdfWeight",), "f4", "block"),
)


def digest(columns: Columns) -> str:
    """Return the sha256 of all that was read."""
    parts = [*columns.arrays.items(), *columns.offsets.items()]
    return hashlib.sha256(b"".join(name.encode() + array.tobytes() for name, array in parts)).hexdigest()


def answer(known: dict[str, FileInfo], path: str, start: int, stop: int) -> dict[str, Any]:
    """Return what reading a range gave: a digest, or the error."""
    try:
        if path not in known:
            known[path] = inspect(path)
        return {"digest": digest(read(path, known[path].uuid, FIELDS, start, stop))}
    except BinworksError as error:
        return {"error": type(error).__name__, "code": error.code, "message": str(error)}


def main() -> None:
    """Answer until the input ends."""
    known: dict[str, FileInfo] = {}
    for line in sys.stdin:
        begin = time.monotonic()
        found = answer(known, **json.loads(line))
        print(json.dumps({**found, "seconds": time.monotonic() - begin}), flush=True)


if __name__ == "__main__":
    main()
