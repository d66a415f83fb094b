"""A file for a fit: asked for, made by the service, downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from binworks.client import notebook
from binworks.client.download import fetch
from binworks.client.status import error_in
from binworks.client.transport import Transport
from binworks.tensors.errors import BinworksError, ConflictError, TransientError

LONG_POLL = 2
"""Seconds: so often one hears how far it is."""

Progress = Callable[[str, float, float], None]
"""Called with what is done now (``making``, ``downloading``), how far, and of how much."""


@dataclass(frozen=True)
class Export:
    """An export at one moment.

    Parameters
    ----------
    id, job, format, state : str
        State is queued, running, ready or failed.
    generation : int
        The snapshot.
    progress : float
        Part of the work that is done.
    bytes : int or None
        Of the file, once it is ready.
    sha256 : str or None
        Likewise.
    file_name : str
        What a downloaded file may be called.
    error : BinworksError or None
        Why it failed, if it did.
    path : Path or None
        Where it was downloaded to.
    raw : mapping
        All that the service said.
    """

    id: str
    job: str
    format: str
    state: str
    generation: int
    progress: float
    bytes: int | None
    sha256: str | None
    file_name: str
    error: BinworksError | None
    path: Path | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, view: Mapping[str, Any], path: Path | None = None) -> Export:
        """Return the export in a service's answer."""
        return cls(
            id=view["id"],
            job=view["job"],
            format=view["format"],
            state=view["state"],
            generation=view["generation"],
            progress=view.get("progress", 0.0),
            bytes=view.get("bytes"),
            sha256=view.get("sha256"),
            file_name=view["file_name"],
            error=error_in(view.get("error")),
            path=path,
            raw=view,
        )

    @property
    def finished(self) -> bool:
        """Whether it is ready or has failed."""
        return self.state in ("ready", "failed")

    def check(self) -> Export:
        """Return itself if it is ready or may still be.

        Raises
        ------
        BinworksError
            Why it failed.
        """
        if self.state == "failed":
            raise self.error or ConflictError("The export failed.", code="export-failed", where=self.id)
        return self

    def _repr_html_(self) -> str:
        rows = {
            "state": self.state if self.finished else f"{self.state}, {self.progress:.0%}",
            "format": self.format,
            "job": f"{self.job}, snapshot {self.generation}",
            "bytes": "" if self.bytes is None else f"{self.bytes:,}",
            "sha256": self.sha256 or "",
            "file": str(self.path or ""),
            "error": str(self.error or ""),
        }
        return notebook.facts(f"Export {self.id}", rows)


def ask(
    transport: Transport,
    job: str,
    format: str,  # noqa: A002  what everybody calls it
    card: Any = None,
    generation: int | None = None,
    allow_partial: bool = False,
) -> Export:
    """Ask for an export; the same ask gives the same one.

    Parameters
    ----------
    transport : Transport
        The connection to the service.
    job, format : str
    card : mapping or `binworks.tensors.card.Card`, optional
        Default: that of the job's processor.
    generation : int, optional
        Default: the latest snapshot.
    allow_partial : bool
        Take a snapshot that lacks events, too.
    """
    spelt = card.model_dump(mode="json", exclude_defaults=True) if hasattr(card, "model_dump") else card
    body: dict[str, Any] = {"format": format, "card": spelt, "generation": generation}
    if allow_partial:
        body["allow_partial"] = True
    return Export.from_json(transport.request("POST", f"/v1/jobs/{job}/exports", json=body).json())


def wait(
    transport: Transport, export: Export, progress: Progress | None = None, tries: int | None = None
) -> Export:
    """Return an export once it is ready.

    Raises
    ------
    BinworksError
        Why it failed; TransientError, code ``still-running``, after so many tries of two seconds.
    """
    path = f"/v1/jobs/{export.job}/exports/{export.id}"
    while not export.finished:
        if tries is not None:
            if tries <= 0:
                message = f"The export is still {export.state}, {export.progress:.0%} done."
                raise TransientError(message, code="still-running", where=export.id)
            tries -= 1
        answer = transport.request("GET", path, headers={"Prefer": f"wait={LONG_POLL}"}, patience=LONG_POLL)
        export = Export.from_json(answer.json())
        if progress is not None:
            progress("making", export.progress, 1.0)
    return export.check()


def download(transport: Transport, export: Export, target: Path, progress: Progress | None = None) -> Export:
    """Download the file of an export that is ready; return the export with its path.

    Parameters
    ----------
    target : Path
        Of the file; a folder gets it under the name that the service proposes.
    """
    path = target / export.file_name if target.is_dir() else target
    told = None if progress is None else lambda done, size: progress("downloading", done, size)
    fetch(transport, f"/v1/jobs/{export.job}/exports/{export.id}/file", path, told)
    return Export.from_json(export.raw, path)
