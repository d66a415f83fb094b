"""What the compiled processors share: they declare fields, histograms and groups, and fill columns into sums.

They are `coffea.processor.ProcessorABC`s too: given NanoEvents they extract the same columns and fill the same bits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from coffea.processor import ProcessorABC
from pydantic import BaseModel, ConfigDict, ValidationError

from binworks.corrections import sets
from binworks.corrections.sets import CorrectionSet
from binworks.processors.columns import Columns, Field, from_nanoevents
from binworks.processors.dataset import Dataset
from binworks.processors.reading import close_files, read
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.expansion import Expansion

if TYPE_CHECKING:
    from binworks.processors.run import Range


class Options(BaseModel):
    """Options of a processor; those that change physics, nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CompiledProcessor(ProcessorABC):  # type: ignore[misc]
    """Base of the compiled processors.

    Parameters
    ----------
    options : mapping
        Validated against the class's ``Options``.
    corrections : CorrectionSet, optional
        Where the payloads are; without a set every correction is the identity.
    systematics : sequence of str, optional
        Names of variation groups; None for all that can be made, but for those that must be asked for.

    Raises
    ------
    RequestError
        ``unknown-option``, ``bad-option``, ``unknown-systematic`` or ``missing-correction``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    version: ClassVar[int]
    Options: ClassVar[type[Options]]
    systematics_known: ClassVar[Mapping[str, tuple[str, ...]]]
    """Variation groups by name, each with the payloads it needs."""
    by_name_only: ClassVar[frozenset[str]] = frozenset()
    """Those that are not made unless asked for."""
    independent_groups: ClassVar[bool] = False
    """Whether, as long as no event is odd, neither the nominal sums nor what a group adds depend on which other groups
    there are: then sums with other groups can be completed."""

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        corrections: CorrectionSet | None = None,
        systematics: Sequence[str] | None = None,
    ) -> None:
        self.options = _options(self.Options, dict(options or {}))
        self.corrections = corrections
        self.systematics = self._chosen(systematics)

    def __reduce__(self) -> tuple[Any, ...]:  # by name and parameters: small, and no compiled state
        place = (
            None
            if self.corrections is None
            else (str(self.corrections.folder.resolve()), self.corrections.digest)
        )
        return _rebuild, (type(self), self.options.model_dump(), place, self.systematics)

    @abstractmethod
    def fields(self, dataset: Dataset) -> tuple[Field, ...]:
        """Return what must be read of that data set."""

    @abstractmethod
    def accumulator(self, dataset: Dataset) -> Accumulator:
        """Return the empty histograms and counts."""

    @abstractmethod
    def fill(self, columns: Columns, dataset: Dataset, accumulator: Accumulator) -> None:
        """Add the events to the accumulator, in their order."""

    @abstractmethod
    def expansions(self) -> list[Expansion]:
        """Return how the compact blocks become named variations."""

    def fill_chunks(
        self,
        dataset: Dataset,
        chunks: Iterable[tuple[Range, int, int]],
        progress: Callable[[int], None] | None,
        begun: Accumulator | None = None,
    ) -> Accumulator:
        """Read and fill each chunk (range, start, stop), in their order, after what is in ``begun``."""
        accumulator = self.accumulator(dataset) if begun is None else begun.copy()
        for columns in _read_ahead(self.fields(dataset), chunks):
            self.fill(columns, dataset, accumulator)
            if progress is not None:
                progress(columns.size)
        return accumulator

    def process(self, events: Any) -> dict[str, Accumulator]:
        """Return the sums of a chunk of NanoEvents, under the data set's name (coffea's interface).

        ``events.metadata`` holds the words of `Dataset`; ``dataset`` is its name.
        """
        known = Dataset.model_fields.keys() - {"name", "files"}
        facts = {key: value for key, value in events.metadata.items() if key in known}
        dataset = Dataset(
            name=events.metadata["dataset"], files=(str(events.metadata.get("filename", "events")),), **facts
        )
        columns = from_nanoevents(events, self.fields(dataset), dataset.files[0])
        accumulator = self.accumulator(dataset)
        self.fill(columns, dataset, accumulator)
        return {dataset.name: accumulator}

    def postprocess(self, accumulator: Any) -> Any:
        """Return the sums as they are; expansion happens when they are read."""
        return accumulator

    def _chosen(self, systematics: Sequence[str] | None) -> tuple[str, ...]:
        known = self.systematics_known
        if systematics is None:
            return tuple(
                name
                for name, payloads in known.items()
                if name not in self.by_name_only and all(self._holds(payload) for payload in payloads)
            )
        for name in systematics:
            if name not in known:
                raise unknown_name("systematic", name, list(known))
            for payload in known[name]:
                self._need(payload)
        return tuple(name for name in known if name in systematics)

    def _holds(self, payload: str) -> bool:
        return self.corrections is not None and payload in self.corrections

    def _need(self, payload: str) -> None:
        if not self._holds(payload):
            raise RequestError(
                f"The correction {payload!r} is needed, but the job's correction set does not have it.",
                code="missing-correction",
                hint="Name a correction set that has it, or leave its systematic out.",
            )


def _options(model: type[Options], given: dict[str, Any]) -> Options:
    for name in given:
        if name not in model.model_fields:
            raise unknown_name("option", name, list(model.model_fields))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"Option {name!r}: {first['msg']}.", code="bad-option") from None


def _rebuild(
    cls: type[CompiledProcessor],
    options: dict[str, Any],
    place: tuple[str, str] | None,
    systematics: tuple[str, ...],
) -> CompiledProcessor:
    corrections = None if place is None else sets.load(Path(place[0]), place[1])
    return cls(options, corrections, systematics)


def _read_ahead(fields: tuple[Field, ...], chunks: Iterable[tuple[Range, int, int]]) -> Iterator[Columns]:
    """Give the chunks as columns; the reading of the next one overlaps what is done with the present one."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        try:
            coming: Future[Columns] | None = None
            for r, start, stop in chunks:
                ready, coming = coming, reader.submit(read, r.path, r.uuid, fields, start, stop, r.login)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()
        finally:
            reader.submit(close_files)
