"""What rabbit and the linearised fit must agree on, and how closely.

Both are given the same numbers. They differ in three ways:

- rabbit multiplies exponentials, exp(theta ln(up / nominal)); ours adds their slope at 0. So uncertainties are compared
  about the nominal prediction (the Asimov data set), where nothing is pulled. The shifted pseudo-data serve to get the
  mass back.
- rabbit's likelihood is Poisson, with a gamma-distributed factor a bin for the simulation's statistics; ours is
  Gaussian with the same two variances. About its minimum the one has the curvature of the other.
- "Traditional" impacts ask how far the mass moves with the uncertainty that a group has *after* the fit, "global" ones
  which part of the mass uncertainty comes from its prior. Ours are of the second kind: their squares add up. Those of
  the first kind follow from our covariance matrix, so both are compared.

The pseudo-data are the template that the exponential passes through, 10 MeV. At 50 MeV rabbit finds 49.94, since it
continues straight beyond its templates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from binworks.tensors.fit import FitResult
from binworks.tensors.fitinput import FitInput
from rabbit.fitter import Fitted

STEP_MEV = 10.0
"""What +1 of the free mass is."""
MASS_MEV = 0.02
UNCERTAINTY = 0.0005
"""Of the mass, relative."""
PART, OF_TOTAL = 0.005, 2e-5
"""Of the uncertainty from a group: relative to itself, and to the total uncertainty of the mass."""
CONSTRAINT = 0.0005
FORMS_DIFFER = 1e-4
"""Largest difference between the dense and the sparse form, in standard deviations."""
STATISTICS = {"stat": "data", "binByBinStat": "simulation"}
"""What rabbit and we call the uncertainties that have no parameters."""


@dataclass(frozen=True)
class Check:
    """One number of both programs, and how far apart they may be."""

    what: str
    rabbit: float
    ours: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether they are close enough; not if either is not a number."""
        return bool(abs(self.rabbit - self.ours) <= self.tolerance)


def asimov(fit: FitInput) -> FitInput:
    """Return the fit with its expectation in the place of data."""
    channels = tuple(replace(channel, data=channel.nominal.sum(axis=0)) for channel in fit.channels)
    return replace(fit, channels=channels)


def of_mass(found: Fitted, ours: FitResult, injected: float) -> Iterator[Check]:
    """Compare fits of pseudo-data: both must return the shift in MeV that was put in."""
    yield Check("m_W, rabbit against the injected shift", STEP_MEV * found.values[0], injected, MASS_MEV)
    yield Check("m_W, ours against the injected shift", ours.mass_shift, injected, MASS_MEV)
    yield Check("chi2", found.chi2, ours.chi2, 0.01)


def of_uncertainties(
    found: Fitted, ours: FitResult, groups: Mapping[str, tuple[str, ...]]
) -> Iterator[Check]:
    """Compare fits of the expectation: uncertainty of the mass, where it comes from, constraints."""
    total = ours.uncertainty
    yield Check("uncertainty of m_W", STEP_MEV * found.uncertainties[0], total, UNCERTAINTY * total)
    for theirs, mine in STATISTICS.items():
        part = ours.impacts[mine]
        yield Check(f"from {mine}", STEP_MEV * found.parts[theirs], part, UNCERTAINTY * total)
    for kind, rabbit, mine in (
        ("from", found.parts, parts(ours, groups)),
        ("impact of", found.impacts, impacts(ours, groups)),
    ):
        for group, part in mine.items():
            tolerance = PART * part + OF_TOTAL * total
            yield Check(f"{kind} {group}", STEP_MEV * rabbit[group], part, tolerance)
    prior = np.flatnonzero(ours.constrained)
    apart = found.uncertainties[prior] - ours.uncertainties[prior]
    worst = prior[np.argmax(np.abs(apart))]
    name, widths = ours.parameters[worst], (found.uncertainties[worst], ours.uncertainties[worst])
    yield Check(f"width after the fit of {name}, the most different", *map(float, widths), CONSTRAINT)


def of_forms(one: Fitted, other: Fitted) -> Iterator[Check]:
    """Compare fits of the dense and of the sparse form."""
    apart = np.abs(one.values - other.values) / one.uncertainties
    worst = int(np.argmax(apart))
    yield Check(
        f"sparse against dense: {one.names[worst]}",
        float(one.values[worst]),
        float(other.values[worst]),
        FORMS_DIFFER * float(one.uncertainties[worst]),
    )


def parts(ours: FitResult, groups: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return the part of the mass uncertainty, MeV, that comes from the priors of each group."""
    row = {name: number for number, name in enumerate(ours.parameters)}
    found = {}
    for group, names in groups.items():
        members = [row[name] for name in names if ours.constrained[row[name]]]
        if members:
            # a prior's contribution to the covariance of mass and parameter is itself that covariance
            found[group] = float(np.sqrt(np.sum(ours.covariance[0, members] ** 2)))
    return found


def impacts(ours: FitResult, groups: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
    """Return how far, MeV, the mass moves with the parameters of each group as uncertain as they are after the fit."""
    row = {name: number for number, name in enumerate(ours.parameters)}
    found = {}
    for group, names in groups.items():
        members = [row[name] for name in names]
        if 0 not in members:
            along = ours.covariance[0, members]
            own = ours.covariance[np.ix_(members, members)]
            found[group] = float(np.sqrt(along @ np.linalg.solve(own, along)))
    return found
