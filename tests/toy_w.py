"""A W whose muon pT spectrum is known exactly: smeared Jacobian peak, Breit-Wigner mass weights. For tests of the fit.

The expected events stand in cells of (eta, pT, charge, boson mass), so that a simulated sample of any size is one
Poisson draw, and a template of any mass is a product with the weights of the mass cells. All templates of a draw are
thus made of the same events, as in real life.
"""

from __future__ import annotations

from functools import cache

import hist
import numpy as np

from binworks.tensors.accumulator import Accumulator
from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.tensor import Contribution, Tensor, assemble

MASS, WIDTH = 80379.0, 2085.0
SHIFTS = tuple(range(-100, 101, 10))
AXES = (
    hist.axis.Regular(48, -2.4, 2.4, name="eta", flow=False),
    hist.axis.Regular(30, 26, 56, name="pt", flow=False),
    hist.axis.Regular(2, -2, 2, name="charge", flow=False),
)
Z_FRACTION = 0.06


def breit_wigner(mass: Float64, pole: float) -> Float64:
    """Return the line shape with running width, not normalised, of masses in MeV."""
    s = mass**2
    return s / ((s - pole**2) ** 2 + (s * WIDTH / pole) ** 2)


def mass_weights(shift: float) -> Float64:
    """Return the weight of each mass cell for a W heavier by this many MeV; the rate is kept."""
    edges, centres = _mass_cells()
    fine = np.linspace(edges[0], edges[-1], 200_001)
    norm = [breit_wigner(fine, pole).sum() for pole in (MASS, MASS + shift)]
    return breit_wigner(centres, MASS + shift) / breit_wigner(centres, MASS) * norm[0] / norm[1]


def mass_name(shift: int) -> str:
    return "massShiftW0MeV" if shift == 0 else f"massShiftW{abs(shift)}MeV{'Up' if shift > 0 else 'Down'}"


@cache
def _mass_cells(count: int = 60) -> tuple[Float64, Float64]:
    """Return edges and centres of mass cells of equal population."""
    fine = np.linspace(MASS - 20_000, MASS + 20_000, 200_001)
    cumulative = np.cumsum(breit_wigner(fine, MASS))
    cumulative /= cumulative[-1]
    edges = np.interp(np.linspace(0, 1, count + 1), cumulative, fine)
    centres = np.interp((np.arange(count) + 0.5) / count, cumulative, fine)
    return edges, centres


@cache
def w_cells() -> Float64:
    """Return probabilities, shape (eta, pT, charge, mass cell), of sum 1."""
    edges = AXES[1].edges
    cosine = (np.arange(4000) + 0.5) / 4000
    sine = np.sqrt(1 - cosine**2)
    _, masses = _mass_cells()
    grid = np.linspace(0, 100, 1001)
    middle = (grid[1:] + grid[:-1]) / 2
    spectra = np.zeros((len(masses), len(edges) - 1))
    for row, mass in enumerate(masses):
        born = np.histogram(mass / 2000 * sine, grid, weights=1 + cosine**2)[0]
        for width, part in ((2.2, 0.6), (6.0, 0.4)):
            smear = np.exp(-(((edges[:-1, None] + 0.5 - middle) / width) ** 2) / 2) / width
            spectra[row] += part * (smear @ born)
    eta = AXES[0].centers[:, None, None, None]
    charge = AXES[2].centers[None, None, :, None]
    pt = AXES[1].centers[None, :, None, None]
    shape = (1.1 + 0.05 * charge * eta**2 - 0.04 * eta**2) * (1 + 0.002 * (pt - 40) * (eta**2 / 4 - 0.5))
    cells = shape * spectra.T[None, :, None, :]
    return cells / cells.sum()


@cache
def z_cells() -> Float64:
    """Return probabilities of the Z background, shape (eta, pT, charge)."""
    eta, pt, _ = np.meshgrid(*(axis.centers for axis in AXES), indexing="ij")
    cells = (1 - 0.05 * eta**2) * (np.exp(-(((pt - 44) / 9) ** 2) / 2) + 0.2)
    return cells / cells.sum()


def expected_data(events: float, shift: float = 0.0) -> Float64:
    """Return what data of so many W events are expected to be, shape bins."""
    return events * (w_cells() @ mass_weights(shift) + Z_FRACTION * z_cells())


