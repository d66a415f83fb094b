"""Pythia 8 collisions as arrays: W and Z production with initial-state radiation and photon radiation.

What the muon cannot see is off, which makes the generator twenty times faster: multiple interactions, beam remnants,
hadrons, and gluon radiation in the final state. The decays of taus are in `binworks.samples.tau_decay`: Pythia's take
2 to 10 ms each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from binworks.samples.arrays import Float64, Int64
from binworks.samples.processes import BEAM_ENERGY, W_MASS, W_WIDTH, Z_MASS, Z_WIDTH, Process
from binworks.tensors.errors import BinworksError, RequestError

GENERATOR_PDF = 13
"""Pythia's default proton: NNPDF2.3 QCD+QED LO, alpha_s = 0.130."""

_SETTINGS = (
    "Print:quiet = on",
    f"Beams:eCM = {2 * BEAM_ENERGY}",
    f"PDF:pSet = {GENERATOR_PDF}",
    "PartonLevel:MPI = off",
    "PartonLevel:Remnants = off",
    "Check:event = off",  # complains of the missing remnants
    "HadronLevel:all = off",
    "TimeShower:QCDshower = off",
    "TimeShower:QEDshowerByGamma = off",
    "TimeShower:pTminChgL = 0.001",
    "24:doForceWidth = on",
    f"24:mWidth = {W_WIDTH}",
    "23:doForceWidth = on",
    f"23:m0 = {Z_MASS}",
    f"23:mWidth = {Z_WIDTH}",
)
# without oversampling the weights keep their mean and spread a little more, at twice the speed
_BANDS = (
    "UncertaintyBands:doVariations = on",
    "UncertaintyBands:overSampleISR = 1.",
    "UncertaintyBands:List = {isrUp isr:muRfac=2.0, isrDown isr:muRfac=0.5}",
)
_LARGEST_SEED = 900_000_000
_ROW = 22
_MOST_FAILURES = 1000


@dataclass(frozen=True)
class Collisions:
    """Generated collisions; momenta in GeV in the laboratory.

    Parameters
    ----------
    parton_ids : array, shape (n, 2)
        PDG ids of the incoming partons of the hard process.
    parton_x : array, shape (n, 2)
        Their momentum fractions.
    hard_lepton : array, shape (n, 3)
        First lepton of the hard process before any radiation.
    lepton_ids : array, shape (n, 2)
        PDG ids of the two decay leptons.
    leptons : array, shape (n, 2, 3)
        After the recoil against initial-state radiation, before photon radiation.
    final_leptons : array, shape (n, 2, 3)
        After photon radiation.
    photon_event, photons : arrays, shape (m,), (m, 3)
        Radiated photons.
    shower_weights : array, shape (n, 2), or None
        Initial-state renormalisation scale times 2 and times 1/2, over nominal.
    """

    parton_ids: Int64
    parton_x: Float64
    hard_lepton: Float64
    lepton_ids: Int64
    leptons: Float64
    final_leptons: Float64
    photon_event: Int64
    photons: Float64
    shower_weights: Float64 | None = None

    def __len__(self) -> int:
        return len(self.parton_ids)

    @property
    def mass(self) -> Float64:
        """Mass of the boson; its square is that of the hard process."""
        result: Float64 = 2 * BEAM_ENERGY * np.sqrt(self.parton_x.prod(axis=1))
        return result

    @property
    def hard_rapidity(self) -> Float64:
        """Rapidity of the boson before radiation."""
        result: Float64 = 0.5 * np.log(self.parton_x[:, 0] / self.parton_x[:, 1])
        return result


