"""The catalogue beside the files: data sets, their files and cross sections, and the luminosity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from binworks.processors.dataset import Dataset
from binworks.samples.processes import Process

SCHEMA = "binworks.catalogue/1"
FILE_NAME = "catalogue.json"


def simulated_dataset(process: Process, files: Sequence[str]) -> Dataset:
    """Return the catalogue's entry of a process; file names relative to the catalogue's folder."""
    return Dataset(
        name=process.name,
        files=tuple(files),
        kind="mc",
        boson=process.boson,
        prompt=process.prompt,
        cross_section=process.cross_section,
        group=process.group,
    )


def observed_dataset(files: Sequence[str]) -> Dataset:
    """Return the catalogue's entry of the data."""
    return Dataset(
        name="data",
        files=tuple(files),
        kind="data",
        boson=None,
        prompt=True,
        cross_section=None,
        group=None,
    )


def write_catalogue(folder: Path, datasets: Sequence[Dataset], luminosity: float | None) -> Path:
    """Write ``catalogue.json`` and return its path; luminosity in 1/pb, None if there is none."""
    document = {
        "schema": SCHEMA,
        "luminosity": luminosity,
        "datasets": [dataset.model_dump(mode="json", exclude_defaults=True) for dataset in datasets],
    }
    return write_json(folder / FILE_NAME, json.dumps(document, indent=1))


def write_json(path: Path, text: str) -> Path:
    """Write a small text file at once: a reader sees the old one or the new one."""
    partial = path.with_name(f".{path.name}.writing")
    partial.write_text(text + "\n")
    return partial.replace(path)
