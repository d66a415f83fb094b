"""The W channel: one good muon, all six regions of (mT, isolation); PHYSICS 2 and 3.

One kernel computes bin and weight of an event once, and adds the vector of what the event changes to each variation
group's block. Read `fill_events` from top to bottom: it is the analysis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    NONE,
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
    CHARGE_BINS,
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
    pdf_branch: str = OptionField(
        "LHEPdfWeight", pattern=r"^LHEPdfWeight(AltSet\d+)?$", description="The PDF set."
    )
    pdf_members: int = OptionField(
        61, ge=5, le=501, description="Weights in that branch: central, Hessian pairs, two for alphaS."
    )


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


class Selected(NamedTuple):
    """The selected muon: where it stands in the range, corrected pT (GeV), and its generated match (-1: none)."""

    muon: int
    pt: float
    eta: float
    phi: float
    charge: int
    match: int


class Blocks(NamedTuple):
    """Where the event goes: sums over (cells,), compact blocks over (cells, columns); no columns if not asked for."""

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
        reconstructed = (
            *EVENT_FIELDS,
            *muon_fields(is_data=dataset.is_data),
            *ELECTRON_FIELDS,
            *TRIGGER_FIELDS,
        )
        if dataset.is_data:
            return reconstructed
        weights = [Field("gen_weight", ("genWeight",), "f4"), Field("n_true", ("Pileup_nTrueInt",), "f4")]
        if dataset.boson == "W" and "mass" in self.systematics:
            weights.append(Field("mass_weights", ("MEParamWeight",), "f4", "block", optional=True))
        if dataset.boson is not None:  # the central one is in the nominal weight, whatever is varied
            varied = "pdf" in self.systematics
            weights.append(
                Field("pdf_weights", (self.options.pdf_branch,), "f4", "block", optional=not varied)
            )
        return (*reconstructed, *weights, *GENERATOR_FIELDS)

    def accumulator(self, dataset: Dataset) -> Accumulator:
        """Return the empty histograms: ``nominal`` and a compact block for each group that concerns the data set."""
        axes = w_axes()
        histograms = {"nominal": Histogram.zeros(axes, variances=True)}
        histograms |= {
            group.name: group.block(axes) for group in self._groups if _concerns(group.name, dataset)
        }
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
            self._corrections[dataset.is_data],
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
        make: Mapping[str, Callable[[], VariationGroup]] = {
            mass_group.NAME: mass_group.group,
            pdf_group.NAME: lambda: pdf_group.group(self.options.pdf_members),
            scale_group.NAME: lambda: scale_group.group(
                momentum_scale.load(self._needed("momentum_scale"), is_data=False)[1]
            ),
            "efficiency_idip": lambda: efficiency_group.group(
                "idip", efficiency.load(self._needed("efficiency_idip"), "idip")[1]
            ),
            pileup_group.NAME: pileup_group.group,
            theory_group.NAME: lambda: theory_group.group(theory.load(self._needed("theory"))[1]),
        }
        return tuple(make[name]() for name in self.systematics)

    @cached_property
    def _corrections(self) -> dict[bool, Corrections]:
        """The compiled payloads for simulation (False) and data (True); the identity where there is none."""
        has = self._set_with
        scale = {
            is_data: momentum_scale.load(found, is_data=is_data)[0] if found else momentum_scale.identity()
            for is_data, found in ((False, has("momentum_scale")), (True, has("momentum_scale")))
        }
        simulation = Corrections(
            scale[False],
            resolution.load(found, is_data=False) if (found := has("resolution")) else resolution.unknown(),
            efficiency.load(found, "idip")[0]
            if (found := has("efficiency_idip"))
            else efficiency.identity("idip"),
            pileup.load(found) if (found := has("pileup")) else pileup.identity(),
            theory.load(found)[0] if (found := has("theory")) else theory.identity(),
        )
        return {False: simulation, True: simulation._replace(scale=scale[True])}

    def _weights(self, columns: Columns, dataset: Dataset) -> Weights:
        """Return the weight columns; a block must be as long as its group, but mass weights may be absent."""
        none = np.zeros((columns.size, 0), "f4")
        if dataset.is_data:
            return Weights(none.reshape(-1), none.reshape(-1), none, none)
        mass = columns.arrays.get("mass_weights", none)
        pdf = columns.arrays.get("pdf_weights", none)
        if mass.shape[1] not in (0, len(mass_group.SHIFTS_MEV)):
            raise _wrong_block(
                columns.where,
                "MEParamWeight",
                mass,
                len(mass_group.SHIFTS_MEV),
                "leave the systematic 'mass' out",
            )
        if "pdf" not in self.systematics:
            pdf = np.ascontiguousarray(pdf[:, :1])
        elif dataset.boson is not None and pdf.shape[1] != self.options.pdf_members:
            members = self.options.pdf_members
            raise _wrong_block(
                columns.where, self.options.pdf_branch, pdf, members, "set the option pdf_members"
            )
        return Weights(columns["gen_weight"], columns["n_true"], mass, pdf)


def _wrong_block(where: str, branch: str, block: Array, expected: int, hint: str) -> InputError:
    return InputError(
        f"Branch {branch} has {block.shape[1]} weights an event, expected {expected}.",
        code="wrong-block",
        where=where,
        hint=f"If the file is right, {hint}.",
    )


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
        if not kind.is_data:
            if not np.isfinite(weights.gen[i]):
                counts[ODD_WEIGHT] += 1
                odd[i] = 1
                continue
            counts[SUM_SIGN] += int(np.sign(weights.gen[i]))
        chosen = select(i, event, muons, electrons, triggers, generated, corrections.scale, kind, counts)
        if chosen.muon == NOT_FINITE:
            counts[ODD_KINEMATICS] += 1
            odd[i] = 1
        elif chosen.muon >= 0:
            cell = cell_of(i, chosen, muons, event)
            if kind.is_data:
                counts[SELECTED] += 1
                blocks.values[cell] += 1.0
                blocks.variances[cell] += 1.0
            elif fill_simulated(i, cell, chosen, generated, weights, corrections, kind, blocks):
                counts[SELECTED] += 1
            else:
                counts[ODD_WEIGHT] += 1
                odd[i] = 1


@kernel
def select(
    i: int,
    event: Any,
    muons: Any,
    electrons: Any,
    triggers: Any,
    generated: Any,
    scale: Any,
    kind: Any,
    counts: Any,
) -> Selected:
    """Return the event's muon; NONE in its place if the event is not selected, or NOT_FINITE."""
    rejected = Selected(NONE, 0.0, 0.0, 0.0, 0, -1)
    if not event.trigger[i]:
        return rejected
    counts[TRIGGER] += 1
    if not event.met_filters[i]:
        return rejected
    counts[FILTERS] += 1
    m, pt = only_veto_muon(i, muons, scale)
    if m == NOT_FINITE:
        return Selected(NOT_FINITE, 0.0, 0.0, 0.0, 0, -1)
    if m < 0:
        return rejected
    counts[ONE_MUON] += 1
    if not (muons.medium[m] and pt > PT_LOW and pt < PT_HIGH):
        return rejected
    counts[GOOD_MUON] += 1
    if has_veto_electron(i, electrons):
        return rejected
    counts[NO_ELECTRON] += 1
    eta, phi = np.float64(muons.eta[m]), np.float64(muons.phi[m])
    if not matches_trigger(i, eta, phi, triggers):
        return rejected
    counts[MATCHED] += 1
    match = -1
    if not kind.is_data and kind.prompt:
        match = matched_muon(i, eta, phi, generated)
        if match < 0:
            return rejected
    counts[GEN_MATCHED] += 1
    if not (np.isfinite(event.met_pt[i]) and np.isfinite(event.met_phi[i]) and np.isfinite(muons.iso[m])):
        return Selected(NOT_FINITE, 0.0, 0.0, 0.0, 0, -1)
    return Selected(m, pt, eta, phi, 1 if muons.charge[m] > 0 else -1, match)


