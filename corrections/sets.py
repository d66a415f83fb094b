"""A correction set: a folder of JSON payloads, each addressed by its sha256 in ``manifest.json``.

A payload may be compressed (``.json.gz``); the sha256 is that of the file as it is stored.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from binworks.tensors.errors import PayloadError

SCHEMA = "binworks.corrections/1"
LARGEST_TEXT = 1 << 28
"""Bytes of a compressed payload once it is unpacked: a small file must not fill the memory of a worker."""


class PayloadEntry(BaseModel):
    """One payload of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\.json(\.gz)?$", description="Beside the manifest."
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    kind: str = Field(description="Which loader reads it.")


class Manifest(BaseModel):
    """The contents of ``manifest.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["binworks.corrections/1"] = Field(alias="schema")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    payloads: dict[str, PayloadEntry]


@dataclass(frozen=True)
class CorrectionSet:
    """A set whose manifest was read; payloads are read and checked when asked for.

    Travels to workers as (folder, digest): a worker that finds another manifest refuses it.
    """

    folder: Path
    manifest: Manifest
    digest: str

    @property
    def name(self) -> str:
        """The set's name."""
        return self.manifest.name

    def __contains__(self, payload: str) -> bool:
        return payload in self.manifest.payloads

    def entry(self, name: str) -> PayloadEntry:
        """Return what the manifest says of a payload.

        Raises
        ------
        PayloadError
            ``missing-correction`` if it is not in the set.
        """
        if name not in self.manifest.payloads:
            raise PayloadError(
                f"Correction set {self.name!r} has no payload {name!r}.",
                code="missing-correction",
                hint=f"It has {', '.join(sorted(self.manifest.payloads)) or 'none'}.",
            )
        return self.manifest.payloads[name]

    def payload(self, name: str, kind: str) -> Any:
        """Return the JSON document of a payload.

        Raises
        ------
        PayloadError
            ``missing-correction``, ``wrong-kind``, ``missing-payload``, ``wrong-hash``, ``not-json``, or
            ``bad-payload`` if it unpacks to more than `LARGEST_TEXT` bytes.
        """
        entry = self.entry(name)
        where = f"{self.name}/{entry.file}"
        if entry.kind != kind:
            raise PayloadError(
                f"Payload {name!r} is of kind {entry.kind!r}, expected {kind!r}.",
                code="wrong-kind",
                where=where,
            )
        stored = _read(self.folder / entry.file, where)
        found = hashlib.sha256(stored).hexdigest()
        if found != entry.sha256:
            raise PayloadError(
                f"The file's sha256 is {found}, but the manifest says {entry.sha256}.",
                code="wrong-hash",
                where=where,
                hint="Restore the file, or write the set anew if the change is wanted.",
            )
        return _json(_unpacked(stored, where) if entry.file.endswith(".gz") else stored, where)


def load(folder: str | Path, digest: str | None = None) -> CorrectionSet:
    """Read a set's manifest.

    Parameters
    ----------
    folder : path
        Holds ``manifest.json`` and the payloads.
    digest : str, optional
        sha256 the manifest must have.

    Raises
    ------
    PayloadError
        If the manifest is missing, malformed or not the one expected.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    text = _read(path, str(path))
    found = hashlib.sha256(text).hexdigest()
    if digest is not None and found != digest:
        raise PayloadError(
            f"The manifest's sha256 is {found}, expected {digest}: the set was changed after the job was submitted.",
            code="wrong-hash",
            where=str(path),
            hint="Submit the job again.",
        )
    try:
        manifest = Manifest.model_validate(_json(text, str(path)))
    except ValidationError as error:
        raise payload_error(error, str(path)) from None
    return CorrectionSet(folder, manifest, found)


def holding(corrections: CorrectionSet | None, payload: str) -> CorrectionSet | None:
    """Return the set if there is one and it has the payload."""
    return corrections if corrections is not None and payload in corrections else None


def write(folder: str | Path, name: str, payloads: Mapping[str, tuple[str, Any]]) -> CorrectionSet:
    """Write payloads and their manifest; return the set.

    Parameters
    ----------
    folder : path
        Is made if it is not there.
    name : str
        Of the set.
    payloads : mapping
        Name -> (kind, document). A document that is a `Path` is a file (``.json`` or ``.json.gz``), and its bytes are
        taken over as they are.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for payload, (kind, document) in sorted(payloads.items()):
        if isinstance(document, Path):
            suffix = ".json.gz" if document.suffix == ".gz" else ".json"
            stored = _read(document, str(document))
        else:
            suffix = ".json"
            stored = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        (folder / f"{payload}{suffix}").write_bytes(stored)
        entries[payload] = PayloadEntry(
            file=f"{payload}{suffix}", sha256=hashlib.sha256(stored).hexdigest(), kind=kind
        )
    manifest = Manifest.model_validate({"schema": SCHEMA, "name": name, "payloads": entries})
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True, indent=1) + "\n")
    return load(folder)


def payload_error(error: ValidationError, where: str) -> PayloadError:
    """Turn pydantic's findings into one sentence a finding."""
    findings = [f"{'.'.join(str(p) for p in e['loc']) or 'document'}: {e['msg']}" for e in error.errors()[:5]]
    return PayloadError("; ".join(findings) + ".", code="bad-payload", where=where)


def _read(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PayloadError(
            f"The file cannot be read: {error.strerror}.", code="missing-payload", where=where
        ) from None


def _unpacked(stored: bytes, where: str) -> bytes:
    try:
        text = gzip.GzipFile(fileobj=io.BytesIO(stored)).read(LARGEST_TEXT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise PayloadError(f"The file cannot be unpacked: {error}.", code="not-json", where=where) from None
    if len(text) > LARGEST_TEXT:
        raise PayloadError(
            f"The file unpacks to more than {LARGEST_TEXT:,} bytes.", code="bad-payload", where=where
        )
    return text


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise PayloadError(f"The file is not JSON: {error}.", code="not-json", where=where) from None
