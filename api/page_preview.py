"""What the picture of a job shows: which sums of a snapshot, along which axis, with which nuisance."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import numpy as np
from fastapi import Depends, Query
from fastapi.concurrency import run_in_threadpool

from binworks.api import preview
from binworks.api.preview import Look, Shade, Shape
from binworks.api.problems import NotFoundError
from binworks.api.snapshots import NOMINAL, Snapshot
from binworks.tensors import incomplete
from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.select import crop
from binworks.tensors.source import normalisation
from binworks.tensors.tensor import SIGNAL_REGION

KEPT_PICTURES = 64
FORM = 1
"""Grows when pictures come to look different: kept ones are then drawn anew."""


@dataclass(frozen=True)
class Wish:
    """What is asked for; what is empty gets a default that fits the job.

    Parameters
    ----------
    show : str
        ``process:W``, ``dataset:WplusToMuNu``; empty: everything, data over prediction.
    histogram, axis : str
        Names.
    region : "signal" or "all"
        Whether the axes of the selection are cut to the signal region.
    variation : str
        A nuisance, or one template.
    """

    show: str = ""
    histogram: str = ""
    axis: str = ""
    region: Literal["signal", "all"] = "signal"
    variation: str = ""

    def query(self, **more: object) -> str:
        """Return it as the query of an address."""
        named = {
            "show": self.show,
            "histogram": self.histogram,
            "axis": self.axis,
            "variation": self.variation,
        }
        given = {key: value for key, value in named.items() if value}
        region = {"region": self.region} if self.region != "signal" else {}
        return urlencode({**given, **region, **more})


def _wish(
    show: Annotated[str, Query(max_length=120)] = "",
    histogram: Annotated[str, Query(max_length=100)] = "",
    axis: Annotated[str, Query(max_length=100)] = "",
    region: Literal["signal", "all"] = "signal",
    variation: Annotated[str, Query(max_length=200)] = "",
) -> Wish:
    return Wish(show, histogram, axis, region, variation.strip())


Wished = Annotated[Wish, Depends(_wish)]


@dataclass(frozen=True)
class Choice:
    """What can be asked for, and what is meant where nothing is said.

    Parameters
    ----------
    processes, datasets, histograms, regions : sequence of str
        Names; ``regions`` are the axes that the signal region cuts.
    axes : sequence of (str, str)
        Name and label.
    wish : Wish
        With the defaults filled in.
    """

    processes: Sequence[str]
    datasets: Sequence[str]
    histograms: Sequence[str]
    axes: Sequence[tuple[str, str]]
    regions: Sequence[str]
    wish: Wish


def choice(snapshot: Snapshot, wish: Wish) -> Choice:
    """Return what a snapshot has to offer.

    Raises
    ------
    NotFoundError
        If something that was asked for is not there.
    """
    names = list(snapshot.facts()["datasets"])
    groups = list(dict.fromkeys(snapshot.dataset(name)["group"] for name in names))
    first = _members(snapshot, wish.show)[0]
    blocks = {expansion.block for expansion in _expansions(snapshot)}
    histograms = [name for name in snapshot.histogram_names(first) if name not in blocks]
    histogram = wish.histogram or (NOMINAL if NOMINAL in histograms else histograms[0])
    axes = snapshot.histogram(first, histogram).axes
    known = [axis.name for axis in axes]
    if wish.axis and wish.axis not in known:
        raise _absent("axis", wish.axis, known)
    drawn = wish.axis or ("pt" if "pt" in known else known[0])
    full = Wish(wish.show, histogram, drawn, wish.region, wish.variation)
    return Choice(
        groups,
        names,
        histograms,
        [(axis.name, axis.label or axis.name) for axis in axes],
        [name for name in known if name in SIGNAL_REGION],
        full,
    )


def checked(snapshot: Snapshot, wish: Wish) -> Choice:
    """Return the same, and look whether the nuisance is there.

    Raises
    ------
    NotFoundError
        If something that was asked for is not there.
    """
    found = choice(snapshot, wish)
    if wish.variation:
        _nuisance(snapshot, wish.variation)
    return found


def describe(found: Choice) -> str:
    """Return what a picture shows, for those who cannot see it."""
    wish = found.wish
    what = wish.show.partition(":")[2] or "All processes and data"
    varied = f", and the effect of {wish.variation}" if wish.variation else ""
    return f"{what}: {wish.histogram} along {dict(found.axes)[wish.axis]}, with the ratio to the prediction{varied}."


def nuisances(snapshot: Snapshot) -> list[tuple[str, list[str]]]:
    """Return the names of the nuisances by group."""
    return [(e.group, [nuisance.name for nuisance in e.nuisances]) for e in _expansions(snapshot)]


def look(snapshot: Snapshot, wish: Wish) -> Look:
    """Return what a picture shows.

    Raises
    ------
    NotFoundError
        If something that was asked for is not there.
    """
    wish = choice(snapshot, wish).wish
    members = [_Member(name, snapshot.dataset(name)) for name in _members(snapshot, wish.show)]
    luminosity = snapshot.facts()["luminosity"]
    scaled = all(member.scale(luminosity) is not None for member in members)
    nuisance = _nuisance(snapshot, wish.variation) if wish.variation else None
    sums = _Sums(snapshot, wish)
    colours = _colours(snapshot)
    layers: OrderedDict[str, Float64] = OrderedDict()
    variance: Any = 0.0
    ways: dict[str, Any] = {"up": 0.0, "down": 0.0}
    data: Float64 | None = None
    for member in members:
        values, spread = sums.nominal(member.name)
        if member.is_data:
            data = values if data is None else data + values
            continue
        scale = (member.scale(luminosity) if scaled else None) or 1.0
        layers[member.group] = layers.get(member.group, 0.0) + scale * values
        variance = variance + scale**2 * spread
        for way, template in sums.shifted(member.name, values, nuisance):
            ways[way] = ways[way] + scale * template
    if data is not None and layers and not scaled:
        data = None  # sums of weights are no prediction for it
    edges, ticks = preview.edges_of(sums.axis)
    shifts = _shifts(nuisance, ways) if layers else ()
    return Look(
        edges=edges,
        ticks=ticks,
        label=sums.axis.label or sums.axis.name,
        unit="events" if scaled else "sum of weights",
        stack=tuple((group, colours[group], values) for group, values in layers.items()),
        variance=np.broadcast_to(variance, len(edges) - 1),
        data=data,
        shifts=shifts,
        title=_title(wish, luminosity if scaled and layers else None),
        cuts=sums.cuts,
        source=f"job {snapshot.job}, snapshot {snapshot.n}",
        mark=incomplete.mark(snapshot.facts()),
    )


class Gallery:
    """Pictures that were drawn lately, drawn one at a time in a thread; whoever waits for one blocks nobody else."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._painter = asyncio.Lock()

    async def picture(self, key: str, snapshot: Snapshot, wish: Wish, shade: Shade, shape: Shape) -> bytes:
        """Return a picture as PNG.

        Parameters
        ----------
        key : str
            The same for the same picture.
        """
        if key not in self._kept:
            async with self._painter:
                if key not in self._kept:
                    self._kept[key] = await run_in_threadpool(_draw, snapshot, wish, shade, shape)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_PICTURES:
            self._kept.popitem(last=False)
        return self._kept[key]


