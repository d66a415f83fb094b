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
from binworks.processors import foreign
from binworks.processors.compiled import CompiledProcessor
from binworks.processors.foreign import ForeignProcessor
from binworks.tensors.code import source_digest
from binworks.tensors.errors import unknown_name

TABLE: Mapping[str, str] = {
    "w_mass": "binworks.processors.w_mass:WMass",
    "z_wlike": "binworks.processors.z_wlike:ZWlike",
    "z_dilepton": "binworks.processors.z_dilepton:ZDilepton",
}
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
    if not issubclass(cls, CompiledProcessor):
        return foreign.describe(name, cls)
    return {
        "name": name,
        "version": cls.version,
        "summary": cls.summary,
        "options": cls.Options.model_json_schema(),
        "systematics": list(cls.systematics_known),
        "corrections": sorted(
            {payload for payloads in cls.systematics_known.values() for payload in payloads}
        ),
    }


def create(
    name: str,
    options: Mapping[str, Any] | None = None,
    corrections: CorrectionSet | None = None,
    systematics: Sequence[str] | None = None,
) -> CompiledProcessor | ForeignProcessor:
    """Return a processor; one that is not ours is wrapped.

    Raises
    ------
    RequestError
        ``unknown-processor``, ``unknown-option``, ``bad-option``, ``unknown-systematic`` or ``missing-correction``.
    """
    cls = _load(name)
    if issubclass(cls, CompiledProcessor):
        return cls(options, corrections, systematics)
    for systematic in systematics or ():
        raise unknown_name("systematic", systematic, [])
    return ForeignProcessor(cls, options)


def code_digest(name: str) -> str:
    """Return the sha256 over all code that decides what this processor's cells hold.

    Raises
    ------
    RequestError
        ``unknown-processor``.
    """
    cls = _load(name)
    version = getattr(cls, "version", 1)
    digest = hashlib.sha256(
        f"{source_digest()} {name} {cls.__module__}:{cls.__qualname__} {version}".encode()
    )
    for source in _sources(cls.__module__):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _sources(module: str) -> list[Path]:
    """Return the files of the package that a module is in, or its own file if it is in none.

    None for ours: `source_digest` has the numerical rooms, and the others decide nothing.
    """
    package, _, inner = module.partition(".")
    if package == "binworks":
        return []
    file = getattr(import_module(package), "__file__", None)
    if file is None:
        return []
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if inner or path.name == "__init__.py" else [path]


@cache
def _entries() -> dict[str, EntryPoint]:
    ours = {name: EntryPoint(name, place, GROUP) for name, place in TABLE.items()}
    return {entry.name: entry for entry in entry_points(group=GROUP)} | ours


def _load(name: str) -> type[Any]:
    entries = _entries()
    if name not in entries:
        raise unknown_name("processor", name, list(entries))
    cls: type[Any] = entries[name].load()
    return cls
