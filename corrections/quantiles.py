"""What tables of quantiles share: probabilities as normal scores, and quantiles that rise."""

from __future__ import annotations

from typing import Any

import numpy as np

from binworks.corrections.payload import finite_array
from binworks.tensors.errors import PayloadError
from binworks.tensors.histogram import Float64
from binworks.tensors.random import normal_quantile


def rising(values: Any, shape: tuple[int, ...], where: str) -> Float64:
    """Return the values as an array of that shape that rises strictly along its last axis.

    Raises
    ------
    PayloadError
        ``wrong-axes`` or ``not-finite``, as `finite_array`; ``bad-payload`` if it does not rise, with the first place.
    """
    array = finite_array(values, shape, where)
    falling = np.argwhere(np.diff(array) <= 0)
    if len(falling):
        place = tuple(falling[0].tolist())
        raise PayloadError(
            f"The values must rise, but {float(array[place])} at {list(place)} is followed by"
            f" {float(array[(*place[:-1], place[-1] + 1)])}.",
            code="bad-payload",
            where=where,
        )
    return array


def normal_scores(probabilities: list[float], least: int, where: str) -> Float64:
    """Return the standard normal quantiles of rising probabilities, ``least`` of them or more.

    Raises
    ------
    PayloadError
        If there are fewer, or if they do not rise within (0, 1).
    """
    if len(probabilities) < least:
        raise PayloadError(
            f"Expected {least} probabilities or more, got {len(probabilities)}.",
            code="wrong-axes",
            where=where,
        )
    values = rising(probabilities, (len(probabilities),), where)
    if not 0.0 < values[0] <= values[-1] < 1.0:
        raise PayloadError(
            f"Probabilities must be between 0 and 1, got {values[0]} to {values[-1]}.",
            code="bad-payload",
            where=where,
        )
    return np.array([normal_quantile(p) for p in values.tolist()])
