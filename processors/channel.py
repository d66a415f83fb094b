"""What the muon channels share: options, columns, empty sums, compiled payloads, and the way of an event.

select -> boson -> missing momentum -> cell -> weight -> nominal and groups: each step is a function over all events of
a range, most of them one small kernel.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as OptionField

from binworks.processors import payloads
from binworks.processors.columns import Columns, Field
from binworks.processors.compiled import CompiledProcessor, Options
from binworks.processors.dataset import Dataset
from binworks.processors.fills import fill_nominal
from binworks.processors.generator import (
    GENERATOR_FIELDS,
    Bosons,
    Generated,
    find_bosons,
    generated_of,
    no_bosons,
)
from binworks.processors.groups import Setting, Systematic, systematics
from binworks.processors.momenta import Calibration, calibration, corrected_momenta
from binworks.processors.muons import (
    ELECTRON_FIELDS,
    EVENT_FIELDS,
    JACOBIAN_FIELDS,
    TRIGGER_FIELDS,
    Electrons,
    Muons,
    TriggerObjects,
    electrons_of,
    muon_fields,
    muons_of,
    triggers_of,
)
from binworks.processors.payloads import Corrections
from binworks.processors.selected import COUNTS, ODD_GENERATOR, ODD_WEIGHT, CutFlow, Selection
from binworks.processors.simulated import fill_groups, finite_matches, weighed
from binworks.processors.weights import Weights
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import InputError
from binworks.tensors.expansion import Expansion
from binworks.tensors.groups import angular as angular_group
from binworks.tensors.groups import electroweak as electroweak_group
from binworks.tensors.groups import mass as mass_group
from binworks.tensors.groups import pdf as pdf_group
from binworks.tensors.groups import theory as theory_group
from binworks.tensors.groups.base import VariationGroup
from binworks.tensors.histogram import Histogram

Array = NDArray[Any]

TRIGGER_BITS: Mapping[str, tuple[int, ...]] = {"2016": (4, 5), "2017-on": (3,)}
ECAL_WAYS = ("Nom", "Up", "Dn")


class MatrixElement(NamedTuple):
    """A block of the matrix element's weights: its branch, their number, and the groups that take it."""

    branch: str
    length: int
    groups: tuple[str, ...]


MATRIX_ELEMENT: Mapping[str, MatrixElement] = {
    "mass": MatrixElement("MEParamWeight", len(mass_group.SHIFTS_MEV), (mass_group.NAME, mass_group.MASS_Z)),
    "width": MatrixElement(
        "MEParamWeightAltSet1", len(mass_group.WIDTH_STEPS), (mass_group.WIDTH_W, mass_group.WIDTH_Z)
    ),
    "sin2theta": MatrixElement(
        "MEParamWeightAltSet4", len(mass_group.SIN2THETA_STEPS), (mass_group.SIN2THETA,)
    ),
}


class ChannelOptions(Options):
    """Options of the muon channels."""

    flavour: Literal["2016", "2017-on"] = OptionField(
        "2016", description="Which trigger-object filter bits mark an isolated muon: 4 or 5 in 2016, 3 later."
    )
    pdf_branch: str = OptionField(
        "LHEPdfWeight", pattern=r"^LHEPdfWeight(AltSet\d+)?$", description="The PDF set."
    )
    pdf_members: int = OptionField(
        61, ge=5, le=501, description="Weights in that branch: central, Hessian pairs, two for alphaS."
    )
    replicas: int = OptionField(
        100, ge=1, le=1000, description="Replicas of the group bootstrap, which is made if asked for by name."
    )


class Inputs(NamedTuple):
    """The columns of a range, muons corrected; ``matched``: muons must match generated ones."""

    columns: Columns
    muons: Muons
    electrons: Electrons
    triggers: TriggerObjects
    generated: Generated
    matched: bool


