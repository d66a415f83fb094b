"""From what was asked to what will be done: every name looked up and checked, no ROOT file opened."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from binworks.corrections import sets
from binworks.corrections.sets import CorrectionSet
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.service.model import JobRequest, ResolvedJob
from binworks.service.settings import Settings
from binworks.tensors.errors import RequestError, unknown_name

RESERVED = frozenset({"zarr.json"})
"""Names that mean something within a zarr group."""


class CatalogueFile(BaseModel):
    """The contents of a catalogue file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["binworks.catalogue/1"] = Field(alias="schema")
    luminosity: float | None = Field(default=None, gt=0, description="1/pb")
    datasets: tuple[Dataset, ...]


class Catalogue(BaseModel):
    """The data sets that can be asked for by name."""

    luminosity: float | None = Field(default=None, description="1/pb")
    datasets: dict[str, Dataset] = Field(default_factory=dict, description="Files are absolute.")


def catalogue(settings: Settings) -> Catalogue:
    """Return the data sets of all catalogue files.

    Raises
    ------
    RequestError
        Code ``bad-catalogue`` if one cannot be read, or if two give the same name.
    """
    found = Catalogue()
    for path in settings.catalogues:
        document = _read_catalogue(path)
        found.luminosity = found.luminosity or document.luminosity
        for dataset in document.datasets:
            if dataset.name in found.datasets:
                raise RequestError(
                    f"Data set {dataset.name!r} is given twice.", code="bad-catalogue", where=str(path)
                )
            files = tuple(_beside(path, name) for name in dataset.files)
            found.datasets[dataset.name] = dataset.model_copy(update={"files": files})
    return found


def correction_sets(settings: Settings) -> dict[str, CorrectionSet]:
    """Return the correction sets by name.

    Raises
    ------
    PayloadError
        If a manifest is malformed.
    """
    found: dict[str, CorrectionSet] = {}
    for folder in settings.correction_folders:
        for manifest in (folder / "manifest.json", *sorted(folder.glob("*/manifest.json"))):
            if manifest.is_file():
                loaded = sets.load(manifest.parent.absolute())
                found.setdefault(loaded.name, loaded)
    return found


def resolve(request: JobRequest, settings: Settings) -> ResolvedJob:
    """Look up and check all that a request names.

    Raises
    ------
    RequestError
        Naming the processor, option, data set, correction set, systematic or path that cannot be.
    PayloadError
        If the correction set is not what its manifest says.
    """
    corrections = _corrections(request.corrections, settings)
    processor = registry.create(request.processor, request.options, corrections, request.systematics)
    listed = catalogue(settings)
    return ResolvedJob(
        request=request,
        datasets=tuple(_dataset(entry, listed, settings.allowed_roots) for entry in request.datasets),
        options=processor.options.model_dump(mode="json"),
        systematics=tuple(processor.systematics),
        corrections=None if corrections is None else str(corrections.folder),
        corrections_digest=None if corrections is None else corrections.digest,
        luminosity=request.luminosity or listed.luminosity,
        code=registry.code_digest(request.processor),
        unit_events=settings.unit_events,
    )


def _corrections(name: str | None, settings: Settings) -> CorrectionSet | None:
    if name is None:
        return None
    known = correction_sets(settings)
    if name not in known:
        raise unknown_name("correction set", name, list(known))
    return known[name]


def _dataset(entry: str | Dataset, listed: Catalogue, roots: Sequence[str]) -> Dataset:
    if isinstance(entry, str):
        if entry not in listed.datasets:
            raise unknown_name("data set", entry, list(listed.datasets))
        return listed.datasets[entry]
    if entry.name in RESERVED:
        raise RequestError(
            f"{entry.name!r} cannot be the name of a data set.", code="bad-dataset", where=entry.name
        )
    twice = len(entry.files) - len(set(entry.files))
    if twice:
        raise RequestError(
            f"{twice} files are listed more than once: their events would count twice.",
            code="bad-dataset",
            where=entry.name,
        )
    for path in entry.files:
        check_path(path, roots)
    return entry


def check_path(path: str, roots: Sequence[str]) -> None:
    """Refuse a file that is not below one of the allowed folders or root:// prefixes.

    Raises
    ------
    RequestError
        Code ``path-not-allowed``.
    """
    if not any(_below(path, root) for root in roots):
        raise RequestError(
            "Jobs may not read this file.",
            code="path-not-allowed",
            where=path,
            hint=f"Allowed: absolute paths below {', '.join(roots) or 'no folder at all'}.",
        )


def _below(path: str, root: str) -> bool:
    if "://" in path or "://" in root:
        return path.startswith(root.rstrip("/") + "/") and ".." not in path.split("/")
    real = os.path.realpath(path)
    return Path(path).is_absolute() and real.startswith(os.path.realpath(root).rstrip("/") + "/")


def _beside(catalogue_file: Path, name: str) -> str:
    return name if "://" in name else str(catalogue_file.absolute().parent / name)


def _read_catalogue(path: Path) -> CatalogueFile:
    try:
        return CatalogueFile.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        reason = (
            "; ".join(e["msg"] for e in error.errors()[:3])
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise RequestError(
            f"The catalogue cannot be used: {reason}", code="bad-catalogue", where=str(path)
        ) from None
