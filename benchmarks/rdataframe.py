"""ROOT's RDataFrame with the C++ beside this file; questions on stdin. Runs under any Python that has ROOT."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import child

os.environ.setdefault("EXTRA_CLING_ARGS", "-O3 -march=native")


def main() -> None:
    """Serve: ``python rdataframe.py ELEMENTS``, elements of a tensor as long as our list of templates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ROOT
    source = (Path(__file__).parent / "rdataframe.cpp").read_text()
    if not ROOT.gInterpreter.Declare(f"#define OTHERS {int(sys.argv[1])}\n{source}"):
        raise SystemExit("rdataframe.cpp does not compile")

    def answer(path: str, events: int, tensors: str) -> dict[str, Any]:
        return child.timed(lambda: ROOT.bench.run(path, events, tensors))

    child.serve(answer)


if __name__ == "__main__":
    main()