class MuonChannel(CompiledProcessor):
    """Base of the channels with muons; a channel adds its axes, its selection and its cells."""

    Options: ClassVar[type[Options]] = ChannelOptions
    options: ChannelOptions
    independent_groups: ClassVar[bool] = True
    boson: ClassVar[Literal["W", "Z"]]
    known: ClassVar[Mapping[str, Systematic]]

    def __init_subclass__(cls, *, boson: Literal["W", "Z"]) -> None:
        """Give a channel that measures this boson its variation groups."""
        super().__init_subclass__()
        cls.boson, cls.known = boson, systematics(boson)
        cls.systematics_known = {name: group.payloads for name, group in cls.known.items()}
        cls.by_name_only = frozenset(name for name, group in cls.known.items() if group.by_name_only)

    @abstractmethod
    def axes(self) -> tuple[Any, ...]:
        """Return the axes of ``nominal``."""

    @abstractmethod
    def select(self, given: Inputs, events: Array, flow: CutFlow) -> Selection:
        """Return what the channel keeps of these events of the range."""

    @abstractmethod
    def cells(self, given: Inputs, chosen: Selection, bosons: Bosons, corrections: Corrections) -> Array:
        """Return each event's flat cell, -1 where it has none."""

    def fields(self, dataset: Dataset) -> tuple[Field, ...]:
        """Return what must be read of that data set."""
        reconstructed = (
            *EVENT_FIELDS,
            *muon_fields(is_data=dataset.is_data),
            *ELECTRON_FIELDS,
            *TRIGGER_FIELDS,
            *(JACOBIAN_FIELDS if len(self._calibrations[dataset.is_data].parameters) else ()),
        )
        if dataset.is_data:
            return reconstructed
        weights = [
            Field("gen_weight", ("genWeight",), "f4"),
            Field("n_true", ("Pileup_nTrueInt",), "f4"),
            Field("vertex_z", ("GenVtx_z",), "f4", default=0.0),
            *(Field(f"ecal_{way}", (f"L1PreFiringWeight_ECAL_{way}",), default=1.0) for way in ECAL_WAYS),
        ]
        for name, element in MATRIX_ELEMENT.items():
            if self._taking(element, dataset) is not None:
                weights.append(Field(f"{name}_weights", (element.branch,), "f4", "block", optional=True))
        if dataset.boson is not None:  # the central one is in the nominal weight, whatever is varied
            varied = pdf_group.NAME in self.systematics
            weights.append(
                Field("pdf_weights", (self.options.pdf_branch,), "f4", "block", optional=not varied)
            )
        return (*reconstructed, *weights, *GENERATOR_FIELDS)

    def accumulator(self, dataset: Dataset) -> Accumulator:
        """Return the empty histograms: ``nominal`` and a compact block for each group that concerns the data set."""
        axes = self.axes()
        histograms = {"nominal": Histogram.zeros(axes, variances=True)}
        for name, group in self._groups.items():
            if self.known[name].varies(dataset) and group.expansion.block not in histograms:
                histograms[group.expansion.block] = group.block(axes)
        return Accumulator(histograms, dict.fromkeys(COUNTS, 0))

    def expansions(self) -> list[Expansion]:
        """Return how the compact blocks become named variations."""
        return [group.expansion for group in self._groups.values()]

    def fill(self, columns: Columns, dataset: Dataset, accumulator: Accumulator) -> None:
        """Add the events to the accumulator, in their order.

        Raises
        ------
        InputError
            ``wrong-block``, if a weight block has another length than its group.
        """
        if columns.size == 0:
            return
        flow = CutFlow(columns, accumulator)
        flow.add("entries", columns.size)
        given = self._inputs(columns, dataset)
        events = np.arange(columns.size)
        if dataset.is_data:
            chosen = self.select(given, events, flow)
            cells = self.cells(given, chosen, no_bosons(len(chosen.events)), self._corrections)
            cells = cells[cells >= 0]
            fill_nominal(*_sums(accumulator), cells, np.ones(len(cells)))
            flow.add("selected", len(cells))
            return
        signed = columns["gen_weight"]
        finite = np.isfinite(signed)
        flow.odd(ODD_WEIGHT, events[~finite])
        flow.add("sum_sign", int(np.sign(signed[finite]).sum(dtype=np.float64)))
        self._fill_simulated(given, self.select(given, events[finite], flow), dataset, flow, accumulator)

    def _fill_simulated(
        self, given: Inputs, chosen: Selection, dataset: Dataset, flow: CutFlow, accumulator: Accumulator
    ) -> None:
        """Weigh the events, leave out those of which something is not finite, and fill the others."""
        held, weights = self._corrections, self._weights(given.columns, dataset)
        bosons = no_bosons(len(chosen.events))
        if dataset.boson is not None:
            angles = angular_group.NAME in accumulator.histograms
            bosons = find_bosons(
                chosen.events, given.generated, angles=angles, radiation=held.ew.weights.shape[2] > 1
            )
        good = np.isfinite(bosons.mass) & finite_matches(chosen, given.generated)
        flow.odd(ODD_GENERATOR, chosen.events[~good])
        chosen, bosons = chosen.where(good), bosons.where(good)
        cells = self.cells(given, chosen, bosons, held)
        inside = cells >= 0
        chosen, bosons = chosen.where(inside), bosons.where(inside)
        filled = weighed(
            chosen,
            cells[inside],
            bosons,
            given.muons,
            given.generated,
            weights,
            held,
            loses_muons=self.boson == "W" and dataset.boson == "Z",
        )
        good = np.isfinite(filled.w)
        flow.odd(ODD_WEIGHT, filled.chosen.events[~good])
        filled = filled.where(good)
        flow.add("selected", len(filled.w))
        fill_nominal(*_sums(accumulator), filled.cells, filled.w)
        blocks = {
            name: histogram.values.reshape(-1, histogram.values.shape[-1])
            for name, histogram in accumulator.histograms.items()
            if name != "nominal"
        }
        fill_groups(blocks, filled, given.columns, given.muons, given.generated, weights, held)

    def _inputs(self, columns: Columns, dataset: Dataset) -> Inputs:
        momenta = corrected_momenta(columns, self._calibrations[dataset.is_data])
        return Inputs(
            columns,
            muons_of(columns, momenta),
            electrons_of(columns),
            triggers_of(columns, TRIGGER_BITS[self.options.flavour]),
            generated_of(columns),
            dataset.prompt and not dataset.is_data,
        )

    @cached_property
    def _corrections(self) -> Corrections:
        """The compiled payloads that weigh simulation."""

        def varied(name: str) -> tuple[str, ...]:
            return self._groups[name].columns if name in self._groups else ()

        return payloads.compiled(self.corrections, varied(theory_group.NAME), varied(electroweak_group.NAME))

    @cached_property
    def _calibrations(self) -> dict[bool, Calibration]:
        """The compiled payloads of muon momenta, for simulation (False) and data (True)."""
        return {is_data: calibration(self.corrections, is_data=is_data) for is_data in (False, True)}

    @cached_property
    def _groups(self) -> dict[str, VariationGroup]:
        setting = Setting(self.corrections, self.boson, self.options.pdf_members, self.options.replicas)
        made = {name: self.known[name].make(setting) for name in self.systematics}
        return {name: group for name, group in made.items() if group.columns}

    def _weights(self, columns: Columns, dataset: Dataset) -> Weights:
        """Return the weight columns; a block must be as long as its group, but mass weights may be absent."""
        none = np.zeros((columns.size, 0), "f4")
        blocks = {name: columns.arrays.get(f"{name}_weights", none) for name in MATRIX_ELEMENT}
        for name, element in MATRIX_ELEMENT.items():
            group = self._taking(element, dataset)
            found = blocks[name].shape[1]
            if group is not None and found != element.length and not (name == "mass" and found == 0):
                hint = f"leave the systematic {group!r} out"
                raise _wrong_block(columns.where, element.branch, found, element.length, hint)
        pdf, members = columns.arrays.get("pdf_weights", none), self.options.pdf_members
        if pdf_group.NAME not in self.systematics:
            pdf = np.ascontiguousarray(pdf[:, :1])
        elif dataset.boson is not None and pdf.shape[1] != members:
            hint = "set the option pdf_members"
            raise _wrong_block(columns.where, self.options.pdf_branch, pdf.shape[1], members, hint)
        scalars = [columns[name] for name in ("gen_weight", "n_true", "vertex_z")]
        ecal = [columns[f"ecal_{way}"] for way in ECAL_WAYS]
        return Weights._make([*scalars, *ecal, pdf, *blocks.values()])

    def _taking(self, element: MatrixElement, dataset: Dataset) -> str | None:
        """Return the group that takes this block of weights of the data set, if it was asked for."""
        asked = (name for name in element.groups if name in self.systematics)
        return next((name for name in asked if self.known[name].varies(dataset)), None)


def _sums(accumulator: Accumulator) -> tuple[Array, Array]:
    """Return the nominal sums of weights and of their squares, flat."""
    nominal = accumulator.histograms["nominal"]
    if nominal.variances is None:
        raise TypeError("nominal keeps its sum of squared weights")
    return nominal.values.reshape(-1), nominal.variances.reshape(-1)


def _wrong_block(where: str, branch: str, found: int, expected: int, hint: str) -> InputError:
    return InputError(
        f"Branch {branch} has {found} weights an event, expected {expected}.",
        code="wrong-block",
        where=where,
        hint=f"If the file is right, {hint}.",
    )
