"""What the dense and the sparse file of rabbit have in common: all but the expected events and their logarithms.

Facts of the format, as rabbit-fit 0.2.5 reads it:

- ``hsysts`` names the parameters, free ones first; ``hconstraintweights`` is 0 for these and 1 for the others, and
  ``hnoiidxs`` are the positions of those of interest. Groups are lists of positions.
- ``meta`` is a pickle with the channels (name, axes) and whether the logarithms are symmetric; without it the reader
  takes one channel of numbered bins. Ours names only ``hist.axis`` classes and ``functools.partial``, so any version
  of hist can read it, and it is written without any package of rabbit.
- ``hsumw`` and ``hsumw2``, by bin and process, are the simulation's statistics.

Beside these, the folder ``binworks`` says for each channel which of its bins are in the file.

Attributes of the file say where the tensor comes from and how complete it is: ``job``, ``generation``, ``complete``,
``fraction``, ``luminosity``, ``card`` (JSON), and ``incomplete``, a text for people that is empty if no event is
missing.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from binworks.tensors import incomplete
from binworks.tensors.export.hdf5 import h5py_for
from binworks.tensors.fitinput import Effect, FitChannel, FitInput
from binworks.tensors.histogram import Float64

SUFFIX = ".hdf5"
MEDIA_TYPE = "application/x-hdf5"
ORIGIN = ("job", "generation", "complete", "fraction", "luminosity")
PROTOCOL = 5
FLOAT = np.dtype("<f8")
INTEGER = np.dtype("<i8")


@contextmanager
def created(fit: FitInput, path: Path) -> Iterator[Any]:
    """Create the file with everything but ``hnorm`` and ``hlogk``, and give the open ``h5py.File``.

    Raises
    ------
    RequestError
        ``missing-extra`` without h5py.
    """
    h5py = h5py_for("rabbit")
    nominal, data = expected(fit), _joined([channel.data for channel in fit.channels], fit)
    with _new_file(path, h5py) as file:
        _write_origin(file, fit)
        _write_meta(file, fit)
        _write_parameters(file, fit, h5py)
        _write_sums(file, fit, nominal, data)
        yield file


def new_group(parent: Any, name: str) -> Any:
    """Return a new group that does not tell when it was made: the same input has the same bytes."""
    h5py = h5py_for("rabbit")
    timeless = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    timeless.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=timeless))


def _new_file(path: Path, h5py: Any) -> Any:
    timeless = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    timeless.set_obj_track_times(False)
    # version 1.10 of the file format (2016) lets attributes, and so cards, be longer than 64 kB
    version = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    version.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, timeless, version))


def offsets(fit: FitInput) -> list[int]:
    """Return the first bin of each channel in the file, and last the number of all."""
    return list(accumulate((int(channel.used.sum()) for channel in fit.channels), initial=0))


def expected(fit: FitInput) -> Float64:
    """Return the expected events, shape (bins of the file, processes); 0 for a process that a channel lacks."""
    return _by_process(fit, [channel.nominal for channel in fit.channels])


def slabs(fit: FitInput) -> Iterator[tuple[int, int, Float64]]:
    """Yield the effects on one process of one channel at a time.

    Yields
    ------
    int, int, array of shape (bins, halves, parameters)
        First bin, process, and logarithms at +1: halves of the difference and of the sum of ln up and ln down; the
        first half alone if all are symmetric. 0 where nothing is expected.
    """
    halves = 1 if fit.symmetric else 2
    for start, channel in zip(offsets(fit), fit.channels, strict=False):
        place = np.where(channel.used, np.cumsum(channel.used) - 1, -1)
        for row, process in enumerate(channel.processes):
            # untouched pages of zeros take no memory
            slab = np.zeros((int(channel.used.sum()), halves, len(fit.parameters)))
            for effect in channel.effects(row):
                _enter(slab, effect, place)
            slab[channel.nominal[row, channel.used] == 0] = 0
            yield start, fit.processes.index(process), slab


def _enter(slab: Float64, effect: Effect, place: Any) -> None:
    """Put an effect into a slab; ``place`` is the row of each bin of the channel, -1 for a masked one."""
    cells = np.arange(len(place)) if effect.cells is None else effect.cells
    rows = place[cells]
    kept = rows >= 0
    parts = [effect.up]
    if effect.down is not None:
        parts = [(effect.up - effect.down) / 2, (effect.up + effect.down) / 2]
    for half, part in enumerate(parts):
        values = part if part.shape[1] == 1 else part[:, kept]
        slab[rows[kept][:, np.newaxis], half, effect.parameters] = values.T


def _by_process(fit: FitInput, tables: Sequence[Float64]) -> Float64:
    """Return tables (processes, bins) of the channels as one (bins of the file, processes)."""
    out = np.zeros((offsets(fit)[-1], len(fit.processes)))
    for start, channel, table in zip(offsets(fit), fit.channels, tables, strict=False):
        columns = [fit.processes.index(process) for process in channel.processes]
        out[start : start + int(channel.used.sum()), columns] = table[:, channel.used].T
    return out


def _joined(arrays: Sequence[Any], fit: FitInput) -> Any:
    """Return arrays over the channels' bins as one over the bins of the file."""
    return np.concatenate([array[channel.used] for array, channel in zip(arrays, fit.channels, strict=True)])


