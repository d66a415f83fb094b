"""Run a processor over ranges of files, in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from binworks.processors.dataset import Dataset
from binworks.processors.reading import inspect
from binworks.processors.sources import Login
from binworks.tensors.accumulator import Accumulator

CHUNK = 50_000
"""Events read at once: some 30 MB of columns."""


@dataclass(frozen=True)
class Range:
    """Entries ``start`` to ``stop`` of a file that had this uuid when the work was planned; read as somebody."""

    path: str
    uuid: str
    start: int
    stop: int
    login: Login | None = None


class Processor(Protocol):
    """What can be run: a compiled processor, or anybody's that is wrapped."""

    def fill_chunks(
        self,
        dataset: Dataset,
        chunks: Iterable[tuple[Range, int, int]],
        progress: Callable[[int], None] | None,
        begun: Accumulator | None = None,
    ) -> Accumulator:
        """Return ``begun`` and the sums over the chunks (range, start, stop), added in their order."""
        ...


def fill_ranges(
    processor: Processor,
    dataset: Dataset,
    ranges: Iterable[Range],
    progress: Callable[[int], None] | None = None,
    *,
    begun: Accumulator | None = None,
    chunk: int | None = None,
) -> Accumulator:
    """Fill one accumulator with the events of the ranges, in their order.

    A compiled processor adds event by event, so its sums do not depend on how the ranges are cut, nor on whether they
    are filled at once. Another one's do not depend on the latter if it stops between two chunks.

    Parameters
    ----------
    processor : Processor
        What to compute.
    dataset : Dataset
        What the events are.
    ranges : iterable of Range
        Where they are.
    progress : callable, optional
        Called with the number of events done after each chunk.
    begun : Accumulator, optional
        The sums over the events before these, to go on from; it is not changed.
    chunk : int, optional
        Events read at once; default: `CHUNK`.

    Raises
    ------
    InputError, TransientError
        From reading; the file is named.
    """
    return processor.fill_chunks(dataset, _chunks(ranges, chunk or CHUNK), progress, begun)


def run_files(processor: Processor, dataset: Dataset) -> Accumulator:
    """Run over all files of a data set in this process: no service, no plan."""
    facts = [inspect(path) for path in dataset.files]
    return fill_ranges(processor, dataset, [Range(f.path, f.uuid, 0, f.entries) for f in facts])


def _chunks(ranges: Iterable[Range], chunk: int) -> Iterator[tuple[Range, int, int]]:
    """Give the ranges in pieces that fit into memory."""
    for r in ranges:
        for start in range(r.start, r.stop, chunk):
            yield r, start, min(start + chunk, r.stop)
