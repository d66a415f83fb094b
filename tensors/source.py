"""Where the sums of a fit come from, and what makes them a tensor: names, selections, normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from binworks.tensors.accumulator import Accumulator
from binworks.tensors.card import Card, Channel
from binworks.tensors.errors import ConflictError, RequestError, unknown_name
from binworks.tensors.expansion import Expansion
from binworks.tensors.histogram import Histogram
from binworks.tensors.incomplete import mark
from binworks.tensors.select import Select, crop
from binworks.tensors.tensor import SIGNAL_REGION, Contribution, Tensor, assemble

NOMINAL = "nominal"


class Source(Protocol):
    """One snapshot of a job, read in part: over REST by the client, from the store by the service."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Job, generation, luminosity, complete, fraction, missing."""

    @property
    def datasets(self) -> Mapping[str, Mapping[str, Any]]:
        """By name: kind, group, cross_section, counts, histograms (their names)."""

    def axes(self, dataset: str, histogram: str) -> tuple[Any, ...]:
        """Return the axes of stored sums."""

    def sums(self, dataset: str, histogram: str, select: Select) -> Histogram:
        """Return the selected part of stored sums."""

    def expansions(self) -> Sequence[Expansion]:
        """Return how the compact blocks expand into named variations."""


def check_complete(source: Source, card: Card) -> None:
    """Refuse a snapshot that lacks events.

    Raises
    ------
    ConflictError
        Code ``incomplete``.
    """
    if source.facts["complete"] or card.allow_partial:
        return
    raise ConflictError(
        f"The snapshot lacks events ({mark(source.facts)}).",
        code="incomplete",
        where=f"job {source.facts['job']}",
        hint="Wait for the end of the job, or retry it; or say allow_partial in the card.",
    )


def read_tensor(card: Card, channel: Channel, source: Source) -> Tensor:
    """Return the sums of a channel: scaled, cut and added to processes.

    Raises
    ------
    RequestError
        For a data set, axis or bin that does not exist, and where a cross section or luminosity is missing.
    """
    select, expansions = selection(channel, source), _expansions(card, channel, source)
    contributions = _contributions(card, channel, source, expansions, select)
    return _assembled(card, channel, source, expansions, contributions, select)


def read_with_regions(card: Card, channel: Channel, source: Source, without: str) -> tuple[Tensor, Tensor]:
    """Return the sums of a channel like `read_tensor`, and those in all regions; each data set is read once.

    Parameters
    ----------
    without : str
        Process that is in neither; of the second, the compact blocks are added over all processes.

    Raises
    ------
    RequestError
        As `read_tensor`.
    """
    select, expansions = selection(channel, source), _expansions(card, channel, source)
    cut: list[Contribution] = []

    def whole() -> Iterator[Contribution]:
        for each in _contributions(card, channel, source, expansions, {}, without):
            held = {name: crop(sums, select) for name, sums in each.accumulator.histograms.items()}
            cut.append(replace(each, accumulator=Accumulator(held, each.accumulator.counts)))
            yield each

    everywhere = _assembled(card, channel, source, expansions, whole(), {}, together=True)
    return _assembled(card, channel, source, expansions, cut, select), everywhere


def _contributions(
    card: Card,
    channel: Channel,
    source: Source,
    expansions: Sequence[Expansion],
    select: Select,
    without: str | None = None,
) -> Iterator[Contribution]:
    """Give the data sets that are wanted, one after the other, cut."""
    luminosity = _luminosity(card, source)
    blocks = {expansion.block for expansion in expansions}
    for name, process in _processes(card, channel, source).items():
        if process != without:
            yield Contribution(
                process,
                normalisation(name, source.datasets[name], luminosity),
                _cut_sums(source, name, channel.histogram, blocks, select),
                is_data=source.datasets[name]["kind"] == "data",
            )


def _assembled(
    card: Card,
    channel: Channel,
    source: Source,
    expansions: Sequence[Expansion],
    contributions: Iterable[Contribution],
    select: Select,
    *,
    together: bool = False,
) -> Tensor:
    """Add what is cut already."""
    axes = _axes(channel, source)
    cut = [expansion.selected(axes, select) for expansion in expansions]
    facts = {**source.facts, "luminosity": _luminosity(card, source)}
    return assemble(contributions, cut, region={}, metadata=facts, together=together)


