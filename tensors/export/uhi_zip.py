"""Histograms in a zip that `uhi.io.zip` reads; `binworks.tensors.export.uhi` says which there are.

``binworks.txt`` is the JSON of parameters, groups, completeness and card; readers of uhi take each ``.json`` for a
histogram. Members are compressed and carry no time. Variations
go through a temporary file beside the target, so that no more than a few are in memory; a reader of uhi takes a
histogram whole, 16 bytes a bin and parameter.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from binworks.tensors.archive import TimelessZip
from binworks.tensors.export import templates, uhi
from binworks.tensors.fitinput import FitChannel, FitInput
from binworks.tensors.histogram import Histogram

SUFFIX = ".zip"
MEDIA_TYPE = "application/zip"
DOCUMENT = "binworks.txt"


def write(fit: FitInput, path: Path) -> None:
    """Write the archive."""
    from uhi.io import zip as uhi_zip

    with TimelessZip(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(DOCUMENT, uhi.document(fit))
        for channel in fit.channels:
            for name, described in uhi.histograms(channel):
                uhi_zip.write(archive, name, described)
            for number in range(len(channel.processes)):
                _write_variations(archive, fit, channel, number, path.parent)


def _write_variations(
    archive: TimelessZip, fit: FitInput, channel: FitChannel, process: int, folder: Path
) -> None:
    name = f"{channel.name}/processes/{channel.processes[process]}/variations"
    member = f"{name}_storage_values.npy"
    names: list[str] = []
    with tempfile.TemporaryFile(dir=folder) as draft:
        for more, shifts in uhi.variations(fit, channel, process):
            names += more
            draft.write(shifts.astype("<f8").tobytes())
        if not names:
            return
        draft.seek(0)
        header = {
            "descr": "<f8",
            "fortran_order": False,
            "shape": (len(names), 2, *templates.shape(channel)),
        }
        with archive.open(member, "w", force_zip64=True) as target:
            np.lib.format.write_array_header_2_0(target, header)
            shutil.copyfileobj(draft, target, 1 << 20)
    about = uhi.variation_facts(channel.processes[process])
    histogram = Histogram(uhi.variation_axes(channel, names), np.empty(0), metadata=dict(about))
    described = histogram.uhi()
    described["storage"]["values"] = member
    archive.writestr(f"{name}.json", json.dumps(described))
