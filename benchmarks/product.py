"""Our pass over a file, and how many templates each variation group stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from binworks.corrections import sets
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect
from binworks.processors.run import Range, fill_ranges


@dataclass(frozen=True)
class Group:
    """Templates of a variation group for W events, and whether one changes only events in its own (eta, charge) bin."""

    templates: int
    own: bool


class Product:
    """The W processor over a file of W events.

    Parameters
    ----------
    corrections : path
        Folder of a correction set.
    """

    def __init__(self, corrections: str) -> None:
        self._corrections = sets.load(Path(corrections))
        self._made: dict[tuple[str, ...] | None, Any] = {}

    def processor(self, systematics: Sequence[str] | None = None) -> Any:
        """Return the processor, made once as in a worker; None for all systematics that there are."""
        key = None if systematics is None else tuple(systematics)
        if key not in self._made:
            self._made[key] = registry.create("w_mass", {}, self._corrections, systematics)
        return self._made[key]

    def run(self, path: str, events: int | None, systematics: Sequence[str] | None = None) -> int:
        """Fill the first events of a file (None: all); return how many were selected."""
        facts = inspect(path)
        whole = Range(facts.path, facts.uuid, 0, facts.entries if events is None else events)
        return fill_ranges(self.processor(systematics), dataset(path), [whole]).counts["selected"]

    def branches(self, path: str) -> list[str]:
        """Return the branches that are read for all systematics, if they are in the file."""
        return sorted({b for field in self.processor().fields(dataset(path)) for b in field.branches})

    def groups(self, path: str) -> dict[str, Group]:
        """Return the groups that vary the events of a file, largest first.

        Who fills one histogram a variation fills the weights of a group of full weights, pairs included; averages
        of pairs are made later, here as there.
        """
        processor = self.processor()
        blocks = processor.accumulator(dataset(path)).histograms
        found = {}
        for expansion in processor.expansions():
            if expansion.block not in blocks:
                continue
            own = bool(expansion.block_axes)
            templates = len(expansion.variations) if own else len(np.unique(expansion.column))
            found[expansion.group] = Group(templates, own)
        return dict(sorted(found.items(), key=lambda item: -item[1].templates))


def dataset(path: str) -> Dataset:
    """Return what the events are."""
    return Dataset(name="Wplusmunu", files=(path,), boson="W")


def subset(groups: Mapping[str, Group], templates: int) -> dict[str, Group]:
    """Return the groups that together with the nominal make nearest to that many templates."""
    made: dict[int, tuple[str, ...]] = {1: ()}
    for name, group in groups.items():
        longer = {n + group.templates: (*names, name) for n, names in made.items()}
        made = longer | made
    nearest = min(made, key=lambda n: abs(np.log(n / templates)))
    return {name: groups[name] for name in made[nearest]}


def count(groups: Mapping[str, Group]) -> int:
    """Return the number of histograms: the nominal and all templates."""
    return 1 + sum(group.templates for group in groups.values())


def as_json(groups: Mapping[str, Group]) -> dict[str, dict[str, Any]]:
    """Return the groups as plain dictionaries."""
    return {name: asdict(group) for name, group in groups.items()}
