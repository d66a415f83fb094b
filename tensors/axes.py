"""The axes of the histograms, in one place, so that kernels, expansions and fits agree."""

from __future__ import annotations

from typing import Any

import hist
import numpy as np

ETA_BINS, ETA_LOW, ETA_HIGH = 48, -2.4, 2.4
PT_BINS, PT_LOW, PT_HIGH = 30, 26.0, 56.0
MT_EDGES = (0.0, 20.0, 40.0, np.inf)
ISO_EDGES = (0.0, 0.15, np.inf)
CHARGE_BINS = 2


def w_axes() -> tuple[Any, ...]:
    """Return eta, pt, charge, mt, relIso: 48 x 30 x 2 x 3 x 2 = 17 280 cells, none of them flow."""
    return (
        hist.axis.Regular(ETA_BINS, ETA_LOW, ETA_HIGH, name="eta", label="muon eta", flow=False),
        hist.axis.Regular(PT_BINS, PT_LOW, PT_HIGH, name="pt", label="muon pT [GeV]", flow=False),
        hist.axis.Regular(CHARGE_BINS, -2.0, 2.0, name="charge", label="muon charge", flow=False),
        hist.axis.Variable(MT_EDGES, name="mt", label="mT [GeV]", flow=False),
        hist.axis.Variable(ISO_EDGES, name="relIso", label="relative isolation", flow=False),
    )


def column_axis(columns: tuple[str, ...]) -> Any:
    """Return the last axis of a compact block: its columns by name."""
    return hist.axis.StrCategory(columns, name="column", flow=False)


Z_PT_BINS, Z_PT_HIGH = 34, 60.0
MLL_BINS, MLL_LOW, MLL_HIGH = 25, 60.0, 120.0
FORWARD_BINS = 14
PTLL_EDGES = (*(float(edge) for edge in range(31)), 32.0, 34.0, 36.0, 40.0, 45.0, 50.0, 60.0, 80.0, 100.0)
YLL_BINS, YLL_HIGH = 20, 2.5


def z_wlike_axes() -> tuple[Any, ...]:
    """Return eta, pt, charge of the kept muon: 48 x 34 x 2 = 3264 cells, none of them flow."""
    return (
        hist.axis.Regular(ETA_BINS, ETA_LOW, ETA_HIGH, name="eta", label="muon eta", flow=False),
        hist.axis.Regular(Z_PT_BINS, PT_LOW, Z_PT_HIGH, name="pt", label="muon pT [GeV]", flow=False),
        hist.axis.Regular(CHARGE_BINS, -2.0, 2.0, name="charge", label="muon charge", flow=False),
    )


def mll_axes() -> tuple[Any, ...]:
    """Return the pair's mass and |eta| of the more forward muon: 25 x 14 = 350 cells."""
    return (
        hist.axis.Regular(MLL_BINS, MLL_LOW, MLL_HIGH, name="mll", label="m(mumu) [GeV]", flow=False),
        hist.axis.Regular(
            FORWARD_BINS, 0.0, ETA_HIGH, name="forward", label="|eta| of the more forward muon", flow=False
        ),
    )


def ptll_axes() -> tuple[Any, ...]:
    """Return the pair's pT and |rapidity|: 39 x 20 = 780 cells; pairs beyond them are not counted."""
    return (
        hist.axis.Variable(PTLL_EDGES, name="ptll", label="pT(mumu) [GeV]", flow=False),
        hist.axis.Regular(YLL_BINS, 0.0, YLL_HIGH, name="yll", label="|y(mumu)|", flow=False),
    )
