"""Muon prefire: the level-1 trigger took a muon for one of the crossing before, and the event was lost.

The probability of one muon is p = plateau / (exp((pT - middle) / slope) + 1) in 11 bins of |eta| and one hot spot in
(eta, phi); the event's weight is the product of 1 - p over its loose muons.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from binworks.corrections.payload import Document, finite_array, read_document
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.jit import kernel
from binworks.tensors.kernels import variable_bin

KIND = "prefire"
ETA_BINS = 11
HOT_SPOT = 11
"""The place of the hot spot after the bins of |eta|."""
REGIONS = 12
SYSTEMATIC = 12
"""The place of the common systematic after the regions' own uncertainties."""
VARIATIONS = 13


class HotSpotDocument(Document):
    """The hot spot: its place (signed eta, phi) and its probability."""

    eta: tuple[float, float]
    phi: tuple[float, float]
    plateau: float
    middle: float
    slope: float
    uncertainty: float


class PrefireDocument(Document):
    """The payload."""

    schema_: Literal["binworks.prefire/1"] = Field(alias="schema")
    eta_edges: list[float]
    plateau: list[float]
    middle: list[float]
    slope: list[float]
    uncertainty: list[float]
    hot_spot: HotSpotDocument
    systematic: float


class Prefire(NamedTuple):
    """What the kernels need.

    Edges of the 11 bins of abs(eta); plateau, middle (GeV), slope (GeV, negative) and relative uncertainty of the
    plateau, shape (12,) with the hot spot last; the common relative systematic; borders of the hot spot in eta and phi.
    """

    eta_edges: Float64
    plateau: Float64
    middle: Float64
    slope: Float64
    uncertainty: Float64
    systematic: float
    hot_eta: Float64
    hot_phi: Float64


def load(corrections: CorrectionSet) -> Prefire:
    """Return the probabilities.

    Raises
    ------
    PayloadError
        If the payload is wrong, a probability does not rise with pT, or one varied upwards would reach 1.
    """
    document = read_document(PrefireDocument, corrections, KIND, KIND)
    where = f"{corrections.name}/{KIND}"
    edges = finite_array(document.eta_edges, (ETA_BINS + 1,), f"{where}: eta_edges")
    if edges[0] < 0 or (np.diff(edges) <= 0).any():
        raise PayloadError(
            "Edges in |eta| must rise from 0 or more.", code="wrong-axes", where=f"{where}: eta_edges"
        )
    spot = document.hot_spot
    prefire = Prefire(
        edges,
        _regions(document, "plateau", where),
        _regions(document, "middle", where),
        _regions(document, "slope", where),
        _regions(document, "uncertainty", where),
        document.systematic,
        _interval(spot.eta, f"{where}: hot_spot.eta"),
        _interval(spot.phi, f"{where}: hot_spot.phi"),
    )
    _check_probabilities(prefire, where)
    return prefire


def identity() -> Prefire:
    """Return probabilities that are 0 everywhere."""
    zeros, ones = np.zeros(REGIONS), np.ones(REGIONS)
    return Prefire(
        np.linspace(0.0, 2.4, ETA_BINS + 1), zeros, zeros, -ones, zeros, 0.0, np.zeros(2), np.zeros(2)
    )


@kernel
def region(eta: float, phi: float, prefire: Any) -> int:
    """Return the bin of abs(eta), 11 within the hot spot, -1 outside."""
    eta, phi = np.float64(eta), np.float64(phi)
    in_eta = eta > prefire.hot_eta[0] and eta < prefire.hot_eta[1]
    if in_eta and phi > prefire.hot_phi[0] and phi < prefire.hot_phi[1]:
        return HOT_SPOT
    return variable_bin(abs(eta), prefire.eta_edges)


@kernel
def lost(pt: float, region: int, prefire: Any) -> float:
    """Return the probability that a muon of pT (GeV) in one of the 12 regions makes the event be lost."""
    rise = np.exp((np.float64(pt) - prefire.middle[region]) / prefire.slope[region])
    return float(prefire.plateau[region] / (rise + 1.0))


@kernel
def event_factor(
    begin: int,
    end: int,
    pt: Any,
    eta: Any,
    phi: Any,
    loose: Any,
    prefire: Any,
    ratios: Float64,
) -> float:
    """Return the product of 1 - p over the loose muons begin <= m < end, and fill ``ratios``.

    ``ratios``, shape (13, 2), becomes the product varied up and down over the nominal one: first each region's plateau
    by its own uncertainty, then all of them by the common systematic. A pT that is not a number makes the product one.
    """
    ratios[:] = 1.0
    factor = 1.0
    for m in range(begin, end):
        if not loose[m]:
            continue
        r = region(eta[m], phi[m], prefire)
        if r < 0:
            continue
        p = lost(pt[m], r, prefire)
        factor *= 1.0 - p
        odds = p / (1.0 - p)
        ratios[r, 0] *= 1.0 - prefire.uncertainty[r] * odds
        ratios[r, 1] *= 1.0 + prefire.uncertainty[r] * odds
        ratios[SYSTEMATIC, 0] *= 1.0 - prefire.systematic * odds
        ratios[SYSTEMATIC, 1] *= 1.0 + prefire.systematic * odds
    return factor


def _regions(document: PrefireDocument, name: str, where: str) -> Float64:
    """Return the parameter of the 11 bins and of the hot spot."""
    bins = finite_array(getattr(document, name), (ETA_BINS,), f"{where}: {name}")
    spot = finite_array(getattr(document.hot_spot, name), (), f"{where}: hot_spot.{name}")
    return np.append(bins, spot)


def _interval(values: tuple[float, float], where: str) -> Float64:
    interval = finite_array(values, (2,), where)
    if interval[0] >= interval[1]:
        raise PayloadError("The lower border must be below the upper one.", code="wrong-axes", where=where)
    return interval


def _check_probabilities(prefire: Prefire, where: str) -> None:
    relative = np.append(prefire.uncertainty, prefire.systematic)
    for name, right, promise in (
        ("plateau", (prefire.plateau >= 0) & (prefire.plateau < 1), "from 0 to below 1"),
        ("slope", prefire.slope < 0, "negative: the probability rises with pT"),
        ("uncertainty", (prefire.uncertainty >= 0) & (prefire.uncertainty <= 1), "from 0 to 1"),
        ("systematic", (relative[-1:] >= 0) & (relative[-1:] <= 1), "from 0 to 1"),
        (
            "plateau",
            prefire.plateau * (1 + np.maximum(prefire.uncertainty, prefire.systematic)) < 1,
            "below 1 when varied up",
        ),
    ):
        wrong = np.flatnonzero(~right)
        if len(wrong):
            place = "hot_spot." + name if wrong[0] == HOT_SPOT else name
            raise PayloadError(f"{name} must be {promise}.", code="bad-payload", where=f"{where}: {place}")