def _draw(snapshot: Snapshot, wish: Wish, shade: Shade, shape: Shape) -> bytes:
    return preview.draw(look(snapshot, wish), shade, shape)


@dataclass(frozen=True)
class _Member:
    """A data set, and what the snapshot says of it."""

    name: str
    facts: Mapping[str, Any]

    @property
    def group(self) -> str:
        return str(self.facts["group"])

    @property
    def is_data(self) -> bool:
        return bool(self.facts["kind"] == "data")

    def scale(self, luminosity: float | None) -> float | None:
        """Return the factor from sums of weights to events; None if it is not known."""
        try:
            return normalisation(self.name, self.facts, luminosity)
        except RequestError:
            return None


@dataclass
class _Sums:
    """The sums of data sets along the axis of a wish."""

    snapshot: Snapshot
    wish: Wish
    axis: Any = field(init=False, default=None)
    cuts: str = field(init=False, default="")

    def nominal(self, dataset: str) -> tuple[Float64, Float64]:
        return self._along(self.snapshot.histogram(dataset, self.wish.histogram))

    def shifted(
        self, dataset: str, nominal: Float64, nuisance: _Named | None
    ) -> Iterator[tuple[Literal["up", "down"], Float64]]:
        """Give the templates up and down; a data set that the nuisance leaves alone stays as it is."""
        if nuisance is None or self.wish.histogram != NOMINAL:
            return
        held = nuisance.block in self.snapshot.histogram_names(dataset)
        up = self._template(dataset, nuisance.up) if held else nominal
        yield "up", up
        if nuisance.two_sided:
            down = self._template(dataset, nuisance.down) if held and nuisance.down else 2 * nominal - up
            yield "down", down

    def _template(self, dataset: str, variation: str) -> Float64:
        return self._along(self.snapshot.histogram(dataset, self.wish.histogram, variation))[0]

    def _along(self, histogram: Histogram) -> tuple[Float64, Float64]:
        names = {axis.name: axis for axis in histogram.axes}
        if self.wish.axis not in names:
            raise _absent("axis", self.wish.axis, list(names))
        region = _region(self.wish, names)
        self.axis = names[self.wish.axis]
        self.cuts = ", ".join(_range(names[name], place) for name, place in region.items())
        return preview.along(crop(histogram, region), self.wish.axis)


