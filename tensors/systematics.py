"""From named variations to the effects of parameters: what a card's rules make of the nuisances of the groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any

import numpy as np

from binworks.tensors.card import Rule, Symmetrise
from binworks.tensors.errors import RequestError
from binworks.tensors.expansion import Expansion, Int64, Nuisance
from binworks.tensors.fitinput import LOWEST, Effect, Parameter
from binworks.tensors.histogram import Float64

Logarithms = Callable[[Sequence[str], Int64 | None], Float64]
SPLIT = ("linear", "quadratic")
"""Ways in which up and down become two parameters."""


@dataclass(frozen=True)
class Line:
    """A nuisance as the rules left it.

    Parameters
    ----------
    nuisance : Nuisance
    parameters : tuple of Parameter
        One; or two, average and difference.
    scale : float
        Factor on the logarithms.
    symmetrise : str
        See `binworks.tensors.card.Rule`.
    """

    nuisance: Nuisance
    parameters: tuple[Parameter, ...]
    scale: float
    symmetrise: Symmetrise


def lines(nuisances: Iterable[Nuisance], rules: Sequence[Rule]) -> dict[str, Line]:
    """Return what the rules make of each nuisance, by its name; those that are dropped are not in it.

    Raises
    ------
    RequestError
        Code ``unused-rule`` if a rule matches nothing.
    """
    unused = set(range(len(rules)))
    found: dict[str, Line] = {}
    for nuisance in nuisances:
        matching = [
            (number, rule)
            for number, rule in enumerate(rules)
            if fnmatchcase(nuisance.name, rule.match) or fnmatchcase(nuisance.group, rule.match)
        ]
        unused -= {number for number, _ in matching}
        line = _line(nuisance, [rule for _, rule in matching])
        if line is not None:
            found[nuisance.name] = line
    if unused:
        number = min(unused)
        raise RequestError(
            f"The rule for {rules[number].match!r} matches no nuisance and no group.",
            code="unused-rule",
            where=f"card.rules.{number}.match",
        )
    return found


def _line(nuisance: Nuisance, rules: Sequence[Rule]) -> Line | None:
    constrained, scale, drop = nuisance.constrained, 1.0, False
    symmetrise: Symmetrise = "keep"
    groups = [nuisance.group]
    for rule in rules:
        constrained = constrained if rule.constrained is None else rule.constrained
        scale = scale if rule.scale is None else rule.scale
        symmetrise = symmetrise if rule.symmetrise is None else rule.symmetrise
        groups += rule.groups
        drop = drop if rule.drop is None else rule.drop
    if drop:
        return None
    interest = not (constrained or nuisance.constrained)
    suffixes = ("SymAvg", "SymDiff") if symmetrise in SPLIT and nuisance.down else ("",)
    parameters = tuple(
        Parameter(nuisance.name + suffix, tuple(dict.fromkeys(groups)), constrained, interest)
        for suffix in suffixes
    )
    return Line(nuisance, parameters, scale, symmetrise)


def effects(
    group: Sequence[Line],
    logarithms: Logarithms,
    cells: Mapping[str, Int64 | None],
    position: Mapping[str, int],
) -> Iterator[Effect]:
    """Give the effects of the nuisances of a group on one process.

    Parameters
    ----------
    group : sequence of Line
    logarithms : callable
        From names of templates and flat bins (None: all) to ln(template / nominal), shape (names, bins).
    cells : mapping
        By nuisance name: the flat bins that it may change, sorted; None: all.
    position : mapping
        Of a parameter by its name.
    """

    def alike(line: Line) -> tuple[object, ...]:
        where = cells[line.nuisance.name]
        return line.symmetrise, line.nuisance.down is None, None if where is None else where.tobytes()

    for _, run in groupby(group, key=alike):
        same = list(run)
        where = cells[same[0].nuisance.name]
        scale = np.array([line.scale for line in same])[:, np.newaxis]
        up = scale * logarithms([line.nuisance.up for line in same], where)
        names = [line.nuisance.down for line in same if line.nuisance.down is not None]
        down = scale * logarithms(names, where) if names else None
        for number, (rise, fall) in enumerate(_symmetrised(same[0].symmetrise, up, down)):
            places = np.array([position[line.parameters[number].name] for line in same])
            yield Effect(places, where, rise, fall)


def _symmetrised(how: Symmetrise, up: Float64, down: Float64 | None) -> list[tuple[Float64, Float64 | None]]:
    """Return (up, down) of one or two parameters; the difference of ``quadratic`` has the larger variance.

    With the effect linear in theta on either side (``linear``), or quadratic in it (``quadratic``, root 3), average
    and difference together have the variance of the asymmetric pair.
    """
    if down is None:
        return [(up, None)]
    if how == "keep":
        return [(up, down)]
    if how == "conservative":
        return [(np.where(np.abs(up) > np.abs(down), up, -down), None)]
    average = (up - down) / 2
    if how == "average":
        return [(average, None)]
    factor = np.sqrt(3.0) if how == "quadratic" else 1.0
    return [(average, None), (factor * (up + down) / 2, None)]


def ratio_logarithms(templates: Float64, nominal: Float64) -> Float64:
    """Return ln(template / nominal) in place of the templates, shape (templates, bins)."""
    positive = (templates > 0) & (nominal > 0)
    np.divide(templates, nominal, out=templates, where=positive)
    np.log(templates, out=templates, where=positive)
    templates[~positive] = LOWEST
    templates[:, nominal <= 0] = 0.0
    return templates


def touched_cells(
    expansion: Expansion, axes: Sequence[Any], nuisances: Iterable[Nuisance]
) -> dict[str, Int64 | None]:
    """Return the flat bins that each nuisance may change, sorted; None: all, or most."""
    names = [axis.name for axis in axes]
    shape = [axis.extent for axis in axes]
    front = [names.index(name) for name in expansion.block_axes]
    grid = np.moveaxis(np.arange(int(np.prod(shape))).reshape(shape), front, range(len(front)))
    blocks = int(np.prod([shape[at] for at in front]))
    grid = grid.reshape(blocks, -1)
    found: dict[str, Int64 | None] = {}
    for nuisance in nuisances:
        places = [expansion.touched(name) for name in (nuisance.up, nuisance.down) if name is not None]
        known = [place for place in places if place is not None]
        where = np.unique(np.concatenate(known)) if len(known) == len(places) else np.arange(blocks)
        found[nuisance.name] = None if 2 * len(where) > blocks else np.sort(grid[where].ravel())
    return found
