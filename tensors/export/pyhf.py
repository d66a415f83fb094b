"""The JSON workspace of HistFactory (schema 1.0.0) that pyhf and cabinetry read; for small fits.

What becomes of what:

- A normalisation is a ``normsys``, the luminosity among them. Any other systematic is a ``histosys``; it may have
  both in different samples.
- A free parameter that multiplies processes by one factor is a ``normfactor``, which begins at 1.
- Any other free parameter, so the mass, is a sample of its own: half the difference of its up and down templates, with
  a ``normfactor`` of the parameter's name that begins at 0. So the prediction moves linearly with it, in units of its
  templates, and no constraint is invented. Such a sample may be negative in some bins. It follows the normalisations
  of its process; what shape systematics do to it is of second order and left out, and so is the part of the templates
  that is even in the parameter.
- The simulation's statistics are one ``staterror`` a channel, with the inflation applied.

pyhf moves ``histosys`` linearly about the nominal and adds them up, where rabbit multiplies exponentials; and the
statistical terms have a Gaussian constraint. A fit agrees with others as far as its effects are small.

The schema has no place for remarks, so the name of the measurement says which job it is and how complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from binworks.tensors import incomplete
from binworks.tensors.errors import RequestError
from binworks.tensors.export import templates
from binworks.tensors.export.templates import Factors, Kind
from binworks.tensors.fitinput import FitChannel, FitInput
from binworks.tensors.histogram import Float64

SUFFIX = ".json"
MEDIA_TYPE = "application/json"
MOST_PARAMETERS = 250
"""Free parameters, systematics and bins together."""
SHAPE_RANGE = [-10.0, 10.0]
NORM_RANGE = [0.0, 10.0]

Json = dict[str, Any]


def write(fit: FitInput, path: Path) -> None:
    """Write the workspace.

    Raises
    ------
    RequestError
        ``too-large-for-pyhf``; ``no-parameter-of-interest`` if nothing is free, as the schema asks for one.
    """
    _check_size(fit)
    kinds = templates.kinds(fit)
    channels = []
    for channel in fit.channels:
        samples: list[Json] = []
        for process in range(len(channel.processes)):
            samples += _samples(fit, kinds, channel, process)
        channels.append({"name": channel.name, "samples": samples})
    workspace = {
        "version": "1.0.0",
        "channels": channels,
        "observations": [
            {"name": channel.name, "data": channel.data[channel.used].tolist()} for channel in fit.channels
        ],
        "measurements": [
            {
                "name": _title(fit),
                "config": {"poi": _parameter_of_interest(fit, kinds), "parameters": _free(fit, kinds)},
            },
        ],
    }
    path.write_text(json.dumps(workspace, allow_nan=False) + "\n")


def _check_size(fit: FitInput) -> None:
    bins = sum(int(channel.used.sum()) for channel in fit.channels)
    if bins + len(fit.parameters) > MOST_PARAMETERS:
        raise RequestError(
            f"pyhf has a parameter for each bin and systematic: {bins} + {len(fit.parameters)} here, "
            f"at most {MOST_PARAMETERS} can be fitted in a bearable time.",
            code="too-large-for-pyhf",
            hint="Take the format rabbit-sparse, or fewer bins (channels.select) and systematics.",
        )


def _parameter_of_interest(fit: FitInput, kinds: list[Kind]) -> str:
    free = [
        p for p, kind in zip(fit.parameters, kinds, strict=True) if not p.constrained and kind != Kind.IDLE
    ]
    if not free:
        raise RequestError(
            "The schema of pyhf asks for a parameter of interest; nothing is free in this fit.",
            code="no-parameter-of-interest",
            hint="Keep the systematics group `mass`, or let a process float.",
        )
    return next((parameter.name for parameter in free if parameter.interest), free[0].name)


def _title(fit: FitInput) -> str:
    facts = fit.metadata
    name = f"binworks job {facts.get('job')} generation {facts.get('generation')}"
    return ", ".join(part for part in (name, incomplete.mark(facts)) if part)


def _samples(fit: FitInput, kinds: list[Kind], channel: FitChannel, process: int) -> Iterator[Json]:
    """Give the sample of a process, and one for each free shape."""
    nominal = channel.nominal[process][channel.used]
    sizes: list[Json] = []
    shapes: list[Json] = []
    slopes: dict[str, Float64] = {}
    for position, effect in templates.single(channel, process):
        parameter = fit.parameters[position]
        if parameter.constrained:
            (sizes if effect.norm else shapes).append(_systematic(parameter.name, effect, nominal))
        elif kinds[position] == Kind.FACTOR:
            sizes.append({"name": parameter.name, "type": "normfactor", "data": None})
        else:
            slopes[parameter.name] = nominal * (effect.up[0] - effect.down[0]) / 2
    name = channel.processes[process]
    error = float(fit.metadata.get("inflation", 1.0)) * np.sqrt(channel.variances[process][channel.used])
    statistics = {"name": f"staterror_{channel.name}", "type": "staterror", "data": error.tolist()}
    yield {"name": name, "data": nominal.tolist(), "modifiers": [*sizes, *shapes, statistics]}
    for parameter_name, slope in slopes.items():
        moved = {"name": parameter_name, "type": "normfactor", "data": None}
        yield {"name": f"{name}_{parameter_name}", "data": slope.tolist(), "modifiers": [moved, *sizes]}


def _systematic(name: str, effect: Factors, nominal: Float64) -> Json:
    up, down = effect.up[0], effect.down[0]
    if effect.norm:
        return {"name": name, "type": "normsys", "data": {"hi": float(up[0]), "lo": float(down[0])}}
    data = {"hi_data": (nominal * up).tolist(), "lo_data": (nominal * down).tolist()}
    return {"name": name, "type": "histosys", "data": data}


def _free(fit: FitInput, kinds: list[Kind]) -> list[Json]:
    """Return where the free parameters begin and how far they go."""
    found = []
    for parameter, kind in zip(fit.parameters, kinds, strict=True):
        if not parameter.constrained and kind != Kind.IDLE:
            start, within = (1.0, NORM_RANGE) if kind == Kind.FACTOR else (0.0, SHAPE_RANGE)
            found.append({"name": parameter.name, "inits": [start], "bounds": [within]})
    return found
