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
EXPORT_ITEM: dict[str, Any] = {
    "id": "5f0c9a0b7d1e4c2f8a6b3d90",
    "job": "7hq2mkc3xv",
    "generation": 3,
    "format": "rabbit",
    "state": "queued",
    "created": "2026-11-21T11:00:00Z",
    "progress": 0.0,
    "file_name": "7hq2mkc3xv-3-rabbit.hdf5",
    "media_type": "application/x-hdf5",
}
EXPORT: dict[str, Any] = {
    **EXPORT_ITEM,
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
    "stored_bytes": {"used": 52_428_800, "limit": 1_000_000_000_000},
    "cpu_hours": {"used": 17.25, "limit": 1000},
}


_DATASET: dict[str, Any] = {
    "name": "Wplusmunu",
    "files": ["root://eos.example//store/wplus_1.root"],
    "kind": "mc",
    "boson": "W",
    "prompt": True,
    "cross_section": 11_765.9,
    "group": "W",
}
_UNIT: dict[str, Any] = {
    "unit": 7,
    "dataset": "Wplusmunu",
    "state": "done",
    "events": 5_000_000,
    "attempts": 1,
    "splits": 0,
    "files": ["root://eos.example//store/wplus_1.root[0:5000000]"],
    "seconds": 28.4,
    "reused": False,
    "worker": "tcp://10.0.0.7:41877",
    "error": None,
    "traceback": None,
}
_PROCESSOR: dict[str, Any] = {
    "name": "w_mass",
    "version": 1,
    "summary": "W -> mu nu in eta, pt, charge, mt and isolation.",
    "options": {"type": "object", "properties": {"flavour": {"type": "string"}}},
    "systematics": ["mass", "pdf", "efficiency_reco"],
    "corrections": ["momentum_scale", "pileup"],
}
_EXPANSION: dict[str, Any] = {
    "group": "mass",
    "variations": ["massShiftW10MeVUp", "massShiftW10MeVDown"],
    "nuisances": [
        {
            "name": "massShiftW10MeV",
            "group": "mass",
            "up": "massShiftW10MeVUp",
            "down": "massShiftW10MeVDown",
            "constrained": False,
        }
    ],
    "block_axes": [],
    "block": "mass",
}
_CORRECTIONS: dict[str, Any] = {
    "name": "demo",
    "digest": "9f86d081884c7d65" * 4,
    "payloads": ["momentum_scale"],
}
_TOKEN: dict[str, Any] = {
    "id": "k3m9x2p7qa",
    "owner": "alice",
    "label": "laptop",
    "kind": "token",
    "scopes": ["read", "submit"],
    "created": "2026-11-21T09:00:00Z",
    "expires": "2027-11-21T09:00:00Z",
    "expired": False,
}
UHI: dict[str, Any] = {
    "uhi_schema": 1,
    "axes": [
        {
            "type": "regular",
            "lower": 26.0,
            "upper": 56.0,
            "bins": 3,
            "underflow": False,
            "overflow": False,
            "circular": False,
            "metadata": {"name": "pt", "label": "muon pT [GeV]"},
        }
    ],
    "storage": {"type": "weighted", "values": [10.0, 20.0, 5.0], "variances": [10.0, 20.0, 5.0]},
    "metadata": {"job": "7hq2mkc3xv", "generation": 3, "dataset": "Wplusmunu", "histogram": "nominal"},
}
EVENT = 'id: 4711\nevent: state\ndata: {"id":4711,"job":"7hq2mkc3xv","kind":"state",...}\n\n'
METRICS = '# TYPE binworks_jobs gauge\nbinworks_jobs{state="running"} 2\n'
BY_SCHEMA: dict[str, Any] = {
    "Alive": {"status": "ok"},
    "CatalogueView": {"luminosity": 16_800.0, "datasets": [_DATASET]},
    "CorrectionSets": [_CORRECTIONS],
    "Expansions": [_EXPANSION],
    "ExportItem": EXPORT_ITEM,
    "ExportPage": {"exports": [EXPORT_ITEM], "next": None},
    "ExportRequest": {"format": "rabbit"},
    "ExportView": EXPORT,
    "JobPage": {"jobs": [JOB], "next": None},
    "JobRequest": {"processor": "w_mass", "datasets": ["Wplusmunu"], "corrections": "demo"},
    "JobView": JOB,
    "NewToken": {**_TOKEN, "token": "bw_shown-once"},
    "ProcessorView": _PROCESSOR,
    "Processors": [_PROCESSOR],
    "Ready": {
        "status": "ok",
        "checks": dict.fromkeys(("database", "store", "space", "scheduler", "driver"), "ok"),
    },
    "Shares": {"job": "7hq2mkc3xv", "readers": ["bob"]},
    "SnapshotView": {
        "job": "7hq2mkc3xv",
        "generation": 3,
        "final": True,
        "complete": True,
        "fraction": 1.0,
        "missing": {"events": 0, "units": [], "files": []},
        "luminosity": 16_800.0,
        "groups": ["mass"],
        "datasets": [
            {
                "name": "Wplusmunu",
                "kind": "mc",
                "group": "W",
                "cross_section": 11_765.9,
                "counts": {"entries": 60_000_000, "selected": 21_000_000, "sum_sign": 59_000_000},
                "histograms": ["mass", "nominal"],
            }
        ],
    },
    "TokenRequest": {"role": "fit", "days": 30, "label": "night fits"},
    "TokenView": _TOKEN,
    "UnitPage": {"units": [_UNIT], "next": None},
    "Usage": USAGE,
    "Version": {
        "name": "binworks",
        "version": "1.0.0",
        "capabilities": ["events", "histograms", "select", "zarr"],
        "histogram_formats": ["application/json", "application/x-npy", "application/zip"],
        "dashboard": None,
    },
}
"""How each kind of body and answer looks, by the name of its schema."""
PROBLEM: dict[str, Any] = {
    "type": "urn:binworks:problem:unknown-job",
    "title": "Not Found",
    "status": 404,
    "detail": "There is no such job.",
    "code": "unknown-job",
    "kind": "RequestError",
    "where": "7hq2mkc3xv",
    "hint": "`binworks jobs` lists yours.",
    "errors": [],
}
UNREADY: dict[str, Any] = {
    "type": "urn:binworks:problem:no-scheduler",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "The scheduler does not answer: Connection refused.",
    "code": "no-scheduler",
    "kind": "TransientError",
    "where": None,
    "hint": "Jobs go on when it is there again.",
    "errors": [],
    "checks": {
        "database": "ok",
        "store": "ok",
        "space": "ok",
        "scheduler": "no-scheduler",
        "driver": "ok",
    },
}


def example(document: dict[str, Any], description: str) -> dict[str, Any]:
    """Return what OpenAPI should show of an answer."""
    return {"description": description, "content": {"application/json": {"example": document}}}
