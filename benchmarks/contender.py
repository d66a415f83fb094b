"""The contenders that run under this Python: ``python contender.py KIND CORRECTIONS``, questions on stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import child
from inputs import CHUNK


def bare_read(_corrections: str) -> Any:
    """Read the branches with uproot into awkward arrays and do nothing with them."""
    import uproot

    def work(path: str, events: int, branches: list[str]) -> int:
        with uproot.open(path) as file:
            tree = file["Events"]
            names = [branch for branch in branches if branch in tree]
            for start in range(0, events, CHUNK):
                tree.arrays(names, entry_start=start, entry_stop=min(start + CHUNK, events), library="ak")
        return events

    return work


def product(corrections: str) -> Any:
    """Run the W processor."""
    from product import Product

    made = Product(corrections)

    def work(path: str, events: int, systematics: list[str]) -> int:
        return made.run(path, events, systematics)

    return work


def coffea_idiom(_corrections: str) -> Any:
    """Fill variation after variation."""
    from coffea_idiom import run

    def work(path: str, events: int, groups: dict[str, dict[str, Any]], growing: bool) -> int:
        return run(Path(path), 0, events, groups, growing=growing)

    return work


KINDS = {"bare_read": bare_read, "product": product, "coffea_idiom": coffea_idiom}


def main() -> None:
    """Serve."""
    work = KINDS[sys.argv[1]](sys.argv[2])

    def answer(**question: Any) -> dict[str, Any]:
        return child.timed(lambda: work(**question))

    child.serve(answer)


if __name__ == "__main__":
    main()
