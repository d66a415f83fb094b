"""A zip of ``shapes.root`` and ``datacard.txt`` for Combine.

``shapes.root`` has a folder a channel: ``data_obs``, a TH1D each process with the simulation's variances (inflated),
and its templates ``<process>_<systematic>Up`` and ``Down``. Bins are flat, in C order; the TObjString ``binworks`` is
the JSON of the axes, the parameters and how complete the result is.

The card says:

- ``lnN``: a systematic that only changes sizes; ``shape``: any other, with templates for every process it changes.
- ``rateParam``: a free parameter that multiplies processes by one factor; the factor is the parameter.
- ``shapeU``: any other free parameter, so the mass. Combine lets it move in [-1, 1] unless told otherwise: the card's
  first lines say how.
- ``* autoMCStats 0 1``: one Gaussian a bin for the simulation's statistics.
- ``<group> group = ...``.

Combine wants a signal: those processes that the mass changes. Its strength ``r`` is to be frozen at 1.
Combine joins up and down templates smoothly, linearly in the shape and exponentially in the size, where rabbit
multiplies exponentials; far from the templates the two differ. Names keep letters, digits and ``_``.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from binworks.tensors import incomplete
from binworks.tensors.archive import TimelessZip
from binworks.tensors.errors import RequestError
from binworks.tensors.export import templates
from binworks.tensors.export.templates import Factors, Kind
from binworks.tensors.fitinput import FitChannel, FitInput
from binworks.tensors.histogram import Float64

SUFFIX = ".zip"
MEDIA_TYPE = "application/zip"
SHAPES, CARD = "shapes.root", "datacard.txt"
VERSION = "binworks.root/1"
MOST_HISTOGRAMS = 20_000
"""A file of so many takes a minute or two to write; Combine takes much longer to read it."""
MOST_BINS = 100_000_000
"""Of all histograms: ROOT files of more than 2 GB are another format."""
DATA = "data_obs"
RULE = "-" * 40
NO_TIME = ((1 << 22) | (1 << 17)).to_bytes(4, "big")  # 1 January 1995, the first day that ROOT's times know
FOLDERS = (b"TDirectory", b"TDirectoryFile")
FIRST_RECORD = 100


@dataclass
class _Column:
    """A process in a channel, and what systematics do to it: the entry of each line of the card."""

    channel: str
    process: str
    rate: float
    entries: dict[int, str]


def write(fit: FitInput, path: Path) -> None:
    """Write the zip.

    Raises
    ------
    RequestError
        ``too-large-for-root``; ``names-clash`` if two names differ in characters that Combine does not take.
    """
    _check_names(fit)
    _check_size(fit)
    kinds = templates.kinds(fit)
    with tempfile.TemporaryFile(dir=path.parent) as shapes, TimelessZip(path, "w") as archive:
        columns = _write_shapes(fit, kinds, os.fdopen(os.dup(shapes.fileno()), "w+b"))  # uproot closes it
        _forget_times(shapes)
        archive.writestr(CARD, "\n".join(_card(fit, kinds, columns)) + "\n")
        shapes.seek(0)
        with archive.open(SHAPES, "w", force_zip64=True) as target:
            shutil.copyfileobj(shapes, target, 1 << 20)


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _check_names(fit: FitInput) -> None:
    for names in (fit.processes, [p.name for p in fit.parameters], list(fit.groups)):
        found: dict[str, str] = {DATA: DATA}
        for name in names:
            other = found.setdefault(_plain(name), name)
            if other != name or name == DATA:
                raise RequestError(
                    f"{other!r} and {name!r} have the same name in a datacard.",
                    code="names-clash",
                    hint="Names keep letters, digits and _ there; rename one.",
                )


def _check_size(fit: FitInput) -> None:
    count = bins = 0
    for channel in fit.channels:
        for process in range(len(channel.processes)):
            for piece in templates.factors(channel, process):
                more = 0 if piece.norm else 2 * int(piece.moved.sum())
                count, bins = count + more, bins + more * int(channel.used.sum())
                if count > MOST_HISTOGRAMS or bins > MOST_BINS:
                    raise RequestError(
                        f"The templates are more than {MOST_HISTOGRAMS} histograms, or {MOST_BINS} bins.",
                        code="too-large-for-root",
                        hint="Take the format rabbit-sparse, or fewer systematics.",
                    )


def _write_shapes(fit: FitInput, kinds: list[Kind], target: IO[bytes]) -> list[_Column]:
    """Write the ROOT file and return the columns of the card."""
    import uproot

    columns: list[_Column] = []
    made = iter(range(1 << 30))
    with uproot.recreate(
        target, compression=uproot.ZLIB(1), uuid_function=lambda: uuid.UUID(int=next(made))
    ) as file:
        file["binworks"] = templates.document(fit, VERSION)
        for channel in fit.channels:
            folder = file.mkdir(channel.name)
            folder[DATA] = _th1(DATA, channel.data[channel.used])
            columns += [
                _write_process(folder, fit, kinds, channel, process)
                for process in range(len(channel.processes))
                if channel.nominal[process][channel.used].sum() > 0
            ]
    return columns


def _write_process(
    folder: Any, fit: FitInput, kinds: list[Kind], channel: FitChannel, process: int
) -> _Column:
    nominal = channel.nominal[process][channel.used]
    inflation = float(fit.metadata.get("inflation", 1.0)) ** 2
    column = _Column(channel.name, _plain(channel.processes[process]), float(nominal.sum()), {})
    folder[column.process] = _th1(
        column.process, nominal, inflation * channel.variances[process][channel.used]
    )
    for position, effect in templates.single(channel, process):
        free = not fit.parameters[position].constrained
        if kinds[position] == Kind.FACTOR and free:
            column.entries[position] = "rate"
        elif kinds[position] != Kind.SHAPE and not free:
            column.entries[position] = _sizes(effect)
        else:
            name = f"{column.process}_{_plain(fit.parameters[position].name)}"
            folder[f"{name}Up"] = _th1(f"{name}Up", nominal * effect.up[0])
            folder[f"{name}Down"] = _th1(f"{name}Down", nominal * effect.down[0])
            column.entries[position] = "1"
    return column


def _sizes(effect: Factors) -> str:
    up, down = float(effect.up[0, 0]), float(effect.down[0, 0])
    return repr(up) if np.isclose(up * down, 1, rtol=1e-12, atol=0) else f"{down!r}/{up!r}"


def _th1(name: str, values: Float64, variances: Float64 | None = None) -> Any:
    """Return a TH1D with bins of width 1 from 0; outside there is nothing."""
    from uproot.writing.identify import to_TAxis, to_TH1x

    padded = np.concatenate([[0.0], values, [0.0]])
    errors = None if variances is None else np.concatenate([[0.0], variances, [0.0]])
    total = float(values.sum())
    axis = to_TAxis(fName="xaxis", fTitle="bin", fNbins=len(values), fXmin=0.0, fXmax=float(len(values)))
    return to_TH1x(
        fName=name,
        fTitle="",
        data=padded,
        fEntries=total,
        fTsumw=total,
        fTsumw2=0.0 if errors is None else float(errors.sum()),
        fTsumwx=0.0,
        fTsumwx2=0.0,
        fSumw2=errors,
        fXaxis=axis,
    )


# the card


def _card(fit: FitInput, kinds: list[Kind], columns: list[_Column]) -> Iterator[str]:
    """Give the lines of the datacard."""
    yield from _remarks(fit, kinds)
    names = list(dict.fromkeys(column.process for column in columns))
    yield f"imax {len(fit.channels)}"
    yield f"jmax {len(names) - 1}"
    yield "kmax *"
    yield RULE
    yield f"shapes * * {SHAPES} $CHANNEL/$PROCESS $CHANNEL/$PROCESS_$SYSTEMATIC"
    yield RULE
    yield _line("bin", (channel.name for channel in fit.channels))
    yield _line("observation", (repr(float(channel.data[channel.used].sum())) for channel in fit.channels))
    yield RULE
    numbers = _numbers(fit, columns, names)
    yield _line("bin", (column.channel for column in columns))
    yield _line("process", (column.process for column in columns))
    yield _line("process", (str(numbers[column.process]) for column in columns))
    yield _line("rate", (repr(column.rate) for column in columns))
    yield RULE
    for position, kind in enumerate(kinds):
        yield from _lines(fit, position, kind, columns)
    yield "* autoMCStats 0 1"
    for group, members in fit.groups.items():
        there = [
            _plain(p.name)
            for p, kind in zip(fit.parameters, kinds, strict=True)
            if p.name in members and kind != Kind.IDLE
        ]
        if there:
            yield f"{_plain(group)} group = {' '.join(there)}"


def _remarks(fit: FitInput, kinds: list[Kind]) -> Iterator[str]:
    yield f"# binworks job {fit.metadata.get('job')} generation {fit.metadata.get('generation')}"
    mark = incomplete.mark(fit.metadata)
    if mark:
        yield f"# {mark}"
    free = [
        _plain(p.name)
        for p, kind in zip(fit.parameters, kinds, strict=True)
        if not p.constrained and kind in (Kind.NORM, Kind.SHAPE)
    ]
    if free:
        ranges = ":".join(f"{name}=-10,10" for name in free)
        yield f"# Free: {', '.join(free)}, in units of their templates. Fit with"
        yield f"#   --redefineSignalPOIs {free[0]} --setParameters r=1 --freezeParameters r"
        yield f"#   --setParameterRanges {ranges}"


def _numbers(fit: FitInput, columns: list[_Column], names: list[str]) -> dict[str, int]:
    """Return the number of each process: 0 and below for those that the mass changes, which Combine calls signal."""
    interest = {number for number, parameter in enumerate(fit.parameters) if parameter.interest}
    moved = {column.process for column in columns if interest & column.entries.keys()}
    signal = [name for name in names if name in moved]
    if not signal or len(signal) == len(names):  # Combine wants both kinds
        signal = names[:1]
    rest = [name for name in names if name not in signal]
    return {name: -n for n, name in enumerate(signal)} | {name: n for n, name in enumerate(rest, 1)}


def _lines(fit: FitInput, position: int, kind: Kind, columns: list[_Column]) -> Iterator[str]:
    """Give the lines of a parameter."""
    parameter = fit.parameters[position]
    entries = [column.entries.get(position, "-") for column in columns]
    name = _plain(parameter.name)
    if "rate" in entries:
        for column, entry in zip(columns, entries, strict=True):
            if entry == "rate":
                yield f"{name} rateParam {column.channel} {column.process} 1 [0,10]"
    elif set(entries) - {"-"}:
        word = "shapeU" if not parameter.constrained else "shape" if kind == Kind.SHAPE else "lnN"
        yield _line(f"{name} {word}", entries)


def _line(first: str, rest: Any) -> str:
    return " ".join([first, *rest])


# times: ROOT keeps them with every object; the same histograms are to give the same bytes


def _forget_times(file: IO[bytes]) -> None:
    """Set all times in a small ROOT file to its first day, and what belongs to nothing any more to zero.

    A record begins with a key: its size at 0, a time at 10, its own length at 14, where it stands at 18, the class at
    26. A folder's record has two times, and at 26 where the list of its keys stands: a record with copies of them.
    """
    with mmap.mmap(file.fileno(), 0) as data:
        live = [(0, FIRST_RECORD)]
        todo = [FIRST_RECORD, _number(data, 16), _number(data, 37)]  # the top folder, free space, streamers
        while todo:
            at = todo.pop()
            live.append((at, at + _number(data, at)))
            length = _stamp(data, at)
            top = at == FIRST_RECORD
            if top or _word(data, at + 26)[0] in FOLDERS:
                listed = _forget_folder(data, at + length, top=top)
                live.append((listed, listed + _number(data, listed)))
                todo += _keys(data, listed)
        for (_, stop), (start, _) in pairwise([*sorted(live), (len(data), 0)]):
            data[stop:start] = bytes(start - stop)


def _forget_folder(data: mmap.mmap, at: int, *, top: bool) -> int:
    """Stamp a folder; return where the list of its keys is."""
    if top:  # name and title of the file come first
        at = _word(data, _word(data, at)[1])[1]
    for place in (at + 2, at + 6):
        data[place : place + 4] = NO_TIME
    return _number(data, at + 26)


def _keys(data: mmap.mmap, listed: int) -> Iterator[int]:
    """Stamp a list of keys; give where their records are."""
    at = listed + _stamp(data, listed)
    count, at = _number(data, at), at + 4
    for _ in range(count):
        yield _number(data, at + 18)
        at += _stamp(data, at)


def _stamp(data: mmap.mmap, at: int) -> int:
    """Forget the time of a key; return its length."""
    data[at + 10 : at + 14] = NO_TIME
    return int.from_bytes(data[at + 14 : at + 16], "big")


def _number(data: mmap.mmap, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _word(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    """Return a short string and where it ends."""
    stop = at + 1 + data[at]
    return data[at + 1 : stop], stop