def _luminosity(card: Card, source: Source) -> float | None:
    found: float | None = card.luminosity or source.facts["luminosity"]
    return found


def selection(channel: Channel, source: Source) -> Select:
    """Return what is cut out: what the channel says, or the signal region where the histogram has its axes."""
    if channel.select is not None:
        return channel.select
    names = {axis.name for axis in _axes(channel, source)}
    return {name: number for name, number in SIGNAL_REGION.items() if name in names}


def _axes(channel: Channel, source: Source) -> tuple[Any, ...]:
    """Return the axes of a channel's sums before anything is cut; they are the same for all data sets."""
    first = next(iter(channel.datasets or source.datasets))
    check_names(source, [first], channel.histogram)
    return source.axes(first, channel.histogram)


def check_names(source: Source, datasets: Iterable[str], histogram: str) -> None:
    """Refuse names that are not there.

    Raises
    ------
    RequestError
        Code ``unknown-data-set`` or ``unknown-histogram``.
    """
    for name in datasets:
        if name not in source.datasets:
            raise unknown_name("data set", name, list(source.datasets))
        if histogram not in source.datasets[name]["histograms"]:
            raise unknown_name("histogram", histogram, list(source.datasets[name]["histograms"]))


def normalisation(name: str, entry: Mapping[str, Any], luminosity: float | None) -> float:
    """Return the factor on a data set's sums: luminosity x cross section / sum of sign(genWeight); 1 for data.

    Raises
    ------
    RequestError
        Code ``no-luminosity``, ``no-cross-section`` or ``no-events``.
    """
    if entry["kind"] == "data":
        return 1.0
    generated = entry["counts"].get("sum_sign", 0)
    if luminosity is None:
        hint = "Submit the job with one, or give one here."
        raise RequestError("No luminosity is known.", code="no-luminosity", hint=hint)
    if entry["cross_section"] is None:
        message = "The data set has no cross section, so it cannot be normalised."
        raise RequestError(message, code="no-cross-section", where=name)
    if generated <= 0:
        message = f"The sum of the signs of the generator weights is {generated}."
        raise RequestError(message, code="no-events", where=name)
    return float(luminosity * entry["cross_section"] / generated)


def _processes(card: Card, channel: Channel, source: Source) -> dict[str, str]:
    """Return the process of each data set that is wanted; data come under their own names."""
    known = source.datasets
    wanted = list(known) if channel.datasets is None else list(channel.datasets)
    check_names(source, wanted, channel.histogram)
    if card.processes is None:
        return {name: known[name]["group"] for name in wanted}
    named: dict[str, str] = {}
    for process, names in card.processes.items():
        check_names(source, names, channel.histogram)
        for name in names:
            if name in named or known[name]["kind"] == "data":
                why = "twice" if name in named else "and is not simulated: data are always taken"
                message = f"Data set {name!r} is in the processes {why}."
                raise RequestError(message, code="bad-card", where=f"card.processes.{process}")
            named[name] = process
    data = {name: name for name in wanted if known[name]["kind"] == "data"}
    return {**{name: named[name] for name in wanted if name in named}, **data}


def _expansions(card: Card, channel: Channel, source: Source) -> list[Expansion]:
    if channel.histogram != NOMINAL:
        return []
    found = {expansion.group: expansion for expansion in source.expansions()}
    if card.systematics is None:
        return list(found.values())
    for name in card.systematics:
        if name not in found:
            raise unknown_name("systematic", name, list(found))
    return [found[name] for name in card.systematics]


def _cut_sums(source: Source, dataset: str, histogram: str, blocks: set[str], select: Select) -> Accumulator:
    entry = source.datasets[dataset]
    sums = {NOMINAL: source.sums(dataset, histogram, select)}
    held = blocks & set(entry["histograms"]) if entry["kind"] != "data" else set()
    sums |= {name: source.sums(dataset, name, select) for name in sorted(held)}
    return Accumulator(sums, dict(entry["counts"]))
