"""All payloads that weigh simulated events, compiled for the kernels; one that a set lacks changes nothing."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from binworks.corrections import (
    angular,
    efficiency,
    electroweak,
    pileup,
    pixel_hits,
    prefire,
    recoil,
    resolution,
    response,
    theory,
    vertex,
)
from binworks.corrections.sets import CorrectionSet, holding

Array = NDArray[Any]


class Corrections(NamedTuple):
    """Compiled payloads; ``theory_columns`` and ``ew_columns`` are the rows' entries that are varied."""

    steps: Any
    veto: Any
    prefire: Any
    pixel_hits: Any
    pileup: Any
    vertex: Any
    recoil: Any
    response: Any
    resolution: Any
    theory: Any
    theory_columns: Array
    ew: Any
    ew_columns: Array
    angular: Any


def compiled(
    corrections: CorrectionSet | None, theory_names: tuple[str, ...] = (), ew_names: tuple[str, ...] = ()
) -> Corrections:
    """Return the compiled payloads of a set.

    Parameters
    ----------
    corrections : CorrectionSet, optional
        The job's.
    theory_names, ew_names : tuple of str
        Variations that the channel makes, in the order of its columns.

    Raises
    ------
    PayloadError
        If a payload is wrong.
    """
    held = partial(holding, corrections)

    def step(name: str) -> efficiency.Efficiency:
        found = held(f"efficiency_{name}")
        return efficiency.load(found, name).efficiency if found else efficiency.identity(name)

    tables, theory_known = theory.load(found) if (found := held("theory")) else (theory.identity(), ())
    ew, ew_known = electroweak.load(found) if (found := held("ew")) else (electroweak.identity(), ())
    return Corrections(
        steps=tuple(step(name) for name in efficiency.STEPS),
        veto=step("veto"),
        prefire=prefire.load(found) if (found := held("prefire")) else prefire.identity(),
        pixel_hits=pixel_hits.load(found) if (found := held("pixel_hits")) else pixel_hits.identity(),
        pileup=pileup.load(found) if (found := held("pileup")) else pileup.identity(),
        vertex=vertex.load(found) if (found := held("vertex")) else vertex.identity(),
        recoil=recoil.load(found) if (found := held("recoil")) else recoil.identity(),
        response=response.load(found) if (found := held("response")) else response.identity(),
        resolution=resolution.load(found, is_data=True)
        if (found := held("resolution"))
        else resolution.unknown(),
        theory=tables,
        theory_columns=_columns(theory_names, theory_known),
        ew=ew,
        ew_columns=_columns(ew_names, ew_known),
        angular=angular.load(found) if (found := held("angular")) else angular.identity(),
    )


def _columns(wanted: tuple[str, ...], known: tuple[str, ...]) -> Array:
    """Return where the variations stand in a row whose first entry is the nominal."""
    return np.array([1 + known.index(name) for name in wanted], np.int64)
