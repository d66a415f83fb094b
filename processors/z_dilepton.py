"""The pair of muons of a Z: its mass and the more forward muon, or its transverse momentum and rapidity."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as OptionField

from binworks.processors.channel import ChannelOptions, Inputs, MuonChannel
from binworks.processors.compiled import Options
from binworks.processors.generator import Bosons
from binworks.processors.pairs import dilepton_of, momenta_of, select_pair
from binworks.processors.payloads import Corrections
from binworks.processors.selected import CutFlow, Selection
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

Array = NDArray[Any]

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

    def select(self, given: Inputs, events: Array, flow: CutFlow) -> Selection:
        """Return the pairs of which one muon, first, fired the trigger."""
        return select_pair(given, events, flow, None)

    def cells(
        self,
        given: Inputs,
        chosen: Selection,
        bosons: Bosons,  # noqa: ARG002 (the observables do not know of it)
        corrections: Corrections,  # noqa: ARG002
    ) -> Array:
        """Return the flat cells of the observable, -1 beyond the axes."""
        one, two = chosen.legs
        cells = np.full(len(chosen.events), -1)
        find_cells(self.options.observable == "mll", one.place, two.place, momenta_of(given.muons), cells)
        return cells


@kernel
def find_cells(by_mass: bool, first: Array, second: Array, momenta: Any, cells: Array) -> None:
    """Fill the flat cells of (mll, forward) or of (ptll, yll), where an event has one."""
    eta = momenta[1]
    for j in range(len(first)):
        m, n = first[j], second[j]
        x, y, mass, rapidity = dilepton_of(m, n, momenta)
        if by_mass:
            row = regular_bin(mass, MLL_LOW, MLL_HIGH, MLL_BINS)
            column = regular_bin(max(abs(eta[m]), abs(eta[n])), 0.0, ETA_HIGH, FORWARD_BINS)
            columns = FORWARD_BINS
        else:
            row = variable_bin(np.sqrt(x * x + y * y), PTLL_ARRAY)
            column = regular_bin(abs(rapidity), 0.0, YLL_HIGH, YLL_BINS)
            columns = YLL_BINS
        if row >= 0 and column >= 0:
            cells[j] = row * columns + column
