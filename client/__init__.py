"""The light client: submit, watch, pull. It sees `binworks.tensors` only and loads none of the engines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from binworks.client.client import Client
    from binworks.client.events import Event
    from binworks.client.export import Export
    from binworks.client.job import Job
    from binworks.client.snapshot import Snapshot
    from binworks.client.status import Status

__all__ = ["Client", "Event", "Export", "Job", "Snapshot", "Status"]

_HOMES = {
    "Client": "client",
    "Event": "events",
    "Export": "export",
    "Job": "job",
    "Snapshot": "snapshot",
    "Status": "status",
}


def __getattr__(name: str) -> Any:  # so that `binworks --help` need not load NumPy
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
