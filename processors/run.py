"""Run a processor over ranges of files: the reading of the next range overlaps the filling of the present one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from binworks.processors.columns import Columns, Field
from binworks.processors.dataset import Dataset
from binworks.processors.foreign import ForeignProcessor
from binworks.processors.reading import close_files, inspect, read
from binworks.tensors.accumulator import Accumulator

if TYPE_CHECKING:
    from binworks.processors.compiled import CompiledProcessor

    Processor = CompiledProcessor | ForeignProcessor

CHUNK = 50_000
"""Events read at once: some 30 MB of columns."""


@dataclass(frozen=True)
class Range:
    """Entries ``start`` to ``stop`` of a file that had this uuid when the work was planned."""

    path: str
    uuid: str
    start: int
    stop: int


def fill_ranges(
    processor: Processor,
    dataset: Dataset,
    ranges: Iterable[Range],
    progress: Callable[[int], None] | None = None,
) -> Accumulator:
    """Fill one accumulator with the events of the ranges, in their order.

    The sums are made event by event, so they do not depend on how the ranges are cut.

    Parameters
    ----------
    processor : CompiledProcessor or ForeignProcessor
        What to compute.
    dataset : Dataset
        What the events are.
    ranges : iterable of Range
        Where they are.
    progress : callable, optional
        Called with the number of events done after each chunk.

    Raises
    ------
    InputError, TransientError
        From reading; the file is named.
    """
    if isinstance(processor, ForeignProcessor):
        return processor.fill_chunks(dataset, _chunks(ranges), progress)
    accumulator = processor.accumulator(dataset)
    for columns in _read_ahead(processor.fields(dataset), ranges):
        processor.fill(columns, dataset, accumulator)
        if progress is not None:
            progress(columns.size)
    return accumulator


def run_files(processor: Processor, dataset: Dataset) -> Accumulator:
    """Run over all files of a data set in this process: no service, no plan."""
    facts = [inspect(path) for path in dataset.files]
    return fill_ranges(processor, dataset, [Range(f.path, f.uuid, 0, f.entries) for f in facts])


def _chunks(ranges: Iterable[Range]) -> Iterator[tuple[Range, int, int]]:
    """Give the ranges in pieces that fit into memory."""
    for r in ranges:
        for start in range(r.start, r.stop, CHUNK):
            yield r, start, min(start + CHUNK, r.stop)


def _read_ahead(fields: tuple[Field, ...], ranges: Iterable[Range]) -> Iterator[Columns]:
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        try:
            coming: Future[Columns] | None = None
            for r, start, stop in _chunks(ranges):
                ready, coming = coming, reader.submit(read, r.path, r.uuid, fields, start, stop)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()
        finally:
            reader.submit(close_files)
