"""The pair of muons of a Z: its mass and the more forward muon, or its transverse momentum and rapidity."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field as OptionField

from binworks.processors.channel import (
    ENTRIES,
    ODD_GENERATOR,
    ODD_KINEMATICS,
    ODD_WEIGHT,
    SELECTED,
    SUM_SIGN,
    ChannelOptions,
    MuonChannel,
)
from binworks.processors.compiled import Options
from binworks.processors.generator import boson_of
from binworks.processors.muons import NONE, NOT_FINITE
from binworks.processors.pairs import dilepton_of, fill_pair, select_pair
from binworks.tensors.axes import (
    ETA_HIGH,
    FORWARD_BINS,
    MLL_BINS,
    MLL_HIGH,
    MLL_LOW,
    PTLL_EDGES,
    YLL_BINS,
    YLL_HIGH,
    mll_axes,
    ptll_axes,
)
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin, variable_bin

PTLL_ARRAY = np.array(PTLL_EDGES)


class ZDileptonOptions(ChannelOptions):
    """Options of the dilepton channel."""

    observable: Literal["mll", "ptll"] = OptionField(
        "mll", description="Mass and |eta| of the more forward muon, or transverse momentum and |rapidity|."
    )


class ZDilepton(MuonChannel, boson="Z"):
    """The muon pair of Z -> mu mu, with its variations."""

    name: ClassVar[str] = "z_dilepton"
    summary: ClassVar[str] = (
        "Z -> mu mu: mass and forward muon, or transverse momentum and rapidity of the pair"
    )
    version: ClassVar[int] = 1
    Options: ClassVar[type[Options]] = ZDileptonOptions
    options: ZDileptonOptions

    def axes(self) -> tuple[Any, ...]:
        """Return those of the observable."""
        return mll_axes() if self.options.observable == "mll" else ptll_axes()

    def kernel(self) -> Callable[..., None]:
        """Return `fill_events` for the observable."""
        return partial(fill_events, self.options.observable == "mll")


@kernel
def fill_events(
    by_mass: bool,
    event: Any,
    muons: Any,
    electrons: Any,
    triggers: Any,
    generated: Any,
    weights: Any,
    corrections: Any,
    kind: Any,
    blocks: Any,
    room: Any,
    counts: Any,
    odd: Any,
) -> None:
    """Select events, compute each one's cell and weight once, and add what it changes to every block."""
    for i in range(len(event.trigger)):
        counts[ENTRIES] += 1
        result = NONE
        if not kind.is_data and not np.isfinite(weights.gen[i]):
            result = ODD_WEIGHT
        else:
            if not kind.is_data:
                counts[SUM_SIGN] += int(np.sign(weights.gen[i]))
            pair = select_pair(i, 0, event, muons, electrons, triggers, generated, kind, counts)
            if pair.first == NOT_FINITE:
                result = ODD_KINEMATICS
            elif pair.first >= 0:
                cell = cell_of(by_mass, pair, muons)
                if cell >= 0 and kind.is_data:
                    result = SELECTED
                    blocks.values[cell] += 1.0
                    blocks.variances[cell] += 1.0
                elif cell >= 0:
                    boson = boson_of(i, generated, kind.has_boson)
                    if np.isnan(boson.mass):
                        result = ODD_GENERATOR
                    else:
                        result = fill_pair(
                            i, cell, pair, boson, muons, generated, weights, corrections, kind, blocks, room
                        )
        if result >= 0:
            counts[result] += 1
            odd[i] = result != SELECTED


@kernel
def cell_of(by_mass: bool, pair: Any, muons: Any) -> int:
    """Return the pair's flat cell, -1 if it lies beyond the axes."""
    dilepton = dilepton_of(pair.first, pair.second, muons)
    if by_mass:
        forward = max(abs(muons.eta[pair.first]), abs(muons.eta[pair.second]))
        cell = regular_bin(dilepton.mass, MLL_LOW, MLL_HIGH, MLL_BINS) * FORWARD_BINS
        return int(cell + regular_bin(forward, 0.0, ETA_HIGH, FORWARD_BINS))
    row = variable_bin(np.sqrt(dilepton.x**2 + dilepton.y**2), PTLL_ARRAY)
    column = regular_bin(abs(dilepton.rapidity), 0.0, YLL_HIGH, YLL_BINS)
    return row * YLL_BINS + column if row >= 0 and column >= 0 else -1