def _write_origin(file: Any, fit: FitInput) -> None:
    file.attrs.update({key: fit.metadata[key] for key in ORIGIN if fit.metadata.get(key) is not None})
    file.attrs["incomplete"] = incomplete.mark(fit.metadata)
    if fit.metadata.get("card") is not None:
        file.attrs["card"] = json.dumps(fit.metadata["card"], sort_keys=True)
    bins = new_group(new_group(file, "binworks"), "bins")
    for channel in fit.channels:
        bins[channel.name] = np.flatnonzero(channel.used).astype(INTEGER)


def _write_meta(file: Any, fit: FitInput) -> None:
    """Write the pickle as rabbit's reader expects it: bytes in ``meta/pickle_data``, a version beside it."""
    channels = {
        channel.name: {"axes": _axes(channel), "masked": False, "flow": False} for channel in fit.channels
    }
    origin = {key: fit.metadata[key] for key in ORIGIN if fit.metadata.get(key) is not None}
    meta = {
        "meta_info": {"command": "binworks export", **origin},
        "channel_info": channels,
        "symmetric_tensor": bool(fit.symmetric),
        "systematic_type": "log_normal",
    }
    group = new_group(file, "meta")
    group.attrs["narf_h5py_pickle_protocol_version"] = 1
    group["pickle_data"] = np.frombuffer(pickle.dumps(meta, PROTOCOL), np.uint8)


class _Made:
    """Stands in a pickle for what a public function returns, so that no private name of its package gets in."""

    def __init__(self, function: Any, *args: Any, **keywords: Any) -> None:
        self._call = partial(function, *args, **keywords)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return self._call, ()


def _axes(channel: FitChannel) -> list[_Made]:
    """Return the axes of a channel; one of numbered bins where some are masked or flow bins are used."""
    from hist import axis

    inner = np.zeros([a.extent for a in channel.axes], bool)
    inner[tuple(slice(low := int(a.traits.underflow), low + a.size) for a in channel.axes)] = True
    if np.array_equal(inner.ravel(), channel.used):
        return [_axis(a) for a in channel.axes]
    return [_Made(axis.Integer, 0, int(channel.used.sum()), name="bin", underflow=False, overflow=False)]


def _axis(given: Any) -> _Made:
    """Return the description of an axis without its flow bins."""
    from hist import axis

    # an axis without a label says its name when asked
    label = "" if given.label == given.name else str(given.label)
    words = {"name": str(given.name), "label": label, "overflow": False}
    if given.traits.continuous:
        edges = [float(edge) for edge in given.edges]
        if isinstance(given, axis.Regular) and given.transform is None:
            return _Made(axis.Regular, given.size, edges[0], edges[-1], underflow=False, **words)
        return _Made(axis.Variable, edges, underflow=False, **words)
    if isinstance(given, axis.StrCategory):
        return _Made(axis.StrCategory, [str(name) for name in given], **words)
    return _Made(axis.IntCategory, [int(number) for number in given], **words)


def _write_parameters(file: Any, fit: FitInput, h5py: Any) -> None:
    names = [parameter.name for parameter in fit.parameters]
    groups = fit.groups
    card = fit.metadata.get("card") or {}
    texts = {
        "hprocs": fit.processes,
        "hsignals": (),
        "hsysts": names,
        "hsystsnoconstraint": [parameter.name for parameter in fit.parameters if not parameter.constrained],
        "hsystgroups": tuple(groups),
        "hpseudodatanames": _pseudodata(card),
    }
    for name, words in texts.items():
        file.create_dataset(name, data=np.array(words, dtype=object), dtype=h5py.string_dtype())
    position = {name: number for number, name in enumerate(names)}
    members = file.create_dataset("hsystgroupidxs", (len(groups),), dtype=h5py.vlen_dtype(np.int32))
    for row, group in enumerate(groups.values()):
        members[row] = [position[name] for name in group]
    interest = [number for number, parameter in enumerate(fit.parameters) if parameter.interest]
    file["hnoiidxs"] = np.array(interest, np.int32)
    file["hconstraintweights"] = np.array([float(p.constrained) for p in fit.parameters], FLOAT)


def _pseudodata(card: Any) -> tuple[str, ...]:
    """Return the name of the pseudo-data that stand in the place of data, if they do."""
    name = card.get("data", "observed")
    return () if name == "observed" else (name,)


def _write_sums(file: Any, fit: FitInput, nominal: Float64, data: Float64) -> None:
    count = len(_pseudodata(fit.metadata.get("card") or {}))
    inflation = float(fit.metadata.get("inflation", 1.0))
    file["hdata_obs"] = data.astype(FLOAT)
    file["hpseudodata"] = np.repeat(data[:, np.newaxis], count, axis=1).astype(FLOAT)
    file["hsumw"] = nominal.astype(FLOAT)
    variances = _by_process(fit, [channel.variances for channel in fit.channels])
    file["hsumw2"] = (variances * inflation**2).astype(FLOAT)
