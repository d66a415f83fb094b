"""How a unit is filled: whole, from a partial that has other variation groups, or in steps; always to the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from binworks.processors import reading, run
from binworks.processors.compiled import CompiledProcessor
from binworks.processors.dataset import Dataset
from binworks.processors.fileindex import Shelf
from binworks.processors.foreign import ForeignProcessor
from binworks.processors.run import Range
from binworks.service import credentials, layout, partials, plan
from binworks.service.plan import Piece
from binworks.service.store import Store
from binworks.service.tasks import FillUnit, Recipe
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import ConflictError, TransientError
from binworks.tensors.histogram import Histogram

LEAST_CHUNK = 1000
"""Events; below, files are read in too many bits."""

Processor = CompiledProcessor | ForeignProcessor
Make = Callable[[Recipe], Processor]


class Filling:
    """The filling of a unit.

    Parameters
    ----------
    task : FillUnit
        Which.
    store : Store
        Where partials and checkpoints are.
    shelf : Shelf
        Where indexes of files are kept.
    make : callable
        Recipe -> processor; refuses other code.
    progress : callable, optional
        Called with the number of events done, now and then.
    """

    def __init__(
        self,
        task: FillUnit,
        store: Store,
        shelf: Shelf,
        make: Make,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.task, self.store, self.shelf, self.make, self.progress = task, store, shelf, make, progress
        self.processor = make(task.recipe)
        self.dataset = Dataset.model_validate_json(task.dataset)
        compiled = isinstance(self.processor, CompiledProcessor)
        self.chunk = max(run.CHUNK >> task.splits, LEAST_CHUNK) if compiled else run.CHUNK
        self.ends = plan.step_ends(task.pieces, 2**task.splits, 1 if compiled else run.CHUNK)

    @property
    def name(self) -> str:
        """What the sums after the task's step are stored as: a checkpoint, after the last one the partial."""
        last = self.task.step == len(self.ends) - 1
        return self.task.partial if last else self._checkpoint(self.task.step)

    def sums(self) -> Accumulator:
        """Return the sums after the task's step.

        Raises
        ------
        ConflictError
            ``events-lost``, if the processor does not count all events.
        """
        if self.task.splits:
            return self._advanced()
        completed = self._completed() if self.task.lent is not None else None
        return self._filled(self.processor, self.task.pieces) if completed is None else completed

    def remove_checkpoints(self) -> None:
        """Remove what the steps left behind; what cannot be removed is rubbish that others collect."""
        for step in range(len(self.ends) - 1):
            with suppress(TransientError, OSError):
                self.store.remove(layout.partial(self._checkpoint(step)))

    def _filled(
        self, processor: Processor, pieces: Sequence[Piece], begun: Accumulator | None = None
    ) -> Accumulator:
        before = 0 if begun is None else begun.counts["entries"]
        accumulator = run.fill_ranges(
            processor, self.dataset, self._ranges(pieces), self.progress, begun=begun, chunk=self.chunk
        )
        expected = before + sum(piece.events for piece in pieces)
        if accumulator.counts.get("entries") != expected:
            raise ConflictError(
                f"There are {expected} events, but the processor counted {accumulator.counts.get('entries')}.",
                code="events-lost",
                where=", ".join(piece.path for piece in pieces),
            )
        return accumulator

    def _ranges(self, pieces: Sequence[Piece]) -> Iterator[Range]:
        """Give the ranges; each file's index is there, or made, before the first of its events is read."""
        for piece in pieces:
            login = credentials.login(self.task.owner, piece.path)
            reading.inspect(piece.path, self.shelf, login)
            yield Range(piece.path, piece.uuid, piece.start, piece.stop, login)

    # in steps

    def _advanced(self) -> Accumulator:
        """Go on from the last checkpoint that is there."""
        done, begun = self._begun()
        pieces = plan.between(self.task.pieces, done, self.ends[self.task.step])
        return self._filled(self.processor, pieces, begun)

    def _begun(self) -> tuple[int, Accumulator | None]:
        """Return the events of the last checkpoint before the step, and their sums."""
        for step in reversed(range(self.task.step)):
            begun = partials.sound(self.store, self._checkpoint(step))
            if begun is not None and begun.counts.get("entries") == self.ends[step]:
                return self.ends[step], begun
        return 0, None

    def _checkpoint(self, step: int) -> str:
        return plan.checkpoint_name(self.task.partial, self.ends[step])

    # from a partial of the same events with other groups

    def _completed(self) -> Accumulator | None:
        """Return the lent sums with the missing groups filled; None if they are not what a whole fill would have.

        A number that is not finite in one group's columns leaves an event out of all of them. So the sums can be put
        together from two fills if no event is odd in either, and if both agree in all that they share.
        """
        if not isinstance(self.processor, CompiledProcessor) or not self.processor.independent_groups:
            return None
        whole = self.processor.accumulator(self.dataset)
        lent = self._lent(whole)
        if lent is None:
            return None
        missing = whole.histograms.keys() - lent.histograms.keys()
        if not missing:
            return _joined(whole, lent)
        part = self._filled(self._only(self.processor, missing), self.task.pieces)
        return _joined(whole, lent, part) if _agree(lent, part) else None

    def _lent(self, whole: Accumulator) -> Accumulator | None:
        """Return those of the lent sums that a whole fill has too; None if they are of no use."""
        common = self._only(self.processor, ()).accumulator(self.dataset)
        lent = partials.sound(self.store, str(self.task.lent))
        if lent is None:
            return None
        recipe = self.store.attributes(layout.partial(str(self.task.lent)))["recipe"]
        events = sum(piece.events for piece in self.task.pieces)
        alike = {**recipe, "systematics": None} == {**self.task.recipe.facts(), "systematics": None}
        if not alike or _odd(lent) or lent.counts.get("entries") != events:
            return None
        lent.histograms = {
            name: found
            for name, found in lent.histograms.items()
            if name in whole.histograms and found.uhi() == whole.histograms[name].uhi()
        }
        return None if common.histograms.keys() - lent.histograms.keys() else lent

    def _only(self, processor: Processor, blocks: Sequence[str] | set[str]) -> Processor:
        """Return the processor with the groups that make these blocks alone."""
        groups = {expansion.group for expansion in processor.expansions() if expansion.block in blocks}
        wanted = tuple(name for name in self.task.recipe.systematics if name in groups)
        return self.make(replace(self.task.recipe, systematics=wanted))


