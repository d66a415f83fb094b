"""``binworks workers``: how many there are, and how many there should be."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from binworks.service import workforce
from binworks.service.workforce import Bounds, Status
from binworks.tensors.errors import RequestError


def command(
    home: Annotated[Path, typer.Option(envvar="BINWORKS_HOME", help="Folder of the service.")],
    count: Annotated[
        str | None, typer.Argument(help="So many from now on, or MINIMUM:MAXIMUM by the backlog.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the workers of a service that `binworks up` runs here, or ask for another number of them.

    For example, 40 workers, or between 0 and 200 as the jobs need them:

    binworks workers --home binworks-home 40

    binworks workers --home binworks-home 0:200

    What is asked for holds until the service ends; the site file or --workers says what it starts with.
    """
    status = workforce.read(home)
    if status is None:
        raise RequestError(
            "No service runs in this home.",
            code="not-running",
            where=str(home),
            hint="Start one with `binworks up`; on Kubernetes, workers are scaled with helm.",
        )
    if count is not None:
        bounds = parse(count)
        workforce.ask(home, bounds)
        status = replace(status, bounds=bounds)
    typer.echo(json.dumps(asdict(status)) if as_json else describe(status))


def parse(text: str) -> Bounds:
    """Return the bounds that ``N`` or ``MINIMUM:MAXIMUM`` means.

    Raises
    ------
    RequestError
        Code ``bad-workers``.
    """
    found = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", text)
    bounds = Bounds(int(found[1]), int(found[2] or found[1])) if found else Bounds(1, 0)
    if bounds.minimum > bounds.maximum:
        raise RequestError(
            f"{text!r} is no number of workers.",
            code="bad-workers",
            where="count",
            hint="Write 40, or 0:200 for a number that follows the backlog.",
        )
    return bounds


def describe(status: Status) -> str:
    """Return a status in words."""
    bounds, cluster = status.bounds, status.cluster
    asked = str(bounds.minimum)
    if bounds.minimum != bounds.maximum:
        asked = f"{bounds.minimum} to {bounds.maximum}, the backlog asks for {status.backlog or 0}"
    known = "the scheduler does not say how many are" if status.connected is None else str(status.connected)
    workers = f"{cluster.alive} of {cluster.wanted} alive, {known} connected (asked for: {asked})"
    lines = [
        f"scheduler  {'alive' if cluster.scheduler else 'not alive'}",
        f"workers    {workers}; {cluster.restarts} restarts",
    ]
    return "\n".join([*lines, *([f"reason     {cluster.reason}"] if cluster.reason else [])])
