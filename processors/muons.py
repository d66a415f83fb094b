"""Muon, electron and trigger selections, as functions of one event that the fill kernels inline."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.processors.columns import Columns, Field
from binworks.processors.momenta import Momenta
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import delta_r2

Array = NDArray[Any]

MAX_ETA = 2.4
MAX_DXY = 0.05
VETO_PT = 15.0
MATCH_DR2 = 0.3**2

NONE, NOT_FINITE = -1, -3


def muon_fields(*, is_data: bool) -> tuple[Field, ...]:
    """Return the muon table; pT, eta, phi and charge come from the same refit, CVH where the file has it."""
    prefix = "cvh" if is_data else "cvhideal"

    def kinematic(quantity: str, dtype: str = "f4") -> Field:
        cvh = f"Muon_{prefix}{quantity[0].upper()}{quantity[1:]}"
        return Field(f"muon.{quantity}", (cvh, f"Muon_{quantity}"), dtype, "jagged")

    def identity(name: str, branch: str, default: float | None = None) -> Field:
        return Field(f"muon.{name}", (branch,), "u1", "jagged", default)

    return (
        kinematic("pt"),
        kinematic("eta"),
        kinematic("phi"),
        kinematic("charge", "i4"),
        Field("muon.dxy", ("Muon_dxybs", "Muon_dxy"), "f4", "jagged"),
        Field("muon.iso", ("Muon_vtxAgnPfRelIso04_all", "Muon_pfRelIso04_all"), "f4", "jagged"),
        identity("loose", "Muon_looseId"),
        identity("medium", "Muon_mediumId"),
        identity("global", "Muon_isGlobal"),
        identity("high_purity", "Muon_highPurity", default=1),
        Field("muon.sa_pt", ("Muon_standalonePt",), "f4", "jagged", optional=True),
        Field("muon.sa_eta", ("Muon_standaloneEta",), "f4", "jagged", optional=True),
        Field("muon.sa_phi", ("Muon_standalonePhi",), "f4", "jagged", optional=True),
        Field("muon.sa_hits", ("Muon_standaloneNumberOfValidHits",), "i4", "jagged", optional=True),
        Field("muon.pixel_hits", ("Muon_cvhNValidPixelHits",), "i4", "jagged", default=-1),
    )


JACOBIAN_FIELDS = (
    Field("muon.jacobian_size", ("Muon_cvhJacRef_Counts",), "i4", "jagged", default=0),
    Field("muon.parameters", ("Muon_cvhmergedGlobalIdxs_Counts",), "i4", "jagged", default=0),
    Field("cvh_jacobian.value", ("Muon_cvhJacRef_Vals",), "f4", "jagged", optional=True),
    Field("cvh_index.value", ("Muon_cvhmergedGlobalIdxs_Vals",), "i4", "jagged", optional=True),
)
"""What the CVH correction needs; the lists of numbers have an entry for all muons of an event, one after the other."""


ELECTRON_FIELDS = (
    Field("electron.pt", ("Electron_pt",), "f4", "jagged"),
    Field("electron.eta", ("Electron_eta",), "f4", "jagged"),
    Field("electron.dxy", ("Electron_dxy",), "f4", "jagged"),
    Field("electron.dz", ("Electron_dz",), "f4", "jagged"),
    Field("electron.cut_based", ("Electron_cutBased",), "i4", "jagged"),
)

TRIGGER_FIELDS = (
    Field("trigger", ("HLT_IsoTkMu24", "HLT_IsoMu24"), "u1", "any"),
    Field("trigobj.eta", ("TrigObj_eta",), "f4", "jagged"),
    Field("trigobj.phi", ("TrigObj_phi",), "f4", "jagged"),
    Field("trigobj.id", ("TrigObj_id",), "i4", "jagged"),
    Field("trigobj.bits", ("TrigObj_filterBits",), "i8", "jagged"),
)

MET_FILTERS = (
    "Flag_globalSuperTightHalo2016Filter",
    "Flag_EcalDeadCellTriggerPrimitiveFilter",
    "Flag_goodVertices",
    "Flag_HBHENoiseIsoFilter",
    "Flag_HBHENoiseFilter",
    "Flag_BadPFMuonFilter",
)
"""The recommended filters; those that the file has must all pass."""

_MET_KINDS = ("DeepMETPVRobust", "DeepMETResolutionTune", "PuppiMET", "MET")

EVENT_FIELDS = (
    Field("run", ("run",), "i8"),
    Field("lumi", ("luminosityBlock",), "i8"),
    Field("event", ("event",), "u8"),
    Field("met_filters", MET_FILTERS, "u1", "all", default=1),
    Field("met.pt", tuple(f"{kind}_pt" for kind in _MET_KINDS), "f4"),
    Field("met.phi", tuple(f"{kind}_phi" for kind in _MET_KINDS), "f4"),
)


class Muons(NamedTuple):
    """All muons of a range of events: corrected momenta (double precision), and what was measured.

    ``has_standalone`` says whether the cut on the stand-alone track can be made.
    """

    offsets: Array
    pt: Array
    eta: Array
    phi: Array
    charge: Array
    measured_pt: Array
    measured_phi: Array
    dxy: Array
    iso: Array
    loose: Array
    medium: Array
    is_global: Array
    high_purity: Array
    sa_pt: Array
    sa_eta: Array
    sa_phi: Array
    sa_hits: Array
    pixel_hits: Array
    has_standalone: bool


class Electrons(NamedTuple):
    """All electrons of a range of events."""

    offsets: Array
    pt: Array
    eta: Array
    dxy: Array
    dz: Array
    cut_based: Array


class TriggerObjects(NamedTuple):
    """All trigger objects of a range of events; ``mask`` has the filter bits that count."""

    offsets: Array
    eta: Array
    phi: Array
    id: Array
    bits: Array
    mask: int


def muons_of(columns: Columns, momenta: Momenta) -> Muons:
    """Return the muons of a range with their corrected momenta."""
    identities = ("dxy", "iso", "loose", "medium", "global", "high_purity")
    standalone = ("sa_pt", "sa_eta", "sa_phi", "sa_hits")
    arrays = [columns[f"muon.{name}"] for name in (*identities, *standalone, "pixel_hits")]
    present = all(len(columns[f"muon.{name}"]) == len(columns["muon.pt"]) for name in standalone)
    measured = (columns["muon.pt"].astype(np.float64), columns["muon.phi"].astype(np.float64))
    return Muons._make([columns.offsets["muon"], *momenta, *measured, *arrays, present])


def electrons_of(columns: Columns) -> Electrons:
    """Return the electrons of a range."""
    arrays = [columns[f"electron.{name}"] for name in ("pt", "eta", "dxy", "dz", "cut_based")]
    return Electrons(columns.offsets["electron"], *arrays)


def triggers_of(columns: Columns, bits: tuple[int, ...]) -> TriggerObjects:
    """Return the trigger objects of a range; ``bits`` are those that mark an isolated single muon."""
    arrays = [columns[f"trigobj.{name}"] for name in ("eta", "phi", "id", "bits")]
    return TriggerObjects._make([columns.offsets["trigobj"], *arrays, sum(1 << bit for bit in bits)])


@kernel
def is_veto_muon(m: int, muons: Any) -> bool:
    """Whether muon m, with its corrected momentum, counts against a second muon."""
    if not (muons.loose[m] and muons.is_global[m] and muons.high_purity[m]):
        return False
    if not (abs(muons.dxy[m]) < MAX_DXY and muons.pt[m] > VETO_PT and abs(muons.eta[m]) < MAX_ETA):
        return False
    if not muons.has_standalone:
        return True
    if not (muons.sa_pt[m] > VETO_PT and muons.sa_hits[m] >= 1):
        return False
    return bool(delta_r2(muons.sa_eta[m], muons.sa_phi[m], muons.eta[m], muons.phi[m]) < MATCH_DR2)


def veto_muons(events: Array, muons: Muons) -> tuple[Array, Array, Array]:
    """Return for each event how many veto muons it has, and the first two.

    The number is `NOT_FINITE` where the momentum of one of the event's muons is not a number.
    """
    n = len(events)
    number, first, second = np.zeros(n, np.int64), np.full(n, NONE), np.full(n, NONE)
    find_veto_muons(events, muons, number, first, second)
    return number, first, second


@kernel
def find_veto_muons(events: Array, muons: Any, number: Array, first: Array, second: Array) -> None:
    """Fill what `veto_muons` returns."""
    for j in range(len(events)):
        for m in range(muons.offsets[events[j]], muons.offsets[events[j] + 1]):
            if not (np.isfinite(muons.pt[m]) and np.isfinite(muons.eta[m]) and np.isfinite(muons.phi[m])):
                number[j] = NOT_FINITE
                break
            if is_veto_muon(m, muons):
                if number[j] == 0:
                    first[j] = m
                else:
                    second[j] = m
                number[j] += 1


def have_veto_electron(events: Array, electrons: Electrons) -> Array:
    """Return whether each event has an electron that vetoes it."""
    found = np.zeros(len(events), np.bool_)
    find_veto_electrons(events, electrons, found)
    return found


@kernel
def find_veto_electrons(events: Array, electrons: Any, found: Array) -> None:
    """Fill what `have_veto_electron` returns."""
    for j in range(len(events)):
        for e in range(electrons.offsets[events[j]], electrons.offsets[events[j] + 1]):
            if (
                electrons.pt[e] > 10.0
                and abs(electrons.eta[e]) < MAX_ETA
                and electrons.cut_based[e] >= 1
                and abs(electrons.dxy[e]) < MAX_DXY
                and abs(electrons.dz[e]) < 0.2
            ):
                found[j] = True


def match_trigger(events: Array, places: Array, muons: Muons, triggers: TriggerObjects) -> Array:
    """Return whether a muon trigger object with one of the filter bits lies within dR < 0.3 of each event's muon."""
    found = np.zeros(len(events), np.bool_)
    find_trigger_matches(events, places, (muons.eta, muons.phi), triggers, found)
    return found


@kernel
def find_trigger_matches(events: Array, places: Array, directions: Any, triggers: Any, found: Array) -> None:
    """Fill what `match_trigger` returns."""
    eta, phi = directions
    for j in range(len(events)):
        m = places[j]
        for t in range(triggers.offsets[events[j]], triggers.offsets[events[j] + 1]):
            if (
                triggers.id[t] == 13
                and (triggers.bits[t] & triggers.mask) != 0
                and delta_r2(triggers.eta[t], triggers.phi[t], eta[m], phi[m]) < MATCH_DR2
            ):
                found[j] = True