class Generator:
    """A stream of collisions of one process.

    Parameters
    ----------
    process : Process
        One that Pythia makes.
    seed : numpy.random.SeedSequence
        The same seed gives the same collisions.
    mass_shift_mev : float
        Added to the W mass.
    shower_weights : bool
        Also compute the weights of the shower's scale; halves the speed.

    Raises
    ------
    RequestError
        ``missing-package``, if pythia8mc is not installed.
    """

    def __init__(
        self,
        process: Process,
        seed: np.random.SeedSequence,
        *,
        mass_shift_mev: float = 0.0,
        shower_weights: bool = False,
    ) -> None:
        chosen = int(seed.generate_state(1)[0]) % _LARGEST_SEED + 1
        self._shower_weights = shower_weights
        self._pythia = start_pythia(
            *_SETTINGS,
            *(_BANDS if shower_weights else ()),
            *process.settings,
            f"24:m0 = {W_MASS + 1e-3 * mass_shift_mev:.7f}",
            "Random:setSeed = on",
            f"Random:seed = {chosen}",
        )

    def draw(self, n: int) -> Collisions:
        """Return the next n collisions."""
        rows: list[float] = []
        photons: list[float] = []
        variations: list[float] | None = [] if self._shower_weights else None
        following, event, process = self._pythia.next, self._pythia.event, self._pythia.process
        for i in range(n):
            if not following():
                self._retry()
            _extract(i, event, process, rows, photons)
            if variations is not None:
                info = self._pythia.infoPython()
                variations += (info.weight(1), info.weight(2))
        return _collisions(n, rows, photons, variations)

    def _retry(self) -> None:
        """Draw until a collision succeeds; Pythia gives up on one now and then."""
        for _ in range(_MOST_FAILURES):
            if self._pythia.next():
                return
        raise BinworksError(f"Pythia failed {_MOST_FAILURES} times in a row.", code="generator-failed")


def start_pythia(*settings: str) -> Any:
    """Return Pythia, started with these settings.

    Raises
    ------
    RequestError
        ``missing-package``, if pythia8mc is not installed.
    """
    pythia = pythia_module().Pythia("", False)
    for setting in settings:
        if not pythia.readString(setting):
            raise BinworksError(f"Pythia refuses the setting {setting!r}.", code="bad-generator-setting")
    if not pythia.init():
        raise BinworksError("Pythia does not start with these settings.", code="bad-generator-setting")
    return pythia


def pythia_module() -> Any:
    """Return pythia8mc.

    Raises
    ------
    RequestError
        ``missing-package``, if it is not installed.
    """
    try:
        import pythia8mc
    except ImportError:
        raise RequestError(
            "Generating collisions needs Pythia 8, which is not installed.",
            code="missing-package",
            hint="pip install 'binworks[samples]'",
        ) from None
    return pythia8mc


def proton(pdf: int) -> Any:
    """Return Pythia's evaluator of the parton densities with that number in its list of proton sets."""
    pythia = start_pythia(*_SETTINGS, "WeakSingleBoson:ffbar2W = on", f"PDF:pSet = {pdf}")
    return pythia.getPDFPtr(2212)


def _extract(i: int, event: Any, process: Any, rows: list[float], photons: list[float]) -> None:
    """Append one collision; each call into Pythia costs, so there are as few as possible."""
    first, second, hard = process[3], process[4], process[6]
    place = event[event[5].iBotCopyId()].daughter1()  # the boson's decay: two leptons, then what they radiate
    a, b, size = event[place], event[place + 1], event.size()
    rows += (first.id(), second.id(), first.e(), second.e(), hard.px(), hard.py(), hard.pz(), hard.id())
    rows += (a.id(), b.id())
    before = (a.px(), a.py(), a.pz(), b.px(), b.py(), b.pz())
    rows += before
    if size == place + 2:
        rows += before
        return
    a, b = event[a.iBotCopyId()], event[b.iBotCopyId()]
    rows += (a.px(), a.py(), a.pz(), b.px(), b.py(), b.pz())
    for j in range(place + 2, size):
        particle = event[j]
        if particle.id() == 22 and particle.isFinal():
            photons += (i, particle.px(), particle.py(), particle.pz())


def _collisions(
    n: int, rows: list[float], photons: list[float], variations: list[float] | None
) -> Collisions:
    table = np.array(rows).reshape(n, _ROW)
    light = np.array(photons).reshape(-1, 4)
    ids = table[:, 8:10].astype(np.int64)
    # LHE and shower may list the leptons in different orders: the first one is meant
    same = (table[:, 7] == ids[:, 0])[:, None]
    total_z = (table[:, 2] - table[:, 3])[:, None] * np.array([[0.0, 0.0, 1.0]])
    return Collisions(
        parton_ids=table[:, 0:2].astype(np.int64),
        parton_x=table[:, 2:4] / BEAM_ENERGY,
        hard_lepton=np.where(same, table[:, 4:7], total_z - table[:, 4:7]),
        lepton_ids=ids,
        leptons=table[:, 10:16].reshape(n, 2, 3),
        final_leptons=table[:, 16:22].reshape(n, 2, 3),
        photon_event=light[:, 0].astype(np.int64),
        photons=light[:, 1:],
        shower_weights=None if variations is None else np.array(variations).reshape(n, 2),
    )
