"""What the shell proposes: asked of the service, quickly, and nothing if it does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from typer import Context

if TYPE_CHECKING:
    from binworks.client.client import Client

SECONDS = 2.0
MOST = 50

Proposals = list[tuple[str, str]]


def jobs(context: Context, incomplete: str) -> Proposals:
    """Propose the newest jobs."""
    return _asked(
        context,
        incomplete,
        lambda client: (
            (job.id, f"{job.state} {job.label or ''}".strip()) for job in client.jobs(limit=MOST)
        ),
    )


def processors(context: Context, incomplete: str) -> Proposals:
    """Propose processors."""
    return _asked(
        context,
        incomplete,
        lambda client: ((found["name"], found.get("summary", "")) for found in client.processors()),
    )


def datasets(context: Context, incomplete: str) -> Proposals:
    """Propose data sets of the catalogue."""
    return _asked(
        context, incomplete, lambda client: ((found["name"], found["kind"]) for found in client.datasets())
    )


def formats(incomplete: str) -> Proposals:
    """Propose formats of exports."""
    from binworks.tensors.export import FORMATS

    return [(name, "") for name in FORMATS if name.startswith(incomplete)]


def _asked(
    context: Context, incomplete: str, ask: Callable[[Client], Iterable[tuple[str, str]]]
) -> Proposals:
    from binworks.client.client import Client
    from binworks.tensors.errors import BinworksError

    given = context.params
    try:
        with Client(given.get("url"), home=given.get("home"), timeout=SECONDS) as client:
            return [(name, about) for name, about in ask(client) if name.startswith(incomplete)]
    except BinworksError:
        return []
