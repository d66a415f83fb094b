"""How a job is cut into units of work: a pure function of the job and its files, not of workers or the clock.

Each unit belongs to one data set, holds whole clusters (the stretches of a file that are compressed
together), and has about the number of events asked for. Files appended to a data set leave the units before
them as they were.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class FileFacts:
    """What the plan needs to know of a file.

    Parameters
    ----------
    path, uuid : str
        Where it is, and its own identity.
    size, entries : int
        Bytes and events.
    clusters : tuple of int
        Entry numbers where it may be cut: 0, ..., entries.
    """

    path: str
    uuid: str
    size: int
    entries: int
    clusters: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Entries ``start`` to ``stop`` of a file."""

    path: str
    uuid: str
    size: int
    start: int
    stop: int

    @property
    def events(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass(frozen=True)
class Unit:
    """A unit of work and of commit: it counts whole, and once.

    Parameters
    ----------
    number : int
        Within the job, from 0.
    dataset : str
        All its events are of this data set.
    pieces : tuple of Piece
        In the order in which they are filled.
    turn : float
        Units are started by increasing turn: all data sets get on alike, so that every snapshot is a fair
        sample.
    """

    number: int
    dataset: str
    pieces: tuple[Piece, ...]
    turn: float

    @property
    def events(self) -> int:
        """How many."""
        return sum(piece.events for piece in self.pieces)


def cut(datasets: Mapping[str, Sequence[FileFacts]], unit_events: int) -> tuple[Unit, ...]:
    """Cut the files of each data set, in their order, into units.

    Parameters
    ----------
    datasets : mapping
        Files by name of the data set; both orders matter.
    unit_events : int
        A unit takes another cluster as long as that brings it nearer to this.

    Returns
    -------
    tuple of Unit
        Numbered in order; none is empty.
    """
    units: list[Unit] = []
    for name, files in datasets.items():
        mine = list(_groups(files, unit_events))
        units += [
            Unit(len(units) + i, name, _joined(group), (i + 0.5) / len(mine)) for i, group in enumerate(mine)
        ]
    return tuple(units)


def _groups(files: Sequence[FileFacts], unit_events: int) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    events = 0
    for piece in _clusters(files):
        if group and abs(events + piece.events - unit_events) > abs(events - unit_events):
            yield group
            group, events = [], 0
        group.append(piece)
        events += piece.events
    if group:
        yield group


def _clusters(files: Sequence[FileFacts]) -> Iterator[Piece]:
    for file in files:
        for start, stop in zip(file.clusters, file.clusters[1:], strict=False):
            if stop > start:
                yield Piece(file.path, file.uuid, file.size, start, stop)


def _joined(group: Sequence[Piece]) -> tuple[Piece, ...]:
    joined: list[Piece] = []
    for piece in group:
        last = joined[-1] if joined else None
        if last is not None and (last.path, last.stop) == (piece.path, piece.start):
            joined[-1] = Piece(piece.path, piece.uuid, piece.size, last.start, piece.stop)
        else:
            joined.append(piece)
    return tuple(joined)


def partial_name(recipe: Mapping[str, Any], pieces: Sequence[Piece]) -> str:
    """Return the name of what a unit fills: a hash of all that decides its bits.

    Parameters
    ----------
    recipe : mapping
        JSON-able: processor, its code, options, corrections, systematics, facts of the data set.
    pieces : sequence of Piece
        Files count by uuid and size; where they lie does not matter.
    """
    return _hash({"schema": "binworks.partial/1", "recipe": dict(recipe), "ranges": _ranges(pieces)})


def base_name(recipe: Mapping[str, Any], pieces: Sequence[Piece]) -> str:
    """Return what the names of a unit's partials have in common, whatever the variation groups.

    Parameters
    ----------
    recipe, pieces
        As for `partial_name`.
    """
    common = {name: fact for name, fact in recipe.items() if name != "systematics"}
    return _hash({"schema": "binworks.base/1", "recipe": common, "ranges": _ranges(pieces)})


def checkpoint_name(partial: str, events: int) -> str:
    """Return the name of the sums over the first events of a unit that is filled in steps."""
    return _hash({"schema": "binworks.checkpoint/1", "partial": partial, "events": events})


def merged_name(children: Sequence[str]) -> str:
    """Return the name of the sum of partials, from left to right."""
    return _hash({"schema": "binworks.merged/1", "children": list(children)})


def step_ends(pieces: Sequence[Piece], steps: int, grain: int = 1) -> tuple[int, ...]:
    """Return how many events of a unit are filled after each step: about equal parts, the last one all.

    Halving the steps leaves a subset of the ends, so that what coarser steps have stored is of use to finer ones.

    Parameters
    ----------
    grain : int
        A step ends after a whole number of so many events of a piece, or with the piece.
    """
    grains = sum(_grains(piece, grain) for piece in pieces)
    return tuple(_events_in(pieces, -(-grains * (step + 1) // steps), grain) for step in range(steps))


def between(pieces: Sequence[Piece], start: int, stop: int) -> tuple[Piece, ...]:
    """Return events ``start`` to ``stop`` of a unit, counted from its first."""
    found, before = [], 0
    for piece in pieces:
        first, last = max(start - before, 0), min(stop - before, piece.events)
        if first < last:
            found.append(replace(piece, start=piece.start + first, stop=piece.start + last))
        before += piece.events
    return tuple(found)


def _grains(piece: Piece, grain: int) -> int:
    return -(-piece.events // grain)


def _events_in(pieces: Sequence[Piece], grains: int, grain: int) -> int:
    """Return the number of events in the first grains of a unit."""
    events = 0
    for piece in pieces:
        taken = min(grains, _grains(piece, grain))
        events += min(taken * grain, piece.events)
        grains -= taken
    return events


def _ranges(pieces: Sequence[Piece]) -> list[list[str | int]]:
    """Return what identifies the events: where a file lies does not matter."""
    return [[piece.uuid, piece.size, piece.start, piece.stop] for piece in pieces]


def _hash(of: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