@dataclass(frozen=True)
class _Named:
    """A nuisance, or one template that stands for itself."""

    name: str
    block: str
    up: str
    down: str | None
    two_sided: bool


def _region(wish: Wish, axes: Mapping[str, Any]) -> dict[str, int]:
    if wish.region == "all":
        return {}
    fits = {name: place for name, place in SIGNAL_REGION.items() if name in axes and name != wish.axis}
    return {name: place for name, place in fits.items() if place < axes[name].extent}


def _range(axis: Any, place: int) -> str:
    low, high = axis.edges[place], axis.edges[place + 1]
    name, _, unit = (axis.label or axis.name).partition(" [")
    unit = f" {unit.rstrip(']')}" if unit else ""
    return f"{name} > {low:g}{unit}" if np.isinf(high) else f"{name} {low:g} to {high:g}{unit}"


def _members(snapshot: Snapshot, show: str) -> list[str]:
    names = list(snapshot.facts()["datasets"])
    kind, _, wanted = show.partition(":")
    if kind == "dataset" and wanted in names:
        return [wanted]
    groups = {name: snapshot.dataset(name)["group"] for name in names}
    if kind == "process" and wanted in groups.values():
        return [name for name in names if groups[name] == wanted]
    if show:
        raise _absent("data set", wanted or show, [*names, *groups.values()])
    return names


def _colours(snapshot: Snapshot) -> dict[str, str]:
    members = [snapshot.dataset(name) for name in snapshot.facts()["datasets"]]
    groups = dict.fromkeys(member["group"] for member in members if member["kind"] != "data")
    return {group: preview.COLOURS[i % len(preview.COLOURS)] for i, group in enumerate(groups)}


def _expansions(snapshot: Snapshot) -> list[Expansion]:
    return [snapshot.expansion(group) for group in snapshot.groups()]


def _nuisance(snapshot: Snapshot, wanted: str) -> _Named:
    found = _expansions(snapshot)
    for expansion in found:
        for nuisance in expansion.nuisances:
            if wanted == nuisance.name:
                return _named(expansion, nuisance)
        if wanted in expansion.variations:
            return _Named(wanted, expansion.block, wanted, None, two_sided=False)
    raise _absent("nuisance", wanted, [nuisance.name for e in found for nuisance in e.nuisances])


def _named(expansion: Expansion, nuisance: Nuisance) -> _Named:
    return _Named(nuisance.name, expansion.block, nuisance.up, nuisance.down, two_sided=True)


def _shifts(nuisance: _Named | None, ways: Mapping[str, Float64]) -> tuple[tuple[str, Float64], ...]:
    if nuisance is None:
        return ()
    up = (f"{nuisance.name} up" if nuisance.two_sided else nuisance.name, ways["up"])
    if not nuisance.two_sided:
        return (up,)
    return (up, ("down" if nuisance.down else "down (mirrored)", ways["down"]))


def _title(wish: Wish, luminosity: float | None) -> str:
    what = wish.show.partition(":")[2] or "All processes"
    scaled = f", {luminosity:.4g} pb⁻¹" if luminosity is not None else ""
    return f"{what}: {wish.histogram}{scaled}"


def _absent(kind: str, name: str, known: list[str]) -> NotFoundError:
    error: RequestError = unknown_name(kind, name, known)
    return NotFoundError(error.message, code=error.code, where=name, hint=_brief(error.hint))


def _brief(hint: str | None) -> str | None:
    """Do not list thousands of names."""
    return hint if hint is None or len(hint) < 300 else "The page lists the names."
