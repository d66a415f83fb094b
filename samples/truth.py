"""The truth behind a sample: every parameter of the detector, and in which effects data differ from simulation.

``Truth.draw`` makes one from a seed; as JSON it lies beside the demo's files. An effect that is not listed in
``effects`` is the same in data and simulation, whatever its parameters say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from binworks.samples.arrays import Float64
from binworks.tensors.errors import RequestError, unknown_name

EFFECTS = (
    "mass",
    "theory",
    "momentum_scale",
    "resolution",
    "efficiency_reco",
    "efficiency_tracking",
    "efficiency_idip",
    "efficiency_trigger",
    "efficiency_iso",
    "recoil",
    "pileup",
    "vertex",
    "prefire",
    "cvh",
    "pixel_hits",
)
DEMO_EFFECTS = tuple(effect for effect in EFFECTS if effect not in ("cvh", "pixel_hits"))
"""Those that a correction undoes and that public NanoAOD shows: it has no refitted tracks."""
LARGEST_HIDDEN_SHIFT_MEV = 80.0
LARGEST_SHIFT_MEV = 1000.0
STEPS = ("tracking", "reco", "idip", "trigger", "iso")
ETA_EDGES = np.round(np.linspace(-2.4, 2.4, 49), 10)
UT_POWERS = 3
MOST_HITS = 6
LARGEST_EFFICIENCY = 0.996
REFIT_REGIONS, REFIT_KINDS = 24, 4
_TRUTH_KEY = 0x7247

Numbers = tuple[float, ...]


class Part(BaseModel):
    """Base of the truth's parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Hidden(Part):
    """What the demo's fit is to find."""

    mass_shift_mev: float


class MomentumScale(Part):
    """Measured k = 1/pT of data such that k (1 + A - e k + q M / k) is right; 48 eta bins. GeV and 1/GeV."""

    A: Numbers
    e: Numbers
    M: Numbers


class Resolution(Part):
    """(sigma_k / k)^2 = a^2 + c^2 / k^2 + b^2 / (1 + d^2 k^2); 24 eta bins."""

    a: Numbers
    b: Numbers
    c: Numbers
    d: Numbers


class Efficiency(Part):
    """One step: its efficiency in simulation, and the scale factor of data over simulation.

    Parameters
    ----------
    plateau : 48 numbers
        By eta bin.
    threshold, width : float
        Turn-on in pT (GeV), logistic; a threshold of 0 is none.
    charge : float
        Relative difference of positive over negative muons.
    ut : float
        Relative change by GeV of uT, the boson's transverse momentum along the muon.
    pt_range, ut_range : two numbers
        GeV; x and y = -1 and 1 of the scale factor's polynomial. Beyond, it is flat; so is the dependence on uT.
    coefficients : 48 x charges x n numbers
        Scale factor by eta bin and charge (-, +; or one for both): the sum of c_i x^i, and with uT, where n is 12,
        of c_(3 i + j) x^i y^j.
    """

    plateau: Numbers
    threshold: float = 0.0
    width: float = 1.0
    charge: float = 0.0
    ut: float = 0.0
    pt_range: tuple[float, float]
    ut_range: tuple[float, float] = (-60.0, 60.0)
    coefficients: tuple[tuple[Numbers, ...], ...]


class MissingMomentum(Part):
    """Measured recoil u: response (1 - loss exp(-qT / scale)) and width^2 = base^2 + pileup^2 nTrueInt (GeV)."""

    loss: float
    scale: float
    base: float
    pileup: float


class Profile(Part):
    """A distribution over events by its mean and width."""

    mean: float
    width: float


class PixelHits(Part):
    """Pixel hits of a track, 1 to 6: a Gaussian's shares about the mean of its eta bin (48)."""

    mean: Numbers
    width: float


class Prefire(Part):
    """Probability that the trigger fires a crossing early.

    Parameters
    ----------
    mean, uncertainty : float
        ECAL: mean over events (exponentially distributed), relative uncertainty.
    edges, plateau : 12 and 11 numbers
        Muons: plateau of plateau / (exp((pT - middle) / slope) + 1) by |eta| bin.
    middle, slope : float
        GeV; the slope is negative, the probability rises with pT.
    hot_spot : float
        Plateau where 1.24 < eta < 1.6 and 2.44 < phi < 2.79.
    """

    mean: float
    uncertainty: float
    edges: Numbers
    plateau: Numbers
    middle: float
    slope: float
    hot_spot: float


class Theory(Part):
    """Weight of W and Z production over Pythia: a wave in qT at low qT, a slope above, and one in rapidity."""

    wave: float
    wave_length: float
    slope: float
    rapidity: float


class Nonprompt(Part):
    """Muons from heavy quarks.

    Parameters
    ----------
    threshold, pt_slope : float
        GeV; exponential above the threshold.
    isolated, triggered : float
        Share of isolated ones, and how often the others fire the trigger relative to them.
    neutrino_slope : float
        GeV; neutrino's transverse momentum along the muon, exponential.
    imbalance : float
        GeV; width of each component of what badly measured jets add.
    """

    threshold: float
    pt_slope: float
    isolated: float
    triggered: float
    neutrino_slope: float
    imbalance: float


