"""The background of muons that are not prompt, estimated from the data's other regions: extended ABCD.

In bins of mT (0-20, 20-40, above 40) and isolation (pass, fail) the signal region is predicted by the five others::

    D = closure x C A_x B^2 / (B_x A^2)

A (fail) and B (pass) at 20-40, A_x and B_x the same below 20, C (fail) above 40; each is data minus prompt simulation,
smoothed in pT by exp(polynomial) in each bin of (eta, charge), so that the coefficients of ln D are sums.

The smoothing is a least-squares fit linearised at its solution, so ln D is linear in the prompt simulation, and it
mixes only cells of one (eta, charge). Expansions of variation groups are linear, too, and their coefficients depend on
eta and charge alone: so the response may be taken of the compact blocks instead of each variation's template.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from binworks.tensors.errors import RequestError
from binworks.tensors.expansion import Int64
from binworks.tensors.groups.base import CHARGES, eigen_shifts
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.smoothing import Bools, Smoothed, Spectra, smooth_alike

NAME = "nonprompt"
AXES = ("eta", "pt", "charge", "mt", "relIso")
SHAPES = 2


class Region(NamedTuple):
    """A region of the data, its bins of mT and isolation, and its power in the estimate."""

    name: str
    mt: int
    iso: int
    power: int


REGIONS = (
    Region("A_x", 0, 1, 1),
    Region("B_x", 0, 0, -1),
    Region("A", 1, 1, -2),
    Region("B", 1, 0, 2),
    Region("C", 2, 1, 1),
)
POWERS = np.array([region.power for region in REGIONS], float)


class Settings(Protocol):
    """What is asked of the estimate; see `binworks.tensors.card.Nonprompt`."""

    @property
    def closure(self) -> float:
        """Factor on the estimate."""

    @property
    def norm(self) -> float:
        """Factor at +1 standard deviation of its size."""

    @property
    def degree(self) -> int:
        """Of the polynomial in pT."""

    @property
    def shape(self) -> float:
        """What +1 of a shape nuisance adds to ln D at the upper end of pT; 0: there is none."""


class Shift(NamedTuple):
    """Nuisances of the estimate that change the same cells.

    ``cells`` are flat in (eta, pt, charge), None for all; ``logs`` holds ln(template / nominal) at +1, of shape (names,
    cells), or (names, 1) where it is the same in all cells; at -1 it is the opposite.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...]
    cells: Int64 | None
    logs: Float64


@dataclass(frozen=True)
class Estimate:
    """The estimate in the signal region.

    A place is a bin of (eta, charge), flat in this order.

    Parameters
    ----------
    axes : tuple of hist axes
        eta, pt, charge.
    nominal : array, shape (eta, pt, charge)
        Expected events. Template statistics are none of its own: all its variance is in the statistical `shifts`.
    basis : array, shape (pt, terms)
        Chebyshev polynomials.
    covariance : array, shape (places, terms, terms)
        Of the coefficients of ln D.
    projection : array, shape (places, terms, regions, pt)
        Change of the coefficients of ln D by change of the prompt simulation.
    prompt : array, shape (eta, pt, charge, mt, relIso)
        The nominal prompt simulation.
    borrowed : tuple of str
        Regions and places with so few events that the shape of others helped.
    """

    axes: tuple[Any, ...]
    nominal: Float64
    basis: Float64
    covariance: Float64
    projection: Float64
    prompt: Float64
    settings: Settings
    borrowed: tuple[str, ...]

    @classmethod
    def make(cls, data: Histogram, prompt: Histogram, settings: Settings) -> Estimate:
        """Estimate from data and all prompt simulation, scaled to its luminosity, in all six regions.

        Raises
        ------
        RequestError
            Code ``nonprompt-axes`` if the regions or variances are not there, ``nonprompt-events`` if a region has too
            few events, naming it.
        """
        _check(data, settings)
        _check(prompt, settings)
        eta, pt, charge = data.axes[:3]
        fits, borrowed = _smooth_regions(data, prompt, settings.degree)
        terms = settings.degree + 1
        places = eta.extent * charge.extent
        coefficients = np.einsum("r,rpt->pt", POWERS, _stacked(fits, "coefficients", (places, terms)))
        covariance = np.einsum("r,rpst->pst", POWERS**2, _stacked(fits, "covariance", (places, terms, terms)))
        projection = _stacked(fits, "projection", (places, terms, pt.extent))
        logs = coefficients @ fits[0].basis.T + np.log(settings.closure * np.diff(pt.edges))
        return cls(
            axes=(eta, pt, charge),
            nominal=np.exp(_from_places(logs[np.newaxis], charge.extent)[0]),
            basis=fits[0].basis,
            covariance=covariance,
            projection=np.einsum("r,rptb->ptrb", -POWERS, projection),
            prompt=prompt.values,
            settings=settings,
            borrowed=borrowed,
        )

    def shifts(self, label: str = NAME) -> Iterator[Shift]:
        """Yield the nuisances: the statistical ones place by place, then the size, then two of the shape.

        Statistical ones are the eigenvectors of the coefficients' covariance in each place. The shape's are common to
        all places: they add ``settings.shape`` times T_1 and T_2 of pT to ln D, a slope and a curvature.

        Parameters
        ----------
        label : str
            How the names of the statistical ones begin; channels of different data have different ones.
        """
        logs = eigen_shifts(self.covariance) @ self.basis.T
        charges = self.axes[2].extent
        signs = CHARGES if charges == len(CHARGES) else tuple(str(q) for q in range(charges))
        for place in range(len(logs)):
            where = f"{label}_eta{place // charges}_{signs[place % charges]}"
            names = tuple(f"{where}_{i}" for i in range(logs.shape[1]))
            yield Shift(names, (NAME, f"{NAME}_stat"), self.cells([place]), logs[place])
        yield Shift((f"{NAME}_norm",), (NAME, f"{NAME}_norm"), None, np.array([[np.log(self.settings.norm)]]))
        shapes = min(SHAPES, self.settings.degree) if self.settings.shape else 0
        if shapes:
            slopes = self.settings.shape * self.basis.T[1 : shapes + 1, np.newaxis, :]
            everywhere = _from_places(np.broadcast_to(slopes, (shapes, *logs[:, 0].shape)), charges)
            names = tuple(f"{NAME}_shape{i + 1}" for i in range(shapes))
            yield Shift(names, (NAME, f"{NAME}_shape"), None, everywhere.reshape(shapes, -1))

    def cells(self, places: Sequence[int] | Int64) -> Int64:
        """Return the flat (eta, pt, charge) cells of places: those of the first in the order of pT, and so on."""
        eta, charge = np.divmod(np.asarray(places, np.int64), self.axes[2].extent)
        pt = np.arange(len(self.basis))
        cells: Int64 = (eta[:, np.newaxis] * len(pt) + pt) * self.axes[2].extent + charge[:, np.newaxis]
        return cells.ravel()

    def respond(self, differences: Float64) -> Float64:
        """Return ln(estimate / nominal) for prompt simulation that differs from the nominal; linear in the difference.

        Parameters
        ----------
        differences : array, shape (n, eta, pt, charge, mt, relIso)
            Prompt simulation minus the nominal.

        Returns
        -------
        array, shape (n, eta, pt, charge)
        """
        by_place = _by_place(differences)
        parts = [by_place[..., region.mt, region.iso] for region in REGIONS]
        # a fixed order of additions, whatever else is asked for
        coefficients = np.einsum("nprb,ptrb->npt", np.stack(parts, axis=2), self.projection)
        return _from_places(np.einsum("npt,bt->npb", coefficients, self.basis), self.axes[2].extent)

    def vary(self, prompt: Float64) -> Float64:
        """Return the estimates with other prompt simulation, the weights of the smoothing fixed at the nominal ones.

        Parameters
        ----------
        prompt : array, shape (n, eta, pt, charge, mt, relIso)
            All prompt simulation.

        Returns
        -------
        array, shape (n, eta, pt, charge)
        """
        estimates: Float64 = self.nominal * np.exp(self.respond(prompt - self.prompt))
        return estimates


