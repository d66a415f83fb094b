"""Answers as they look, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

JOB: dict[str, Any] = {
    "id": "7hq2mkc3xv",
    "owner": "alice",
    "state": "queued",
    "note": None,
    "request": {"processor": "w_mass", "datasets": ["Wplusmunu"], "corrections": "demo"},
    "created": "2026-11-21T10:00:00Z",
    "counts": {
        "units": {"total": 12, "done": 11, "failed": 0, "running": 0},
        "events": {"total": 60_000_000, "done": 55_000_000},
    },
    "generation": 3,
    "complete": False,
    "luminosity": 16_800.0,
    "datasets": [],
}
USAGE: dict[str, Any] = {
    "owner": "alice",
    "active_jobs": {"used": 2, "limit": 100},
    "queued_units": {"used": 314, "limit": 10_000},
    "stored_bytes": {"used": 52_428_800, "limit": None},
    "cpu_hours": {"used": 17.25, "limit": 1000},
}


def example(document: dict[str, Any], description: str) -> dict[str, Any]:
    """Return what OpenAPI should show of an answer."""
    return {"description": description, "content": {"application/json": {"example": document}}}
