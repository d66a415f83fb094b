"""From a card and snapshots to what the export formats write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Protocol

import numpy as np

from binworks.tensors.card import Card, Channel, Nonprompt, Norm
from binworks.tensors.errors import RequestError, unknown_name
from binworks.tensors.expansion import Expansion, Int64, used_templates
from binworks.tensors.fitinput import Effect, FitChannel, FitInput, Parameter, check
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.nonprompt import NAME, Estimate
from binworks.tensors.source import NOMINAL, Source, check_complete, read_tensor, read_with_regions, selection
from binworks.tensors.systematics import Line, effects, lines, ratio_logarithms, touched_cells
from binworks.tensors.tensor import SIGNAL_REGION, Tensor

FLOATING_STEP = 1.01
"""A free normalisation changes its process by 1 % at +1."""


def fit_input(card: Card, sources: Mapping[str | None, Source]) -> FitInput:
    """Return what the export formats write.

    Parameters
    ----------
    card : Card
    sources : mapping
        A snapshot by the job that a channel names; None: the one that is exported.

    Raises
    ------
    RequestError
        For a name that does not exist, a bin with data and no prediction, data that are not there.
    ConflictError
        Code ``incomplete`` for a snapshot that lacks events, unless the card allows it.
    """
    for source in sources.values():
        check_complete(source, card)
    parts = [_read(card, channel, sources[channel.job]) for channel in card.channels]
    facts = [sources[channel.job].facts for channel in card.channels]
    lowest = min(facts, key=lambda fact: float(fact["fraction"]))
    metadata = {
        **{key: sources[None].facts[key] for key in ("job", "generation")},
        **{key: lowest.get(key) for key in ("complete", "fraction", "missing")},
        "complete": all(fact["complete"] for fact in facts),
        "luminosity": parts[0].tensor.metadata["luminosity"],
        "inflation": card.inflation,
        "nonprompt_borrowed": [place for part in parts for place in part.borrowed],
        "card": card.model_dump(mode="json"),
    }
    return _combine(card, parts, metadata)


def from_tensor(tensor: Tensor) -> FitInput:
    """Return a tensor as the only channel of a fit, with all its nuisances as they are.

    Raises
    ------
    RequestError
        Code ``no-data`` if it has none.
    """
    part = _Part(Channel(), tensor, _simulated(tensor))
    return _combine(Card(), [part], {**tensor.metadata, "inflation": 1.0})


class _Process(Protocol):
    """One process of one channel."""

    @property
    def name(self) -> str:
        """Its name in the fit."""

    @property
    def nominal(self) -> Float64:
        """Expected events, flat."""

    @property
    def variances(self) -> Float64:
        """Their variance from the number of simulated events, flat."""

    def logarithms(self, expansion: Expansion, names: Sequence[str]) -> Float64 | None:
        """Return ln(template / nominal), shape (names, bins); None if the process is left alone."""

    def norm(self, norm: Norm) -> Effect | None:
        """Return what a norm uncertainty does, for the parameter at 0; None if nothing."""

    def own(self) -> Iterator[tuple[Sequence[Parameter], Int64 | None, Float64]]:
        """Give parameters that no other process has, the bins they change, and logarithms at +1."""


@dataclass(frozen=True)
class _Simulated:
    tensor: Tensor
    number: int

    @property
    def name(self) -> str:
        return self.tensor.processes[self.number]

    @property
    def nominal(self) -> Float64:
        return np.ravel(self.tensor.nominal[self.number])

    @property
    def variances(self) -> Float64:
        return np.ravel(self.tensor.variances[self.number])

    def logarithms(self, expansion: Expansion, names: Sequence[str]) -> Float64 | None:
        change = self.tensor.change(expansion.group, self.number, names)
        if change is None:
            return None
        flat: Float64 = change.reshape(len(names), -1)
        flat += self.nominal
        return ratio_logarithms(flat, self.nominal)

    def norm(self, norm: Norm) -> Effect | None:
        if not _concerns(norm, self.name):
            return None
        return Effect(np.zeros(1, np.int64), None, np.array([[np.log(norm.size)]]))

    def own(self) -> Iterator[tuple[Sequence[Parameter], Int64 | None, Float64]]:
        yield from ()


@dataclass(frozen=True)
class _Estimated:
    """The nonprompt background: as the prompt simulation changes, so does what is subtracted.

    ``subtracted`` has the events of each ``prompt`` process in all regions; ``responses`` are (nominal, compact) blocks
    whose values are logarithms already.
    """

    name: str
    label: str
    estimate: Estimate
    prompt: tuple[str, ...]
    subtracted: Float64
    responses: Mapping[str, tuple[Histogram, Histogram]]

    @property
    def nominal(self) -> Float64:
        return self.estimate.nominal.ravel()

    @property
    def variances(self) -> Float64:
        return np.zeros(self.nominal.size)

    def logarithms(self, expansion: Expansion, names: Sequence[str]) -> Float64 | None:
        held = self.responses.get(expansion.block)
        if held is None:
            return None
        nominal, compact = held
        return (expansion.expand(nominal, compact, names) - nominal.values).reshape(len(names), -1)

    def norm(self, norm: Norm) -> Effect | None:
        if norm.processes == (self.name,):  # its own size floats
            return Effect(np.zeros(1, np.int64), None, np.array([[np.log(norm.size)]]))
        matching = [number for number, process in enumerate(self.prompt) if _concerns(norm, process)]
        if not (norm.subtracted and matching):
            return None
        prompt = self.subtracted[matching].sum(axis=0)
        up = self.estimate.respond(np.log(norm.size) * prompt[np.newaxis]).reshape(1, -1)
        return Effect(np.zeros(1, np.int64), None, up)

    def own(self) -> Iterator[tuple[Sequence[Parameter], Int64 | None, Float64]]:
        for shift in self.estimate.shifts(self.label):
            yield [Parameter(name, shift.groups) for name in shift.names], shift.cells, shift.logs


@dataclass(frozen=True)
class _Part:
    """A channel as it was read."""

    channel: Channel
    tensor: Tensor
    processes: Sequence[_Process]
    borrowed: tuple[str, ...] = ()


def _read(card: Card, channel: Channel, source: Source) -> _Part:
    settings = card.nonprompt
    if settings is None:
        tensor = read_tensor(card, channel, source)
        return _Part(channel, tensor, _simulated(tensor))
    if dict(selection(channel, source)) != dict(SIGNAL_REGION) or channel.histogram != NOMINAL:
        raise RequestError(
            "The nonprompt background is estimated for the signal region of `nominal` only.",
            code="bad-card",
            where=f"card.channels.{channel.name}.select",
            hint="Leave out `select`, or `nonprompt`.",
        )
    tensor, everywhere = read_with_regions(card, channel, source, settings.process)
    label = NAME if len(card.channels) == 1 else f"{NAME}_{channel.name}"
    estimated = _estimate(settings, label, everywhere)
    return _Part(channel, tensor, [*_simulated(tensor), estimated], estimated.estimate.borrowed)


def _simulated(tensor: Tensor) -> list[_Process]:
    return [_Simulated(tensor, number) for number in range(len(tensor.processes))]


def _estimate(settings: Nonprompt, label: str, prompt: Tensor) -> _Estimated:
    """Return the nonprompt background, from all six regions of the data and of the prompt simulation."""
    if prompt.data is None:
        raise RequestError("The nonprompt background is estimated from data; there are none.", code="no-data")
    data = Histogram(prompt.axes, prompt.data, prompt.data)
    simulated = Histogram(prompt.axes, prompt.nominal.sum(axis=0), prompt.variances.sum(axis=0))
    estimate = Estimate.make(data, simulated, settings)
    responses = {block: _response(estimate, *held) for (_, block), held in prompt.blocks.items()}
    return _Estimated(settings.process, label, estimate, prompt.processes, prompt.nominal, responses)


def _response(estimate: Estimate, nominal: Histogram, compact: Histogram) -> tuple[Histogram, Histogram]:
    """Return what the estimate's logarithm does when the simulation of a block is added, column by column."""
    answer = estimate.respond(np.moveaxis(compact.values, -1, 0))
    return (
        Histogram(estimate.axes, estimate.respond(nominal.values[np.newaxis])[0]),
        Histogram((*estimate.axes, compact.axes[-1]), np.ascontiguousarray(np.moveaxis(answer, 0, -1))),
    )


