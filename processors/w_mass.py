"""The W channel: one good muon, all six regions of (mT, isolation); PHYSICS 2 and 3.

One kernel computes bin and weight of an event once, and adds the vector of what the event changes to each variation
group's block. Read `fill_events` from top to bottom: it is the analysis.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as OptionField

from binworks.corrections import efficiency, momentum_scale, pileup, resolution, theory
from binworks.processors.columns import Columns, Field
from binworks.processors.compiled import CompiledProcessor, Options
from binworks.processors.dataset import Dataset
from binworks.processors.generator import GENERATOR_FIELDS, boson_of, generated_of, matched_muon
from binworks.processors.muons import (
    ELECTRON_FIELDS,
    EVENT_FIELDS,
    NOT_FINITE,
    TRIGGER_FIELDS,
    electrons_of,
    has_veto_electron,
    matches_trigger,
    muon_fields,
    muons_of,
    only_veto_muon,
    triggers_of,
)
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.axes import (
    ETA_BINS,
    ETA_HIGH,
    ETA_LOW,
    ISO_EDGES,
    MT_EDGES,
    PT_BINS,
    PT_HIGH,
    PT_LOW,
    w_axes,
)
from binworks.tensors.errors import InputError
from binworks.tensors.expansion import Expansion
from binworks.tensors.groups import efficiency as efficiency_group
from binworks.tensors.groups import mass as mass_group
from binworks.tensors.groups import momentum_scale as scale_group
from binworks.tensors.groups import pdf as pdf_group
from binworks.tensors.groups import pileup as pileup_group
from binworks.tensors.groups import theory as theory_group
from binworks.tensors.groups.base import VariationGroup
from binworks.tensors.histogram import Histogram
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import regular_bin, variable_bin

Array = NDArray[Any]

TRIGGER_BITS: Mapping[str, tuple[int, ...]] = {"2016": (4, 5), "2017-on": (3,)}
MT_BINS, ISO_BINS = len(MT_EDGES) - 1, len(ISO_EDGES) - 1
MT_ARRAY, ISO_ARRAY = np.array(MT_EDGES), np.array(ISO_EDGES)

COUNTS = (
    "entries", "sum_sign", "cut/1 trigger", "cut/2 MET filters", "cut/3 one veto muon", "cut/4 good muon",
    "cut/5 no veto electron", "cut/6 trigger match", "cut/7 generator match", "selected",
    "odd/kinematics not finite", "odd/weight not finite",
)  # fmt: skip
(ENTRIES, SUM_SIGN, TRIGGER, FILTERS, ONE_MUON, GOOD_MUON, NO_ELECTRON, MATCHED, GEN_MATCHED, SELECTED,
 ODD_KINEMATICS, ODD_WEIGHT) = range(len(COUNTS))  # fmt: skip


class WMassOptions(Options):
    """Options of the W channel."""

    flavour: Literal["2016", "2017-on"] = OptionField(
        "2016", description="Which trigger-object filter bits mark an isolated muon: 4 or 5 in 2016, 3 later."
    )
    pdf_branch: str = OptionField("LHEPdfWeight", pattern=r"^LHEPdfWeight(AltSet\d+)?$", description="The PDF set.")
    pdf_members: int = OptionField(61, ge=5, le=501, description="Weights in that branch: central, Hessian pairs, two for alphaS.")


class Event(NamedTuple):
    """Scalars of a range of events."""

    trigger: Array
    met_filters: Array
    met_pt: Array
    met_phi: Array


class Weights(NamedTuple):
    """Generator and pile-up columns of a range; blocks have no columns where the file or the data set has none."""

    gen: Array
    n_true: Array
    mass: Array
    pdf: Array


class Corrections(NamedTuple):
    """Compiled payloads."""

    scale: Any
    resolution: Any
    idip: Any
    pileup: Any
    theory: Any


class Kind(NamedTuple):
    """What the events are."""

    is_data: bool
    prompt: bool
    has_boson: bool


class Blocks(NamedTuple):
    """Where the event goes: sums over (cells,) and compact blocks over (cells, columns), zero columns if not asked for."""

    values: Array
    variances: Array
    mass: Array
    pdf: Array
    scale: Array
    idip: Array
    pileup: Array
    theory: Array


class WMass(CompiledProcessor):
    """Muon (eta, pT, charge) in bins of mT and isolation, with its variations."""

    name: ClassVar[str] = "w_mass"
    summary: ClassVar[str] = "W -> mu nu: muon eta, pT, charge in six regions of mT and isolation"
    version: ClassVar[int] = 1
    Options: ClassVar[type[Options]] = WMassOptions
    options: WMassOptions
    systematics_known: ClassVar[Mapping[str, str | None]] = {
        mass_group.NAME: None,
        pdf_group.NAME: None,
        scale_group.NAME: "momentum_scale",
        "efficiency_idip": "efficiency_idip",
        pileup_group.NAME: "pileup",
        theory_group.NAME: "theory",
    }

    def fields(self, dataset: Dataset) -> tuple[Field, ...]:
        """Return what must be read of that data set."""
        reconstructed = (*EVENT_FIELDS, *muon_fields(is_data=dataset.is_data), *ELECTRON_FIELDS, *TRIGGER_FIELDS)
        if dataset.is_data:
            return reconstructed
        weights = [Field("gen_weight", ("genWeight",), "f4"), Field("n_true", ("Pileup_nTrueInt",), "f4")]
        if dataset.boson == "W" and "mass" in self.systematics:
            weights.append(Field("mass_weights", ("MEParamWeight",), "f4", "block", optional=True))
        if dataset.boson is not None and "pdf" in self.systematics:
            weights.append(Field("pdf_weights", (self.options.pdf_branch,), "f4", "block"))
        return (*reconstructed, *weights, *GENERATOR_FIELDS)

    def accumulator(self, dataset: Dataset) -> Accumulator:
        """Return the empty histograms: ``nominal`` and a compact block for each group that concerns the data set."""
        axes = w_axes()
        histograms = {"nominal": Histogram.zeros(axes, variances=True)}
        histograms |= {group.name: group.block(axes) for group in self._groups if _concerns(group.name, dataset)}
        return Accumulator(histograms, dict.fromkeys(COUNTS, 0))

    def expansions(self) -> list[Expansion]:
        """Return how the compact blocks become named variations."""
        return [group.expansion for group in self._groups]

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
        fill_events(
            Event(columns["trigger"], columns["met_filters"], columns["met.pt"], columns["met.phi"]),
            muons_of(columns),
            electrons_of(columns),
            triggers_of(columns, TRIGGER_BITS[self.options.flavour]),
            generated_of(columns),
            self._weights(columns, dataset),
            self._data_corrections if dataset.is_data else self._mc_corrections,
            Kind(dataset.is_data, dataset.prompt, dataset.boson is not None),
            _blocks(accumulator),
            counts,
            odd,
        )
        for name, count in zip(COUNTS, counts.tolist(), strict=True):
            accumulator.counts[name] += count
        for i in np.flatnonzero(odd):
            accumulator.note("odd", f"{columns['run'][i]}:{columns['lumi'][i]}:{columns['event'][i]}")

    @cached_property
    def _groups(self) -> tuple[VariationGroup, ...]:
        sets = self.corrections
        make = {
            mass_group.NAME: mass_group.group,
            pdf_group.NAME: lambda: pdf_group.group(self.options.pdf_members),
            scale_group.NAME: lambda: scale_group.group(momentum_scale.load(sets, is_data=False)[1]),
            "efficiency_idip": lambda: efficiency_group.group("idip", efficiency.load(sets, "idip")[1]),
            pileup_group.NAME: pileup_group.group,
            theory_group.NAME: lambda: theory_group.group(theory.load(sets)[1]),
        }
        return tuple(make[name]() for name in self.systematics)

    @cached_property
    def _mc_corrections(self) -> Corrections:
        sets = self.corrections
        return Corrections(
            momentum_scale.load(sets, is_data=False)[0] if self._has("momentum_scale") else momentum_scale.identity(),
            resolution.load(sets, is_data=False) if self._has("resolution") else resolution.unknown(),
            efficiency.load(sets, "idip")[0] if self._has("efficiency_idip") else efficiency.identity("idip"),
            pileup.load(sets) if self._has("pileup") else pileup.identity(),
            theory.load(sets)[0] if self._has("theory") else theory.identity(),
        )

    @cached_property
    def _data_corrections(self) -> Corrections:
        if not self._has("momentum_scale"):
            return self._mc_corrections
        return self._mc_corrections._replace(scale=momentum_scale.load(self.corrections, is_data=True)[0])

    def _weights(self, columns: Columns, dataset: Dataset) -> Weights:
        nothing = np.zeros((columns.size, 0), "f4")
        if dataset.is_data:
            return Weights(nothing[:, 0:0].reshape(-1), nothing.reshape(-1), nothing, nothing)
        blocks = []
        wanted = (("mass_weights", len(mass_group.SHIFTS_MEV)), ("pdf_weights", self.options.pdf_members))
        for name, length in wanted:
            block = columns.arrays.get(name, nothing)
            if block.shape[1] not in ({0, length} if name == "mass_weights" else {length} if name in columns.arrays else {0}):
                raise InputError(
                    f"The file has {block.shape[1]} {name.replace('_', ' ')} an event, expected {length}.",
                    code="wrong-block",
                    where=dataset.name,
                    hint="Set the option pdf_members, or leave the systematic out." if name == "pdf_weights" else None,
                )
            blocks.append(block)
        return Weights(columns["gen_weight"], columns["n_true"], *blocks)


def _concerns(group: str, dataset: Dataset) -> bool:
    """Whether the group varies that data set: nothing varies data, and only a boson has theory."""
    if dataset.is_data:
        return False
    if group == mass_group.NAME:
        return dataset.boson == "W"
    return group not in (pdf_group.NAME, theory_group.NAME) or dataset.boson is not None


def _blocks(accumulator: Accumulator) -> Blocks:
    nominal = accumulator.histograms["nominal"]
    if nominal.variances is None:
        raise TypeError("nominal keeps its sum of squared weights")
    nothing = np.zeros((0, 0))

    def block(name: str) -> Array:
        histogram = accumulator.histograms.get(name)
        return nothing if histogram is None else histogram.values.reshape(-1, histogram.values.shape[-1])

    names = ("mass", "pdf", "momentum_scale", "efficiency_idip", "pileup", "theory")
    return Blocks(nominal.values.reshape(-1), nominal.variances.reshape(-1), *[block(name) for name in names])


@kernel
def fill_events(
    event: Any,
    muons: Any,
    electrons: Any,
    triggers: Any,
    generated: Any,
    weights: Any,
    corrections: Any,
    kind: Any,
    blocks: Any,
    counts: Any,
    odd: Any,
) -> None:
    """Select events, compute each one's cell and weight once, and add what it changes to every block.

    ``counts`` is ordered as `COUNTS`; ``odd`` marks events left out because a number was not finite.
    """
    for i in range(len(event.trigger)):
        counts[ENTRIES] += 1
        sign = 1.0
        if not kind.is_data:
            sign = np.sign(weights.gen[i])
            if not np.isfinite(weights.gen[i]):
                counts[ODD_WEIGHT] += 1
                odd[i] = 1
                continue
            counts[SUM_SIGN] += int(sign)

        # selection
        if not event.trigger[i]:
            continue
        counts[TRIGGER] += 1
        if not event.met_filters[i]:
            continue
        counts[FILTERS] += 1
        m, pt = only_veto_muon(i, muons, corrections.scale)
        if m == NOT_FINITE or (m >= 0 and not (np.isfinite(event.met_pt[i]) and np.isfinite(event.met_phi[i]))):
            counts[ODD_KINEMATICS] += 1
            odd[i] = 1
            continue
        if m < 0:
            continue
        counts[ONE_MUON] += 1
        if not (muons.medium[m] and pt > PT_LOW and pt < PT_HIGH):
            continue
        counts[GOOD_MUON] += 1
        if has_veto_electron(i, electrons):
            continue
        counts[NO_ELECTRON] += 1
        eta, phi, charge = float(muons.eta[m]), float(muons.phi[m]), muons.charge[m]
        if not matches_trigger(i, eta, phi, triggers):
            continue
        counts[MATCHED] += 1
        match = -1
        if not kind.is_data and kind.prompt:
            match = matched_muon(i, eta, phi, generated)
            if match < 0:
                continue
        counts[GEN_MATCHED] += 1

        # cell
        mt = transverse_mass(pt, phi, float(muons.pt[m]), event.met_pt[i], event.met_phi[i])
        eta_bin = regular_bin(eta, ETA_LOW, ETA_HIGH, ETA_BINS)
        charge_bin = 1 if charge > 0 else 0
        iso_bin = variable_bin(max(float(muons.iso[m]), 0.0), ISO_ARRAY)
        if iso_bin < 0:
            counts[ODD_KINEMATICS] += 1
            odd[i] = 1
            continue
        cell = eta_bin * PT_BINS + regular_bin(pt, PT_LOW, PT_HIGH, PT_BINS)
        cell = ((cell * 2 + charge_bin) * MT_BINS + variable_bin(mt, MT_ARRAY)) * ISO_BINS + iso_bin
        if kind.is_data:
            counts[SELECTED] += 1
            blocks.values[cell] += 1.0
            blocks.variances[cell] += 1.0
            continue

        # weight
        row = pileup.pileup_bin(weights.n_true[i], corrections.pileup)
        mass, absy, qt, boson_charge = boson_of(i, generated) if kind.has_boson else (0.0, 0.0, 0.0, 0)
        theory_row = theory.theory_row(mass, absy, qt, boson_charge, corrections.theory)
        x = efficiency.scaled_pt(pt, corrections.idip)
        factor = efficiency.scale_factor(x, eta_bin, charge_bin, corrections.idip)
        w = sign * factor
        if kind.has_boson and mass > 0.0:
            w *= theory_row[0]
        if weights.pdf.shape[1] > 0:
            w *= weights.pdf[i, 0]
        w_without_pileup = w
        w *= corrections.pileup.weights[row, 0]
        if row < 0 or not (np.isfinite(w) and finite_row(weights.pdf[i]) and finite_row(weights.mass[i])):
            counts[ODD_WEIGHT] += 1
            odd[i] = 1
            continue
        counts[SELECTED] += 1
        blocks.values[cell] += w
        blocks.variances[cell] += w * w

        # variations
        if blocks.mass.shape[1] > 0:
            if weights.mass.shape[1] > 0:
                mass_group.add_weights(blocks.mass, cell, w, weights.mass[i])
            else:
                mass_group.add_breit_wigner(blocks.mass, cell, w, mass)
        if blocks.pdf.shape[1] > 0:
            pdf_group.add(blocks.pdf, cell, w, weights.pdf[i])
        if blocks.scale.shape[1] > 0 and match >= 0:
            ratio = generated.pt[match] * np.cosh(generated.eta[match]) / (pt * np.cosh(eta))
            width = resolution.relative_width(1.0 / generated.pt[match], eta_bin // 2, corrections.resolution)
            scale_group.add(blocks.scale, cell, w, resolution.scale_score(ratio, width), 1.0 / pt, charge)
        if blocks.idip.shape[1] > 0:
            efficiency_group.add(blocks.idip, cell, w, x, factor)
        if blocks.pileup.shape[1] > 0:
            up_down = corrections.pileup.weights[row]
            pileup_group.add(blocks.pileup, cell, w_without_pileup, up_down[1], up_down[2])
        if blocks.theory.shape[1] > 0:
            theory_group.add(blocks.theory, cell, w, theory_row)


@kernel
def transverse_mass(pt: float, phi: float, measured_pt: float, met: float, met_phi: float) -> float:
    """Return mT (GeV); the change of the muon's pT by its correction is carried into the missing momentum."""
    x = met * np.cos(met_phi) - (pt - measured_pt) * np.cos(phi)
    y = met * np.sin(met_phi) - (pt - measured_pt) * np.sin(phi)
    corrected = np.sqrt(x * x + y * y)
    product = pt * corrected - pt * (x * np.cos(phi) + y * np.sin(phi))
    return float(np.sqrt(max(2.0 * product, 0.0)))


@kernel
def finite_row(row: Any) -> bool:
    """Whether every number of the row is finite; by comparison only, so that it vectorises."""
    good = 0
    for j in range(len(row)):
        good += abs(row[j]) < np.inf
    return good == len(row)
