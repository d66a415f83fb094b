"""The processes: how Pythia makes them, and their cross sections.

Cross sections are Pythia's at 13 TeV with its default proton (leading order, NNPDF2.3), branching fractions included,
from 600 000 phase-space points each (0.1 %). They fix the luminosity and the numbers of events alike, so prediction and
data agree whatever their last digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from binworks.tensors.errors import unknown_name

W_MASS, W_WIDTH = 80.379, 2.085
Z_MASS, Z_WIDTH = 91.1876, 2.4952
BEAM_ENERGY = 6500.0
TAU_TO_MU, TAU_TO_E = 0.1739, 0.1782

_W = ("WeakSingleBoson:ffbar2W = on", "24:onMode = off")
_Z = ("WeakSingleBoson:ffbar2gmZ = on", "PhaseSpace:mHatMin = 50.", "23:onMode = off")


@dataclass(frozen=True)
class Process:
    """One process.

    Parameters
    ----------
    name : str
        Name of its data set.
    title : str
        For people.
    code : int
        Its place in random-number keys; never changes.
    group : str
        Process of the fit.
    cross_section : float
        pb, branching fractions and the requirement of a muon included.
    settings : tuple of str
        For Pythia; none for the parametric sample.
    boson : "W", "Z" or None
    lepton : "mu" or "tau"
        What the boson decays to.
    mass_exponent : float
        Cross section proportional to (boson mass) to this power, the width kept; measured with mass weights.
    """

    name: str
    title: str
    code: int
    group: str
    cross_section: float
    settings: tuple[str, ...] = ()
    boson: Literal["W", "Z"] | None = None
    lepton: Literal["mu", "tau"] = "mu"
    mass_exponent: float = 0.0

    @property
    def prompt(self) -> bool:
        """Whether the muons come from a boson or its tau."""
        return self.boson is not None


_ALL = (
    Process("Wplusmunu", "W+ -> mu nu", 1, "Wmunu", 8871.0, (*_W, "24:onPosIfAny = 13"), "W", "mu", -1.83),
    Process("Wminusmunu", "W- -> mu nu", 2, "Wmunu", 6386.0, (*_W, "24:onNegIfAny = 13"), "W", "mu", -1.88),
    Process("Wtaunu", "W -> tau nu -> mu", 3, "Wtaunu", 2653.0, (*_W, "24:onIfAny = 15"), "W", "tau", -1.85),
    Process("Zmumu", "Z/gamma* -> mu mu", 4, "Zmumu", 1519.0, (*_Z, "23:onIfAny = 13"), "Z"),
    Process(
        "Ztautau", "Z/gamma* -> tau tau -> mu", 5, "Ztautau", 482.5, (*_Z, "23:onIfAny = 15"), "Z", "tau"
    ),
    Process("Nonprompt", "muons from heavy quarks", 6, "Nonprompt", 6500.0),
)
PROCESSES: Mapping[str, Process] = {process.name: process for process in _ALL}


def find(name: str) -> Process:
    """Return the process of that name.

    Raises
    ------
    RequestError
        ``unknown-process``.
    """
    if name not in PROCESSES:
        raise unknown_name("process", name, list(PROCESSES))
    return PROCESSES[name]