MASS_EXPANSION = Expansion.dense(
    "mass",
    [mass_name(shift) for shift in SHIFTS],
    [Nuisance("massW", "mass", mass_name(10), mass_name(-10), constrained=False)],
    np.eye(len(SHIFTS)),
    base=0.0,
)


def toy_tensor(
    events: float,
    *,
    simulated: float = 1.0,
    shift: float = 0.0,
    rng: np.random.Generator | None = None,
    nuisances: bool = True,
) -> Tensor:
    """Return a tensor of W, Z and data.

    Parameters
    ----------
    events : float
        Expected W events in data.
    simulated : float
        Simulated events per event in data.
    shift : float
        Of the mass in data, MeV.
    rng : Generator, optional
        Fluctuates data and simulation; without it both are their expectations.
    nuisances : bool
        Whether there are others than the mass.
    """
    draw = (lambda mean: mean) if rng is None else (lambda mean: rng.poisson(mean).astype(float))
    w, z = draw(events * simulated * w_cells()), draw(events * simulated * Z_FRACTION * z_cells())
    mass = w @ np.stack([mass_weights(s) for s in SHIFTS], axis=1)
    data = draw(expected_data(events, shift))
    expansions, w_blocks, z_blocks = [MASS_EXPANSION], {"mass": mass}, {}
    if nuisances:
        for expansion, columns in (_scale(), _smooth()):
            expansions.append(expansion)
            w_blocks[expansion.group] = w.sum(axis=-1)[..., None] * columns
            z_blocks[expansion.group] = z[..., None] * columns
    return assemble(
        [
            Contribution("W", 1 / simulated, _accumulator(w.sum(axis=-1), w_blocks)),
            Contribution("Z", 1 / simulated, _accumulator(z, z_blocks)),
            Contribution("data", 1.0, _accumulator(data, {}), is_data=True),
        ],
        expansions,
        region={},
    )


@cache
def _scale() -> tuple[Expansion, Float64]:
    """Return a momentum-scale group: one nuisance an eta bin, 1e-4 each, and a common one."""
    spectrum = w_cells().sum(axis=-1)
    derivative = np.gradient(np.log(spectrum), AXES[1].centers, axis=1) * AXES[1].centers[None, :, None]
    bins = len(AXES[0])
    coefficients = np.zeros((bins + 1, bins, 1))
    coefficients[np.arange(bins), np.arange(bins), 0] = 1e-4
    coefficients[bins, :, 0] = 5e-5
    names = [f"scaleEta{i}Up" for i in range(bins)] + ["scaleCommonUp"]
    nuisances = [Nuisance(name[:-2], "momentum_scale", name) for name in names]
    return Expansion.dense(
        "momentum_scale", names, nuisances, coefficients, block_axes=["eta"], base=1.0
    ), derivative[..., None]


@cache
def _smooth() -> tuple[Expansion, Float64]:
    """Return a theory-like group: ten smooth changes of shape, two templates each."""
    eta, pt, charge = np.meshgrid(*(axis.centers for axis in AXES), indexing="ij")
    x, y = (pt - 41) / 15, eta / 2.4
    shapes = [x, x**2, y, y**2, x * y, charge * x, charge * y, x**3, charge, np.ones_like(x)]
    columns = np.stack([0.01 * shape for shape in shapes], axis=-1)
    count = len(shapes)
    names = [f"theory{i}{way}" for way in ("Up", "Down") for i in range(count)]
    nuisances = [Nuisance(f"theory{i}", "theory", f"theory{i}Up", f"theory{i}Down") for i in range(count)]
    coefficients = np.concatenate([np.eye(count), -np.eye(count)])
    return Expansion.dense("theory", names, nuisances, coefficients, base=1.0), columns


def _accumulator(nominal: Float64, blocks: dict[str, Float64]) -> Accumulator:
    histograms = {"nominal": Histogram(AXES, nominal, nominal.copy())}
    for group, values in blocks.items():
        column = hist.axis.Integer(0, values.shape[-1], name="column", flow=False)
        histograms[group] = Histogram((*AXES, column), values)
    return Accumulator(histograms)
