"""What the muon channels share around their kernels: options, columns, empty sums, compiled payloads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as OptionField

from binworks.corrections.efficiency import STEPS
from binworks.processors import payloads
from binworks.processors.columns import Columns, Field
from binworks.processors.compiled import CompiledProcessor, Options
from binworks.processors.dataset import Dataset
from binworks.processors.generator import GENERATOR_FIELDS, generated_of
from binworks.processors.groups import Setting, Systematic, systematics
from binworks.processors.momenta import Calibration, calibration, corrected_momenta
from binworks.processors.muons import (
    ELECTRON_FIELDS,
    EVENT_FIELDS,
    TRIGGER_FIELDS,
    electrons_of,
    muon_fields,
    muons_of,
    triggers_of,
)
from binworks.processors.payloads import Corrections
from binworks.processors.weights import Blocks, Kind, Scratch, Weights, scratch
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import InputError
from binworks.tensors.expansion import Expansion
from binworks.tensors.groups import bootstrap as bootstrap_group
from binworks.tensors.groups import electroweak as electroweak_group
from binworks.tensors.groups import mass as mass_group
from binworks.tensors.groups import pdf as pdf_group
from binworks.tensors.groups import theory as theory_group
from binworks.tensors.groups.base import VariationGroup
from binworks.tensors.histogram import Histogram

Array = NDArray[Any]

TRIGGER_BITS: Mapping[str, tuple[int, ...]] = {"2016": (4, 5), "2017-on": (3,)}

COUNTS = (
    "entries", "sum_sign", "cut/1 trigger", "cut/2 MET filters", "cut/3 veto muons", "cut/4 good muons",
    "cut/5 no veto electron", "cut/6 trigger match", "cut/7 generator match", "selected",
    "odd/kinematics not finite", "odd/weight not finite", "odd/generator not finite",
)  # fmt: skip
(ENTRIES, SUM_SIGN, TRIGGER, FILTERS, VETO_MUONS, GOOD_MUONS, NO_ELECTRON, MATCHED, GEN_MATCHED, SELECTED,
 ODD_KINEMATICS, ODD_WEIGHT, ODD_GENERATOR) = range(len(COUNTS))  # fmt: skip

_NAMES = ("pdf", "angular", "theory", "ew", "pileup", "bootstrap", "prefire")
_MUON_NAMES = (
    "efficiency_systematics",
    "momentum_scale",
    "resolution",
    "pixel_hits",
    "veto_stat",
    "veto_systematics",
)
_ECAL = ("Nom", "Up", "Dn")
_LENGTHS = {"mass": 21, "width": 5, "sin2theta": 11}
_BRANCHES = {"mass": "MEParamWeight", "width": "MEParamWeightAltSet1", "sin2theta": "MEParamWeightAltSet4"}


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


class Event(NamedTuple):
    """Scalars of a range of events."""

    trigger: Array
    met_filters: Array
    met_pt: Array
    met_phi: Array
    number: Array


class MuonChannel(CompiledProcessor):
    """Base of the channels with muons; a channel adds its axes and its kernel."""

    Options: ClassVar[type[Options]] = ChannelOptions
    options: ChannelOptions
    boson: ClassVar[Literal["W", "Z"]]
    known: ClassVar[Mapping[str, Systematic]]

    def __init_subclass__(cls, *, boson: Literal["W", "Z"]) -> None:
        """Give a channel that measures this boson its variation groups."""
        super().__init_subclass__()
        cls.boson, cls.known = boson, systematics(boson)
        cls.systematics_known = {name: group.payloads for name, group in cls.known.items()}
        cls.by_name_only = frozenset(name for name, group in cls.known.items() if group.by_name_only)

    @abstractmethod
    def kernel(self) -> Callable[..., None]:
        """Return the function that selects and fills; see `fill` for what it gets."""

    @abstractmethod
    def axes(self) -> tuple[Any, ...]:
        """Return the axes of ``nominal``."""

    def fields(self, dataset: Dataset) -> tuple[Field, ...]:
        """Return what must be read of that data set."""
        reconstructed = (
            *EVENT_FIELDS,
            *muon_fields(is_data=dataset.is_data),
            *ELECTRON_FIELDS,
            *TRIGGER_FIELDS,
        )
        if dataset.is_data:
            return reconstructed
        weights = [
            Field("gen_weight", ("genWeight",), "f4"),
            Field("n_true", ("Pileup_nTrueInt",), "f4"),
            Field("vertex_z", ("GenVtx_z",), "f4", default=0.0),
            *(Field(f"ecal_{way}", (f"L1PreFiringWeight_ECAL_{way}",), default=1.0) for way in _ECAL),
        ]
        for name, branch in _BRANCHES.items():
            if self._matrix_element(name, dataset) is not None:
                weights.append(Field(f"{name}_weights", (branch,), "f4", "block", optional=name == "mass"))
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

    def fill(self, columns: Columns, dataset: Dataset, accumulator: Accumulator) -> None:
        """Add the events to the accumulator, in their order.

        Raises
        ------
        InputError
            ``wrong-block``, if a weight block has another length than its group.
        """
        if columns.size == 0:
            return
        counts = np.zeros(len(COUNTS), np.int64)
        odd = np.zeros(columns.size, np.uint8)
        self.kernel()(
            Event(*[columns[name] for name in ("trigger", "met_filters", "met.pt", "met.phi", "event")]),
            muons_of(columns, corrected_momenta(columns, self._calibrations[dataset.is_data])),
            electrons_of(columns),
            triggers_of(columns, TRIGGER_BITS[self.options.flavour]),
            generated_of(columns),
            self._weights(columns, dataset),
            self._corrections,
            _kind(dataset),
            _blocks(accumulator),
            self._room,
            counts,
            odd,
        )
        for name, count in zip(COUNTS, counts.tolist(), strict=True):
            accumulator.counts[name] += count
        for i in np.flatnonzero(odd):
            accumulator.note("odd", f"{columns['run'][i]}:{columns['lumi'][i]}:{columns['event'][i]}")

    def expansions(self) -> list[Expansion]:
        """Return how the compact blocks become named variations."""
        return [group.expansion for group in self._groups.values()]

    def _weights(self, columns: Columns, dataset: Dataset) -> Weights:
        """Return the weight columns; a block must be as long as its group, but mass weights may be absent."""
        none = np.zeros((columns.size, 0), "f4")
        keys = (columns["run"], columns["lumi"], columns["event"])
        if dataset.is_data:
            return Weights._make([*[none.reshape(-1)] * 6, *[none] * 4, *keys])
        scalars = [columns[name] for name in ("gen_weight", "n_true", "vertex_z")]
        scalars += [columns[f"ecal_{way}"] for way in _ECAL]
        blocks = {name: columns.arrays.get(f"{name}_weights", none) for name in _LENGTHS}
        for name, block in blocks.items():
            if self._matrix_element(name, dataset) is not None and block.shape[1] not in (
                {0, _LENGTHS[name]} if name == "mass" else {_LENGTHS[name]}
            ):
                group = self._matrix_element(name, dataset)
                hint = f"leave the systematic {group!r} out"
                raise _wrong_block(columns.where, _BRANCHES[name], block, _LENGTHS[name], hint)
        return Weights._make([*scalars, self._pdf(columns, dataset, none), *blocks.values(), *keys])

    @cached_property
    def _room(self) -> Scratch:
        """The kernel's small arrays."""
        alternatives = sum(len(step.alternatives) for step in self._corrections.steps)
        replicas = self.options.replicas if bootstrap_group.NAME in self.systematics else 0
        return scratch(alternatives, replicas)

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

    def _matrix_element(self, name: str, dataset: Dataset) -> str | None:
        """Return the group that takes this block of weights of the data set, if it was asked for."""
        candidates = {
            "mass": (mass_group.NAME, mass_group.MASS_Z),
            "width": (mass_group.WIDTH_W, mass_group.WIDTH_Z),
            "sin2theta": (mass_group.SIN2THETA,),
        }[name]
        return next((g for g in candidates if g in self.systematics and self.known[g].varies(dataset)), None)

    def _pdf(self, columns: Columns, dataset: Dataset, none: Array) -> Array:
        pdf = columns.arrays.get("pdf_weights", none)
        if pdf_group.NAME not in self.systematics:
            return np.ascontiguousarray(pdf[:, :1])
        if dataset.boson is not None and pdf.shape[1] != self.options.pdf_members:
            members = self.options.pdf_members
            raise _wrong_block(
                columns.where, self.options.pdf_branch, pdf, members, "set the option pdf_members"
            )
        return pdf