def _check(histogram: Histogram, settings: Settings) -> None:
    names = tuple(axis.name for axis in histogram.axes)
    shape = tuple(axis.size for axis in histogram.axes)
    if names != AXES or shape[3:] != (3, 2) or shape != histogram.values.shape:
        raise RequestError(
            f"The nonprompt estimate needs the axes {', '.join(AXES)}, three bins of mt and two of relIso, no flow "
            f"bins; there are {', '.join(names)} of {'x'.join(map(str, histogram.values.shape))} bins.",
            code="nonprompt-axes",
            hint="Leave nonprompt out of the card.",
        )
    if histogram.variances is None or histogram.axes[1].extent <= settings.degree:
        lacking = (
            "the variances" if histogram.variances is None else f"more than {settings.degree} bins of pt"
        )
        raise RequestError(f"The nonprompt estimate needs {lacking}.", code="nonprompt-axes")


def _smooth_regions(
    data: Histogram, prompt: Histogram, degree: int
) -> tuple[list[Smoothed], tuple[str, ...]]:
    """Return the curves of each region, a row a place, and what borrowed its shape."""
    columns = [
        _by_place(array[np.newaxis])[0]
        for h in (data, prompt)
        for array in (h.values, h.variances)
        if array is not None
    ]
    charges = data.axes[2].extent
    fits, borrowed = [], []
    for region in REGIONS:
        rows = Spectra(*(column[..., region.mt, region.iso] for column in columns))
        fit, borrows = smooth_alike(rows, np.asarray(data.axes[1].edges), degree)
        lost = _places(region, ~fit.found, charges)
        if lost:
            raise RequestError(
                f"Data minus prompt simulation has too few events to smooth in {lost[0]}"
                + (f" and {len(lost) - 1} more." if len(lost) > 1 else "."),
                code="nonprompt-events",
                hint="Leave nonprompt out of the card, or take more data.",
            )
        fits.append(fit)
        borrowed += _places(region, borrows, charges)
    return fits, tuple(borrowed)


def _places(region: Region, which: Bools, charges: int) -> list[str]:
    return [
        f"region {region.name}, eta bin {place // charges}, charge bin {place % charges}"
        for place in np.flatnonzero(which)
    ]


def _stacked(fits: Sequence[Smoothed], name: str, shape: tuple[int, ...]) -> Float64:
    stacked: Float64 = np.stack([getattr(fit, name) for fit in fits]).reshape(len(fits), *shape)
    return stacked


def _by_place(cells: Float64) -> Float64:
    """Turn (n, eta, pt, charge, mt, relIso) into (n, places, pt, mt, relIso)."""
    n, eta, pt, charge, mt, iso = cells.shape
    return np.moveaxis(cells, 3, 2).reshape(n, eta * charge, pt, mt, iso)


def _from_places(logs: Float64, charges: int) -> Float64:
    """Turn (n, places, pt) into (n, eta, pt, charge)."""
    n, places, pt = logs.shape
    return np.ascontiguousarray(np.moveaxis(logs.reshape(n, places // charges, charges, pt), 2, 3))