class Truth(Part):
    """All parameters of a set of samples; ``cvh`` holds the global parameters that correct data's refitted tracks."""

    schema_: Literal["binworks.truth/2"] = Field(default="binworks.truth/2", alias="schema")
    seed: int
    effects: tuple[str, ...]
    hidden: Hidden
    momentum_scale: MomentumScale
    resolution: dict[Literal["data", "mc"], Resolution]
    cvh: Numbers
    pixel_hits: dict[Literal["data", "mc"], PixelHits]
    efficiency: dict[str, Efficiency]
    recoil: dict[Literal["data", "mc"], dict[str, MissingMomentum]]
    pileup: dict[Literal["data", "mc"], Profile]
    vertex: dict[Literal["data", "mc"], Profile]
    prefire: Prefire
    theory: Theory
    nonprompt: Nonprompt

    def has(self, effect: str) -> bool:
        """Whether data differ from simulation in this effect."""
        return effect in self.effects

    def kind(self, effect: str, *, is_data: bool) -> Literal["data", "mc"]:
        """Return whose parameters hold: those of simulation where there is no effect."""
        return "data" if is_data and self.has(effect) else "mc"

    @property
    def mass_shift_mev(self) -> float:
        """Shift of the W mass in data."""
        return self.hidden.mass_shift_mev if self.has("mass") else 0.0

    @classmethod
    def draw(
        cls, seed: int, effects: Sequence[str] = DEMO_EFFECTS, mass_shift_mev: float | None = None
    ) -> Truth:
        """Draw realistic parameters.

        Parameters
        ----------
        seed : int
            Fixes everything.
        effects : sequence of str
            In which data differ from simulation; see `EFFECTS`.
        mass_shift_mev : float, optional
            Instead of one drawn between -80 and +80 MeV.

        Raises
        ------
        RequestError
            ``unknown-effect``, ``bad-seed`` or ``bad-mass-shift``.
        """
        if seed < 0:
            raise RequestError(f"A seed is not negative, got {seed}.", code="bad-seed")
        for effect in effects:
            if effect not in EFFECTS:
                raise unknown_name("effect", effect, list(EFFECTS))
        rng = np.random.default_rng((_TRUTH_KEY, seed))
        hidden = round(float(rng.uniform(-LARGEST_HIDDEN_SHIFT_MEV, LARGEST_HIDDEN_SHIFT_MEV)), 1)
        if mass_shift_mev is not None:
            hidden = _checked_shift(mass_shift_mev)
        return cls(
            seed=seed,
            effects=tuple(effect for effect in EFFECTS if effect in effects),
            hidden=Hidden(mass_shift_mev=hidden),
            momentum_scale=_momentum_scale(rng),
            resolution=_resolution(rng),
            cvh=_refit(rng),
            pixel_hits={"mc": _pixel_hits(0.0), "data": _pixel_hits(-0.04)},
            efficiency={step: _efficiency(step, rng) for step in STEPS},
            recoil={"mc": _recoil(1.0), "data": _recoil(1.05)},
            pileup={"mc": Profile(mean=25.0, width=8.0), "data": Profile(mean=23.0, width=6.8)},
            vertex={"mc": Profile(mean=0.1, width=3.6), "data": Profile(mean=-0.2, width=3.3)},
            prefire=_prefire(),
            theory=Theory(
                wave=_around(0.05, rng),
                wave_length=_around(12.0, rng),
                slope=_around(0.03, rng),
                rapidity=_around(-0.03, rng),
            ),
            nonprompt=Nonprompt(
                threshold=20.0, pt_slope=6.0, isolated=0.2, triggered=0.5, neutrino_slope=8.0, imbalance=13.0
            ),
        )


def _checked_shift(shift: float) -> float:
    if not abs(shift) <= LARGEST_SHIFT_MEV:
        raise RequestError(
            f"A mass shift lies within +-{LARGEST_SHIFT_MEV:.0f} MeV, got {shift}.", code="bad-mass-shift"
        )
    return float(shift)


def _momentum_scale(rng: np.random.Generator) -> MomentumScale:
    return MomentumScale(
        A=_numbers(_wavy(1e-4, rng)), e=_numbers(_wavy(1e-3, rng)), M=_numbers(_wavy(1e-5, rng))
    )


def _resolution(rng: np.random.Generator) -> dict[Literal["data", "mc"], Resolution]:
    """Draw both: data are wider everywhere, as a correction can widen the simulation only."""
    eta = np.abs((ETA_EDGES[:-1:2] + ETA_EDGES[2::2]) / 2)
    jitter, wider = rng.normal(1.0, 0.01, (2, 24)), rng.uniform(1.05, 1.11, (2, 24))
    a = (0.0060 + 0.0100 * (eta / 2.4) ** 2) * jitter[0]
    c = (1.5e-4 + 2.5e-4 * (eta / 2.4) ** 2) * jitter[1]
    same = {"b": _numbers(np.full(24, 0.004)), "d": _numbers(np.full(24, 30.0))}
    return {
        "mc": Resolution(a=_numbers(a), c=_numbers(c), **same),
        "data": Resolution(a=_numbers(a * wider[0]), c=_numbers(c * wider[1]), **same),
    }