@kernel
def cell_of(i: int, chosen: Any, muons: Any, event: Any) -> int:
    """Return the flat cell of (eta, pt, charge, mt, relIso)."""
    mt = transverse_mass(
        chosen.pt,
        chosen.phi,
        np.float64(muons.pt[chosen.muon]),
        np.float64(event.met_pt[i]),
        np.float64(event.met_phi[i]),
    )
    cell = regular_bin(chosen.eta, ETA_LOW, ETA_HIGH, ETA_BINS) * PT_BINS + regular_bin(
        chosen.pt, PT_LOW, PT_HIGH, PT_BINS
    )
    cell = cell * CHARGE_BINS + (1 if chosen.charge > 0 else 0)
    cell = cell * MT_BINS + variable_bin(mt, MT_ARRAY)
    return int(cell * ISO_BINS + variable_bin(max(np.float64(muons.iso[chosen.muon]), 0.0), ISO_ARRAY))


@kernel
def fill_simulated(
    i: int, cell: int, chosen: Any, generated: Any, weights: Any, corrections: Any, kind: Any, blocks: Any
) -> bool:
    """Weigh the event and add it to the nominal sums and to every block; False if a weight is not finite."""
    eta_bin = regular_bin(chosen.eta, ETA_LOW, ETA_HIGH, ETA_BINS)
    mass, absy, qt, boson_charge = boson_of(i, generated) if kind.has_boson else (0.0, 0.0, 0.0, 0)
    theory_row = theory.theory_row(mass, absy, qt, boson_charge, corrections.theory)
    x = efficiency.scaled_pt(chosen.pt, corrections.idip)
    factor = efficiency.scale_factor(x, eta_bin, 1 if chosen.charge > 0 else 0, corrections.idip)
    w = np.sign(weights.gen[i]) * factor
    if mass > 0.0:
        w *= theory_row[0]
    if weights.pdf.shape[1] > 0:
        w *= weights.pdf[i, 0]
    row = pileup.pileup_bin(weights.n_true[i], corrections.pileup)
    w_without_pileup = w
    w *= corrections.pileup.weights[row, 0]
    if row < 0 or not (np.isfinite(w) and finite_row(weights.pdf[i]) and finite_row(weights.mass[i])):
        return False
    blocks.values[cell] += w
    blocks.variances[cell] += w * w
    if blocks.mass.shape[1] > 0:
        if weights.mass.shape[1] > 0:
            mass_group.add_weights(blocks.mass, cell, w, weights.mass[i])
        else:
            mass_group.add_breit_wigner(blocks.mass, cell, w, mass)
    if blocks.pdf.shape[1] > 0:
        pdf_group.add(blocks.pdf, cell, w, weights.pdf[i])
    if blocks.scale.shape[1] > 0 and chosen.match >= 0:
        k = 1.0 / chosen.pt
        score = response_score(chosen, eta_bin, generated, corrections.resolution)
        scale_group.add(blocks.scale, cell, w, score, k, chosen.charge)
    if blocks.idip.shape[1] > 0:
        efficiency_group.add(blocks.idip, cell, w, x, factor)
    if blocks.pileup.shape[1] > 0:
        up, down = corrections.pileup.weights[row, 1], corrections.pileup.weights[row, 2]
        pileup_group.add(blocks.pileup, cell, w_without_pileup, up, down)
    if blocks.theory.shape[1] > 0:
        theory_group.add(blocks.theory, cell, w, theory_row)
    return True


@kernel
def response_score(chosen: Any, eta_bin: int, generated: Any, widths: Any) -> float:
    """Return d ln p / ds of the muon's response r = (q/p)_reco / (q/p)_gen."""
    gen_pt = np.float64(generated.pt[chosen.match])
    ratio = gen_pt * np.cosh(np.float64(generated.eta[chosen.match])) / (chosen.pt * np.cosh(chosen.eta))
    return float(resolution.scale_score(ratio, resolution.relative_width(1.0 / gen_pt, eta_bin // 2, widths)))


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
