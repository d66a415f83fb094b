"""The door for everybody's analysis: any `coffea.processor.ProcessorABC` from an installed entry point.

It is given NanoEvents (virtual mode) chunk by chunk and returns nested dicts of `hist.Hist` and numbers; these become
an `Accumulator` like any other: keys joined by dots name the histograms, integers are counts, other numbers are kept in
a histogram of one cell. Its ``postprocess`` is not run, since sums go on being added: apply it to what is pulled.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import hist
import numpy as np
from pydantic import BaseModel, ConfigDict

from binworks.processors.dataset import Dataset
from binworks.processors.reading import nanoevents
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram

if TYPE_CHECKING:
    from coffea.processor import ProcessorABC

    from binworks.processors.run import Range

ENTRIES = "entries"


class ForeignOptions(BaseModel):
    """The keyword arguments of the processor's constructor."""

    model_config = ConfigDict(extra="allow", frozen=True)


class ForeignProcessor:
    """Runs a coffea processor as one of ours.

    Parameters
    ----------
    cls : type
        The processor's class.
    options : mapping, optional
        Keyword arguments of its constructor; JSON values.

    Raises
    ------
    RequestError
        ``unknown-option`` or ``bad-option``, if the constructor does not take them.
    """

    systematics: tuple[str, ...] = ()

    def __init__(self, cls: type[ProcessorABC], options: Mapping[str, Any] | None = None) -> None:
        self.options = ForeignOptions(**(options or {}))
        self._processor = _construct(cls, dict(options or {}))

    def accumulator(self, _dataset: Dataset) -> Accumulator:
        """Return no histograms: what there will be is known when events were seen."""
        return Accumulator({}, {ENTRIES: 0})

    def expansions(self) -> list[Expansion]:
        """Return none: its variations are its own axes."""
        return []

    def fill_chunks(
        self,
        dataset: Dataset,
        chunks: Iterable[tuple[Range, int, int]],
        progress: Callable[[int], None] | None,
        begun: Accumulator | None = None,
    ) -> Accumulator:
        """Add what the processor makes of each chunk (range, start, stop), in their order, to what is in ``begun``."""
        total = self.accumulator(dataset) if begun is None else begun.copy()
        metadata = {**dataset.model_dump(mode="json", exclude={"name", "files"}), "dataset": dataset.name}
        for r, start, stop in chunks:
            events = nanoevents(r.path, r.uuid, start, stop, {**metadata, "filename": r.path}, r.login)
            output = self._processor.process(events)
            total += _flat_sums(output, dataset.name, {ENTRIES: stop - start})
            if progress is not None:
                progress(stop - start)
        return total


def describe(name: str, cls: type[ProcessorABC]) -> dict[str, Any]:
    """Return what can be asked of it, in the words of `binworks.processors.registry.describe`."""
    parameters = _parameters(cls)
    return {
        "name": name,
        "version": getattr(cls, "version", 1),
        "summary": (inspect.getdoc(cls) or name).splitlines()[0],
        "options": {"type": "object", "properties": {parameter: {} for parameter in parameters}},
        "systematics": [],
        "corrections": [],
    }


def _parameters(cls: type[ProcessorABC]) -> list[str]:
    if cls.__init__ is object.__init__:
        return []
    return [p.name for p in inspect.signature(cls).parameters.values() if p.kind is not p.VAR_KEYWORD]


def _construct(cls: type[ProcessorABC], options: dict[str, Any]) -> ProcessorABC:
    known = _parameters(cls)
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise RequestError(f"The processor refuses its options: {error}.", code="bad-option") from error


def _flat_sums(output: Any, dataset: str, counts: dict[str, int]) -> Accumulator:
    """Return the output of one chunk as named sums."""
    if isinstance(output, Mapping) and list(output) == [dataset]:
        output = output[dataset]  # the habit of keying by data set; ours are apart anyway
    flat = Accumulator({}, dict(counts))
    for name, value in _leaves(output, ()):
        if name in flat.histograms or name in flat.counts:
            raise _unmergeable(name, "two outputs have this name")
        if isinstance(value, hist.Hist):
            flat.histograms[name] = Histogram.from_hist(value)
        elif isinstance(value, (int, np.integer)):
            flat.counts[name] = int(value)
        elif isinstance(value, (float, np.floating)):
            axis = hist.axis.Integer(0, 1, name="sum", flow=False)
            flat.histograms[name] = Histogram((axis,), np.array([float(value)]))
        else:
            raise _unmergeable(name, f"a {type(value).__name__} cannot be added bin by bin")
    return flat


def _leaves(value: Any, path: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield re.sub(r"[^A-Za-z0-9_.+-]", "_", ".".join(path)).lstrip("_.+-") or "output", value


def _unmergeable(name: str, why: str) -> RequestError:
    return RequestError(
        f"Output {name!r} of the processor: {why}.",
        code="unmergeable-output",
        hint="Return nested dicts of hist.Hist (Double, Weight or integer storage) and numbers.",
    )
