"""Histograms in HDF5 that `uhi.io.hdf5` reads, one group each; `binworks.tensors.export.uhi` says which there are.

Attributes of the file: ``format``, ``job``, ``generation``, ``complete``, ``fraction``, ``incomplete`` (a text for
people, empty if no event is missing) and ``document``, the JSON of parameters, groups and card.

Variations are written a few parameters at a time, each parameter a compressed chunk: where nothing changes there are
zeros, which take no space. A reader of uhi takes a histogram whole, 16 bytes a bin and parameter; h5py reads one
parameter alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from binworks.tensors import incomplete
from binworks.tensors.export import templates, uhi
from binworks.tensors.export.hdf5 import h5py_for
from binworks.tensors.fitinput import FitChannel, FitInput
from binworks.tensors.histogram import Histogram

SUFFIX = ".hdf5"
MEDIA_TYPE = "application/x-hdf5"
ORIGIN = ("job", "generation", "complete", "fraction")
PACKED = {"compression": "gzip", "compression_opts": 1}


def write(fit: FitInput, path: Path) -> None:
    """Write the file.

    Raises
    ------
    RequestError
        ``missing-extra`` without h5py.
    """
    h5py = h5py_for("uhi-hdf5")
    from uhi.io import hdf5

    with h5py.File(path, "w") as file:
        file.attrs.update({key: fit.metadata[key] for key in ORIGIN if fit.metadata.get(key) is not None})
        file.attrs["format"] = uhi.VERSION
        file.attrs["incomplete"] = incomplete.mark(fit.metadata)
        file["document"] = uhi.document(fit)
        for channel in fit.channels:
            for name, described in uhi.histograms(channel):
                hdf5.write(file.create_group(name), described, **PACKED)
            for number, process in enumerate(channel.processes):
                group = file[f"{channel.name}/processes/{process}"]
                _write_variations(group, fit, channel, number, hdf5.write)


def _write_variations(group: Any, fit: FitInput, channel: FitChannel, process: int, write_uhi: Any) -> None:
    """Write the shifts as they come, then what `uhi` says about them around."""
    extents = templates.shape(channel)
    names: list[str] = []
    values = group.create_dataset(
        "shifts",
        (0, 2, *extents),
        np.float64,
        maxshape=(None, 2, *extents),
        chunks=(1, 2, *extents),
        **PACKED,
    )
    for more, shifts in uhi.variations(fit, channel, process):
        values.resize(len(names) + len(more), axis=0)
        values[len(names) :] = shifts.reshape(-1, 2, *extents)
        names += more
    if names:
        about = uhi.variation_facts(channel.processes[process])
        histogram = Histogram(uhi.variation_axes(channel, names), np.empty(0), metadata=dict(about))
        empty = {**histogram.uhi(), "storage": {"type": "double"}}
        write_uhi(group.create_group("variations"), empty, **PACKED)
        group.move("shifts", "variations/storage/values")
    else:
        del group["shifts"]