def _odd(sums: Accumulator) -> bool:
    return any(count for name, count in sums.counts.items() if name.startswith("odd/")) or any(
        sums.examples.values()
    )


def _agree(one: Accumulator, other: Accumulator) -> bool:
    """Whether two fills of the same events have the same counts, and the same bits in what both have."""
    shared = one.histograms.keys() & other.histograms.keys()
    return one.counts == other.counts and all(
        _same_bits(one.histograms[name], other.histograms[name]) for name in shared
    )


def _same_bits(one: Histogram, other: Histogram) -> bool:
    pairs = [(one.values, other.values), (one.variances, other.variances)]
    return all(
        a is b
        if a is None or b is None
        else a.shape == b.shape and np.array_equal(a.view("u8"), b.view("u8"))
        for a, b in pairs
    )


def _joined(whole: Accumulator, *parts: Accumulator) -> Accumulator | None:
    """Put the histograms of a whole fill together from those of parts; None if one is missing."""
    found = {name: h for part in reversed(parts) for name, h in part.histograms.items()}
    if whole.histograms.keys() - found.keys():
        return None
    histograms = {
        name: Histogram(empty.axes, found[name].values, found[name].variances, empty.metadata)
        for name, empty in whole.histograms.items()
    }
    return Accumulator(histograms, parts[0].counts, parts[0].examples)
