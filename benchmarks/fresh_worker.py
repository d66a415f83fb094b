"""What a worker that has just started needs: memory and time to compile. ``python fresh_worker.py FILE CORRECTIONS``.

Imports what a worker of the service imports, and runs the pass in one thread, as it does.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import distributed  # noqa: F401 - its memory counts
from child import timed
from product import Product

from binworks.service import worker  # noqa: F401 - its memory counts


def megabytes(key: str) -> float:
    """Return a figure of this program; `getrusage` remembers who started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) / 1024


def measure(path: str, corrections: str) -> dict[str, Any]:
    """Return megabytes, resident at the peak so far, and seconds."""
    imported = megabytes("VmHWM")
    made = Product(corrections)
    first = timed(lambda: made.run(path, 10))["seconds"]
    compiled = megabytes("VmHWM")
    made.run(path, None)
    peak, shared = megabytes("VmHWM"), megabytes("RssFile")
    again = timed(lambda: Product(corrections).run(path, 10))["seconds"]  # reads payloads, compiles nothing
    return {
        "imported_mb": round(imported),
        "compiled_mb": round(compiled),
        "peak_mb": round(peak),
        "shared_mb": round(shared),
        "compile_s": round(first - again, 2),
        "prepare_s": round(again, 2),
    }


def main() -> None:
    """Measure in a thread, print JSON."""
    with ThreadPoolExecutor(1) as pool:
        print(json.dumps(pool.submit(measure, *sys.argv[1:3]).result()))


if __name__ == "__main__":
    main()
