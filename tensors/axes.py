"""The axes of the W-mass histograms, in one place, so that kernels, expansions and fits agree."""

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