def _wrong_block(where: str, branch: str, block: Array, expected: int, hint: str) -> InputError:
    return InputError(
        f"Branch {branch} has {block.shape[1]} weights an event, expected {expected}.",
        code="wrong-block",
        where=where,
        hint=f"If the file is right, {hint}.",
    )


def _kind(dataset: Dataset) -> Kind:
    pole = (mass_group.Z_MASS, mass_group.Z_WIDTH)
    if dataset.boson == "W":
        pole = (mass_group.W_MASS, mass_group.W_WIDTH)
    return Kind(dataset.is_data, dataset.prompt, dataset.boson is not None, dataset.boson == "Z", *pole)


def _blocks(accumulator: Accumulator) -> Blocks:
    """Return the accumulator's arrays as the kernel takes them."""
    nominal = accumulator.histograms["nominal"]
    if nominal.variances is None:
        raise TypeError("nominal keeps its sum of squared weights")
    nothing = np.zeros((0, 0))

    def block(*names: str) -> Array:
        for name in names:
            if name in accumulator.histograms:
                values = accumulator.histograms[name].values
                return values.reshape(-1, values.shape[-1])
        return nothing

    return Blocks._make(
        [
            nominal.values.reshape(-1),
            nominal.variances.reshape(-1),
            block(mass_group.NAME, mass_group.MASS_Z),
            block(mass_group.WIDTH_W, mass_group.WIDTH_Z),
            block(mass_group.SIN2THETA),
            *[block(name) for name in _NAMES],
            tuple(block(f"efficiency_{step}") for step in STEPS),
            *[block(name) for name in _MUON_NAMES],
        ]
    )