def _concerns(norm: Norm, process: str) -> bool:
    return any(fnmatchcase(process, pattern) for pattern in norm.processes)


@dataclass(frozen=True)
class _Systematics:
    """What changes the prediction, and where each parameter stands."""

    lines: Mapping[str, Line]
    norms: Sequence[Norm]
    floating: Sequence[str]
    parameters: tuple[Parameter, ...]
    position: Mapping[str, int]

    @classmethod
    def of(cls, card: Card, parts: Sequence[_Part]) -> _Systematics:
        """Return those of all channels; a nuisance of the same name is the same in all."""
        nuisances = {
            nuisance.name: nuisance
            for part in parts
            for expansion in part.tensor.expansions.values()
            for nuisance in expansion.nuisances
        }
        found = lines(nuisances.values(), card.rules)
        norms, floating = _present(card, {process.name for part in parts for process in part.processes})
        own = {
            p.name: p for part in parts for process in part.processes for ps, *_ in process.own() for p in ps
        }
        parameters = [
            *(parameter for line in found.values() for parameter in line.parameters),
            *(Parameter(norm.name, norm.groups or (norm.name,)) for norm in norms),
            *(Parameter(f"norm_{name}", ("floating",), constrained=False) for name in floating),
            *own.values(),
        ]
        parameters.sort(key=lambda parameter: parameter.constrained)
        position = {parameter.name: number for number, parameter in enumerate(parameters)}
        if len(position) < len(parameters):
            names = [parameter.name for parameter in parameters]
            twice = next(name for name in names if names.count(name) > 1)
            raise RequestError(f"Two parameters are named {twice!r}.", code="bad-card", where="card")
        return cls(found, norms, floating, tuple(parameters), position)

    @property
    def symmetric(self) -> bool:
        """Whether up and down are mirrors of each other everywhere."""
        return not any(line.nuisance.down and line.symmetrise == "keep" for line in self.lines.values())

    def effects(self, part: _Part, number: int) -> Iterator[Effect]:
        """Give all that changes a process of a channel."""
        process = part.processes[number]
        for expansion in part.tensor.expansions.values():
            yield from self._of_group(part, process, expansion)
        for norm in self.norms:
            effect = process.norm(norm)
            if effect is not None:
                yield replace(effect, parameters=np.array([self.position[norm.name]]))
        for name in self.floating:
            effect = process.norm(Norm(name=name, processes=(name,), size=FLOATING_STEP))
            if effect is not None:
                yield replace(effect, parameters=np.array([self.position[f"norm_{name}"]]))
        for parameters, cells, logarithms in process.own():
            yield Effect(np.array([self.position[p.name] for p in parameters]), cells, logarithms)

    def _of_group(self, part: _Part, process: _Process, expansion: Expansion) -> Iterator[Effect]:
        wanted = [self.lines[n.name] for n in expansion.nuisances if n.name in self.lines]
        nuisances = [line.nuisance for line in wanted]
        names = used_templates(nuisances)
        found = process.logarithms(expansion, names) if names else None
        if found is None:
            return
        row = {name: place for place, name in enumerate(names)}

        def logarithms(asked: Sequence[str], where: Int64 | None) -> Float64:
            rows: Float64 = found[[row[name] for name in asked]]
            return rows if where is None else rows[:, where]

        cells = touched_cells(expansion, part.tensor.axes, nuisances)
        yield from effects(wanted, logarithms, cells, self.position)


