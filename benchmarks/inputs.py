"""What all contenders read: simulated W events as they come, and the selected ones alone; and corrections for them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import coffea_idiom
import numpy as np
import uproot

from binworks.samples.arrays import Column, Jagged, concatenate, take_column
from binworks.samples.rootfile import open_events

CHUNK = 50_000
"""Events of a cluster, and that every contender takes at once."""


@dataclass(frozen=True)
class Inputs:
    """A file of events as they come, one of the selected among them, and a correction set."""

    all: Path
    selected: Path
    corrections: Path


def make(folder: Path, events: int) -> Inputs:
    """Make the files with the product's own commands."""
    size, pool = str(events), str(min(events, CHUNK))
    _sample(
        *("resample", "Wplusmunu", "-n", size, "--pool", pool, "--file-events", size),
        *("--out", str(folder / "w")),
    )
    _sample("demo", "--events", "2000", "--out", str(folder / "demo"))
    every, selected = folder / "w" / "Wplusmunu_0.root", folder / "selected" / "Wplusmunu_0.root"
    skim(every, selected)
    return Inputs(every, selected, folder / "demo" / "corrections" / "demo")


def skim(source: Path, target: Path) -> None:
    """Write the selected events of a file, again and again until they are as many, with its branches and clusters."""
    with uproot.open(source) as file:
        tree = file["Events"]
        entries = tree.num_entries
        parts = [_selected(source, tree, start, start + CHUNK) for start in range(0, entries, CHUNK)]
    whole = {name: concatenate([part[name] for part in parts]) for name in parts[0]}
    size = sum(len(part["run"]) for part in parts)
    with open_events(target, np.random.SeedSequence(1)) as out:
        for start in range(0, entries, CHUNK):
            index = np.arange(start, min(start + CHUNK, entries)) % size
            out.extend({name: take_column(column, index) for name, column in whole.items()})


def _selected(source: Path, tree: Any, start: int, stop: int) -> dict[str, Any]:
    """Return all branches of the selected events of a range, as the sample writer takes them."""
    arrays = tree.arrays(entry_start=start, entry_stop=stop)
    columns: dict[str, Column] = {}
    for name in arrays.fields:
        if name[0] == "n" and name[1:2].isupper():  # a counter: a block of weights, or a collection
            columns[name[1:]] = _counted(arrays, name[1:])
        elif arrays[name].ndim == 1:
            columns[name] = ak.to_numpy(arrays[name])
    index = np.flatnonzero(ak.to_numpy(coffea_idiom.chosen(coffea_idiom.opened(source, start, stop))))
    return {name: take_column(column, index) for name, column in columns.items()}


def _counted(arrays: Any, name: str) -> Column:
    counts = ak.to_numpy(arrays[f"n{name}"]).astype(np.int64)
    if name in arrays.fields:
        return ak.to_numpy(ak.flatten(arrays[name])).reshape(len(counts), -1)
    inner = [field for field in arrays.fields if field.startswith(f"{name}_")]
    inner = [field for field in inner if arrays[field].ndim == 2]
    return Jagged(counts, {f.removeprefix(f"{name}_"): ak.to_numpy(ak.flatten(arrays[f])) for f in inner})


def _sample(*words: str) -> None:
    command = [str(Path(sys.executable).with_name("binworks")), "sample", *words, "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
