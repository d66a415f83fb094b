"""The HDF5 file that ``rabbit_fit`` reads: one channel, dense, log-normal, up and down templates kept apart.

Read by rabbit-fit 0.2.5: ``rabbit_fit tensor.hdf5 -o out -t 0 --unblind --doImpacts``. The mass is the parameter of
interest ``massW``, in units of its templates. The pickled description of the axes that rabbit's own writer adds is
left out; its reader then numbers the bins and takes the form with up and down apart, which is the one written here.

Attributes of the file say where the tensor comes from and how complete it is: ``job``, ``generation``, ``complete``,
``fraction``, and ``incomplete``, a text for people that is empty if no event is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from binworks.tensors import incomplete
from binworks.tensors.errors import RequestError
from binworks.tensors.histogram import Float64
from binworks.tensors.tensor import Tensor

ORIGIN = ("job", "generation", "complete", "fraction")
LOWEST = float(np.log(1e-3))
"""Logarithm written where a template is not positive, as rabbit's own writer does."""


def write(tensor: Tensor, path: Path) -> None:
    """Write the file.

    Raises
    ------
    RequestError
        ``no-data``; ``missing-extra`` without h5py.
    """
    try:
        import h5py
    except ImportError:
        hint = "pip install 'binworks[rabbit]'"
        raise RequestError(
            "The rabbit format needs the package h5py.", code="missing-extra", hint=hint
        ) from None
    if tensor.data is None:
        hint = "Give it pseudo-data first: dataclasses.replace(tensor, data=...)."
        raise RequestError("The rabbit format needs data; the tensor has none.", code="no-data", hint=hint)
    nuisances = sorted(
        tensor.nuisances, key=lambda nuisance: nuisance.constrained
    )  # rabbit wants the free ones first
    names = [nuisance.name for nuisance in nuisances]
    free = [nuisance.name for nuisance in nuisances if not nuisance.constrained]
    with h5py.File(path, "w") as file:
        file.attrs.update({key: tensor.metadata[key] for key in ORIGIN if key in tensor.metadata})
        file.attrs["incomplete"] = incomplete.mark(tensor.metadata)
        text = h5py.string_dtype()
        for name, words in {
            "hprocs": tensor.processes,
            "hsignals": (),
            "hsysts": names,
            "hsystsnoconstraint": free,
            "hsystgroups": tuple(tensor.expansions),
            "hpseudodatanames": (),
        }.items():
            file.create_dataset(name, data=np.array(words, dtype=object), dtype=text)
        members = file.create_dataset(
            "hsystgroupidxs", (len(tensor.expansions),), dtype=h5py.vlen_dtype(np.int32)
        )
        for row, expansion in enumerate(tensor.expansions.values()):
            members[row] = [names.index(nuisance.name) for nuisance in expansion.nuisances]
        file["hnoiidxs"] = np.arange(len(free), dtype=np.int32)
        file["hconstraintweights"] = np.array([float(nuisance.constrained) for nuisance in nuisances])
        file["hdata_obs"] = tensor.data.ravel()
        file["hpseudodata"] = np.empty((tensor.data.size, 0))
        file["hsumw"] = tensor.nominal.sum(axis=0).ravel()
        file["hsumw2"] = tensor.variances.sum(axis=0).ravel()
        file["hnorm"] = tensor.nominal.reshape(len(tensor.processes), -1).T
        _write_variations(file, tensor, names)


def _write_variations(file: Any, tensor: Tensor, names: list[str]) -> None:
    """Write ``hlogk`` (bins, processes, 2, nuisances): halves of the difference and of the sum of ln up and ln down."""
    nominal = tensor.nominal.reshape(len(tensor.processes), -1)
    processes, bins = nominal.shape
    chunk = (bins, processes, 2, 1)
    logk = file.create_dataset(
        "hlogk",
        (bins, processes, 2, len(names)),
        np.float64,
        chunks=chunk,
        compression="gzip",
        compression_opts=1,
    )
    for expansion in tensor.expansions.values():
        templates = tensor.variations(expansion.group).reshape(-1, processes, bins)
        row = {name: number for number, name in enumerate(expansion.variations)}
        for nuisance in expansion.nuisances:
            up = _logarithm(templates[row[nuisance.up]], nominal)
            down = -up if nuisance.down is None else _logarithm(templates[row[nuisance.down]], nominal)
            halves = np.stack([(up - down) / 2, (up + down) / 2])
            logk[:, :, :, names.index(nuisance.name)] = halves.transpose(2, 1, 0)


def _logarithm(template: Float64, nominal: Float64) -> Float64:
    """Return ln(template / nominal); 0 where nothing is expected."""
    positive = (template > 0) & (nominal > 0)
    ratio = np.divide(template, nominal, out=np.ones_like(template), where=positive)
    return np.where(nominal > 0, np.where(positive, np.log(ratio), LOWEST), 0.0)
