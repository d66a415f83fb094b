"""Processors by name: a table of ours, and entry points (group ``binworks.processors``) for code that lives elsewhere.

Nothing is imported until a processor is asked for, and nothing that is not in the table can be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from binworks.corrections.sets import CorrectionSet
from binworks.processors.compiled import CompiledProcessor
from binworks.tensors.code import source_digest
from binworks.tensors.errors import unknown_name

TABLE: Mapping[str, str] = {"w_mass": "binworks.processors.w_mass:WMass"}
GROUP = "binworks.processors"


def names() -> list[str]:
    """Return the names that can be asked for, sorted."""
    return sorted(_entries())


def describe(name: str) -> dict[str, Any]:
    """Return what can be asked of a processor, as JSON: options' schema, systematics, payloads.

    Raises
    ------
    RequestError
        ``unknown-processor``.
    """
    cls = _load(name)
    return {
        "name": name,
        "version": cls.version,
        "summary": cls.summary,
        "options": cls.Options.model_json_schema(),
        "systematics": list(cls.systematics_known),
        "corrections": sorted({payload for payload in cls.systematics_known.values() if payload is not None}),
    }


def create(
    name: str,
    options: Mapping[str, Any] | None = None,
    corrections: CorrectionSet | None = None,
    systematics: Sequence[str] | None = None,
) -> CompiledProcessor:
    """Return a processor.

    Raises
    ------
    RequestError
        ``unknown-processor``, ``unknown-option``, ``bad-option``, ``unknown-systematic`` or ``missing-correction``.
    """
    return _load(name)(options, corrections, systematics)


def code_digest(name: str) -> str:
    """Return the sha256 over all code that decides what this processor's cells hold.

    Raises
    ------
    RequestError
        ``unknown-processor``.
    """
    cls = _load(name)
    digest = hashlib.sha256(
        f"{source_digest()} {name} {cls.__module__}:{cls.__qualname__} {cls.version}".encode()
    )
    source = getattr(import_module(cls.__module__), "__file__", None)
    if source is not None:
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


@cache
def _entries() -> dict[str, EntryPoint]:
    ours = {name: EntryPoint(name, place, GROUP) for name, place in TABLE.items()}
    return {entry.name: entry for entry in entry_points(group=GROUP)} | ours


def _load(name: str) -> type[CompiledProcessor]:
    entries = _entries()
    if name not in entries:
        raise unknown_name("processor", name, list(entries))
    cls: type[CompiledProcessor] = entries[name].load()
    return cls
