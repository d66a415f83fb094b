"""Pulled results as files: a tensor as npz, all sums as a UHI zip."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import uhi.io.zip
from numpy.typing import NDArray

from binworks.client.snapshot import Snapshot
from binworks.client.source import Progress
from binworks.tensors.archive import TimelessZip
from binworks.tensors.errors import RequestError
from binworks.tensors.histogram import Histogram
from binworks.tensors.tensor import Tensor

SCHEMA = "binworks.tensor/1"


def pull(snapshot: Snapshot, target: Path, progress: Progress | None = None) -> str:
    """Write a snapshot in the format that the file's suffix names; return the sha256 of the file.

    Raises
    ------
    RequestError
        Code ``unknown-format``.
    """
    if target.suffix not in FORMATS:
        raise RequestError(
            f"There is no format for files named {target.suffix or target.name!r}.",
            code="unknown-format",
            where=str(target),
            hint="Name it .npz (tensor for a fit) or .zip (all sums, UHI).",
        )
    with _published(target) as draft:
        FORMATS[target.suffix](snapshot, draft, progress)
        with draft.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensor(tensor: Tensor, target: Path) -> None:
    """Write a tensor as npz, group by group: ``numpy.load`` reads it.

    Arrays: ``nominal`` and ``variances`` [process, bins], ``data`` [bins] if there are, ``shifts/<group>``
    [nuisance, process, bins], and ``description``, a JSON text with axes (UHI), processes and nuisances.
    """
    groups = {group: [asdict(n) for n in e.nuisances] for group, e in tensor.expansions.items()}
    axes = Histogram(tensor.axes, tensor.nominal[0]).uhi()["axes"]
    description = {
        "schema": SCHEMA,
        "axes": axes,
        "processes": tensor.processes,
        "nuisances": groups,
        **tensor.metadata,
    }
    with TimelessZip(target, "w") as archive:
        _write_array(archive, "description", np.array(json.dumps(description)))
        _write_array(archive, "nominal", tensor.nominal)
        _write_array(archive, "variances", tensor.variances)
        if tensor.data is not None:
            _write_array(archive, "data", tensor.data)
        for group in tensor.expansions:
            _write_array(archive, f"shifts/{group}", tensor.shifts(group))


def write_histograms(snapshot: Snapshot, target: Path, progress: Progress | None = None) -> None:
    """Write all sums as a zip: ``uhi.io.zip.read(archive, "<dataset>/<histogram>")``; and a table of contents."""
    with TimelessZip(target, "w") as archive:
        archive.writestr("contents.json", json.dumps(snapshot.contents, indent=1))
        for dataset in snapshot.datasets:
            for name, sums in snapshot.accumulator(dataset, progress).histograms.items():
                described = sums.uhi()
                described["storage"]["values"] = sums.values
                if sums.variances is not None:
                    described["storage"]["variances"] = sums.variances
                uhi.io.zip.write(archive, f"{dataset}/{name}", described)


def _tensor(snapshot: Snapshot, target: Path, progress: Progress | None = None) -> None:
    write_tensor(snapshot.tensor(progress=progress), target)


FORMATS: dict[str, Callable[[Snapshot, Path, Progress | None], None]] = {
    ".npz": _tensor,
    ".zip": write_histograms,
}


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """Give a file beside the target that takes its place at the end, and is gone after an error."""
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