def _refit(rng: np.random.Generator) -> Numbers:
    """Draw the parameters of each region's four kinds; see `binworks.samples.refit`."""
    sizes = np.array([5e-4, 1e-5, 2e-4, 2e-4])
    return _numbers((rng.normal(size=(REFIT_REGIONS, REFIT_KINDS)) * sizes).ravel())


def _pixel_hits(shift: float) -> PixelHits:
    eta = (ETA_EDGES[:-1] + ETA_EDGES[1:]) / 2
    return PixelHits(mean=_numbers(3.2 + 1.2 * (eta / 2.4) ** 2 + shift), width=0.8)


def _efficiency(step: str, rng: np.random.Generator) -> Efficiency:
    """Draw one step; trigger and isolation also depend on uT, all but isolation on the charge."""
    center, spread, dip, scale, size = {
        "tracking": (0.995, 0.0005, 0.005, 0.997, 0.001),
        "reco": (0.983, 0.002, 0.02, 0.997, 0.002),
        "idip": (0.965, 0.003, 0.03, 0.99, 0.004),
        "trigger": (0.90, 0.0075, 0.08, 0.975, 0.004),
        "iso": (0.92, 0.0025, 0.02, 0.994, 0.003),
    }[step]
    eta = (ETA_EDGES[:-1] + ETA_EDGES[1:]) / 2
    plateau = center - dip * (
        np.exp(-(((np.abs(eta) - 0.25) / 0.1) ** 2)) + np.exp(-(((np.abs(eta) - 1.6) / 0.3) ** 2))
    )
    plateau = plateau + spread * rng.normal(size=48)
    charge, ut = 0.004 if step in ("reco", "trigger") else 0.0, 4e-4 if step in ("trigger", "iso") else 0.0
    charges, powers = 1 if step == "iso" else 2, 3 if step == "tracking" else 4
    shapes = size * rng.normal(size=(48, charges, 4, UT_POWERS))
    shapes *= np.outer([1.0, 0.75, 0.5, 0.25], [1.0, 0.5, 0.25])
    shapes[:, :, 0, 0] += scale + _wavy(1.5 * size, rng)[:, None]
    shapes[:, :, 0, 1] += 1.5 * size
    coefficients = shapes[:, :, :powers, : UT_POWERS if ut else 1].reshape(48, charges, -1)
    # data's efficiency stays below 1, where it could not follow the scale factor: at most the sum of all terms
    excess = (
        np.abs(coefficients).sum(axis=2)
        - LARGEST_EFFICIENCY / (plateau * (1 + charge / 2 + 60 * ut))[:, None]
    )
    coefficients[:, :, 0] -= np.maximum(excess, 0.0)
    return Efficiency(
        plateau=_numbers(plateau),
        threshold=23.5 if step == "trigger" else 0.0,
        width=0.5,
        charge=charge,
        ut=ut,
        pt_range=(15.0, 60.0) if step in ("tracking", "reco") else (24.0, 60.0),
        coefficients=tuple(tuple(_numbers(row) for row in rows) for rows in coefficients),
    )


def _prefire() -> Prefire:
    return Prefire(
        mean=0.008,
        uncertainty=0.2,
        edges=(0.0, 0.2, 0.3, 0.55, 0.83, 1.24, 1.4, 1.6, 1.8, 2.1, 2.25, 2.4),
        plateau=(0.002, 0.003, 0.002, 0.003, 0.005, 0.006, 0.005, 0.007, 0.009, 0.012, 0.01),
        middle=20.0,
        slope=-4.0,
        hot_spot=0.02,
    )


def _recoil(factor: float) -> dict[str, MissingMomentum]:
    """Return the estimators, by NanoAOD's names; the factor makes the measurement worse."""
    table: dict[str, tuple[float, float, float, float]] = {
        "DeepMETPVRobust": (0.30, 15.0, 5.5, 1.15),
        "DeepMETResolutionTune": (0.40, 20.0, 5.0, 1.05),
        "PuppiMET": (0.35, 18.0, 6.5, 1.60),
        "MET": (0.40, 25.0, 7.0, 2.60),
    }
    return {
        name: MissingMomentum(loss=factor * loss, scale=scale, base=factor * base, pileup=factor * pileup)
        for name, (loss, scale, base, pileup) in table.items()
    }


def _wavy(size: float, rng: np.random.Generator) -> Float64:
    """Draw 48 numbers of that rms: a smooth wave in eta, and bin-to-bin differences."""
    eta = np.linspace(0.0, 1.0, 48)
    wave = np.sin(2 * np.pi * (eta * rng.uniform(0.5, 1.5) + rng.random()))
    return size * (wave + 0.6 * rng.normal(size=48))


def _around(value: float, rng: np.random.Generator) -> float:
    return round(value * float(rng.uniform(0.8, 1.2)), 6)


def _numbers(values: Any) -> Numbers:
    """Return numbers of nine digits, so that the JSON is short and exact."""
    return tuple(float(f"{value:.9g}") for value in np.asarray(values))
