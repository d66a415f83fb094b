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
EXPORT: dict[str, Any] = {
    "id": "5f0c9a0b7d1e4c2f8a6b3d90",
    "job": "7hq2mkc3xv",
    "generation": 3,
    "format": "rabbit",
    "state": "queued",
    "created": "2026-11-21T11:00:00Z",
    "progress": 0.0,
    "file_name": "7hq2mkc3xv-3-rabbit.hdf5",
    "media_type": "application/x-hdf5",
    "card": {"channels": [{"name": "signal"}], "data": "observed"},
}
EXPORT_READY: dict[str, Any] = {
    "state": "ready",
    "started": "2026-11-21T11:00:01Z",
    "finished": "2026-11-21T11:00:21Z",
    "progress": 1.0,
    "bytes": 1_120_403_456,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
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