def _present(card: Card, processes: set[str]) -> tuple[list[Norm], tuple[str, ...]]:
    """Return the norm uncertainties and floating processes that there are."""
    for name in card.floating:
        if name not in processes:
            raise unknown_name("process", name, sorted(processes))
    # the size of the estimate is its own nuisance
    simulated = sorted(processes - ({card.nonprompt.process} if card.nonprompt else set()))
    norms = []
    for norm in card.norms:
        if any(_concerns(norm, process) for process in simulated):
            norms.append(norm)
        elif not norm.optional:
            raise unknown_name("process", norm.processes[0], simulated)
    return norms, card.floating


def _combine(card: Card, parts: Sequence[_Part], metadata: Mapping[str, Any]) -> FitInput:
    systematics = _Systematics.of(card, parts)
    known = [name for part in parts for e in part.tensor.expansions.values() for name in e.variations]
    if card.data not in ("observed", "prediction", *known):
        raise unknown_name("variation", card.data, ["observed", "prediction", *known])
    channels = tuple(_channel(card, part, systematics) for part in parts)
    clipped = sum(int((process.nominal < 0).sum()) for part in parts for process in part.processes)
    facts = {**metadata, "clipped_cells": clipped}
    fit = FitInput(channels, systematics.parameters, systematics.symmetric, facts)
    check(fit)
    return fit


def _channel(card: Card, part: _Part, systematics: _Systematics) -> FitChannel:
    # where negative weights outweigh the others, nothing is expected; a likelihood cannot take less
    nominal = np.maximum(np.stack([process.nominal for process in part.processes]), 0.0)
    data = _data(card, part, nominal)
    used = np.ones(data.size, np.bool_)
    for number in part.channel.mask:
        if number >= used.size:
            message = f"Bin {number} cannot be masked: channel {part.channel.name!r} has {used.size}."
            raise RequestError(message, code="unknown-bin", where="card.channels.mask")
        used[number] = False
    return FitChannel(
        name=part.channel.name,
        axes=part.tensor.axes,
        processes=tuple(process.name for process in part.processes),
        nominal=nominal,
        variances=np.stack([process.variances for process in part.processes]),
        data=data,
        used=used,
        effects=partial(systematics.effects, part),
    )


def _data(card: Card, part: _Part, nominal: Float64) -> Float64:
    """Return the observed events, the prediction, or a varied prediction."""
    if card.data == "observed":
        if part.tensor.data is None:
            hint = "Add a data set of kind data to the job, or say data = 'prediction' or a variation in the card."
            raise RequestError(f"Channel {part.channel.name!r} has no data.", code="no-data", hint=hint)
        return part.tensor.data.ravel()
    total: Float64 = nominal.sum(axis=0)
    for expansion in part.tensor.expansions.values():
        if card.data in expansion.variations:
            for process, mine in zip(part.processes, nominal, strict=True):
                found = process.logarithms(expansion, [card.data])
                if found is not None:
                    total += mine * np.expm1(found[0])
    return total
