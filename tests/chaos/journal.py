"""The journals that toys keep: every fill that began and every one that ended, exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Fill:
    """One fill of one unit, known by its first event; ``ended`` is None if it was cut short."""

    first: int
    begun: float
    worker: int
    ended: float | None = None


def read(path: Path) -> list[Fill]:
    """Return the fills in the order in which they began."""
    fills: list[Fill] = []
    open_: dict[tuple[int, int], Fill] = {}
    for line in path.read_text().splitlines():
        what, first, at, worker = line.split()
        place = (int(first), int(worker))
        if what == "begin":
            fills.append(Fill(int(first), float(at), int(worker)))
            open_[place] = fills[-1]
        else:
            open_.pop(place).ended = float(at)
    return fills


def redone(fills: Iterable[Fill]) -> list[Fill]:
    """Return the fills that came to nothing, because their units were filled again."""
    by_unit: dict[int, list[Fill]] = defaultdict(list)
    for fill in fills:
        by_unit[fill.first].append(fill)
    return [fill for again in by_unit.values() for fill in again[:-1]]
