"""``binworks corrections show``: check a correction set strictly, and draw it.

A row of `READERS` knows a payload by its name; a payload of any other name is shown if it is a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from binworks.corrections import sets
from binworks.corrections.plots.page import STYLE, Page
from binworks.corrections.sets import CorrectionSet
from binworks.tensors.errors import PayloadError, RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLOTS = "binworks.corrections.plots"
READERS = {
    "momentum_scale": f"{_PLOTS}.muons:momentum_scale",
    "z_closure": f"{_PLOTS}.muons:z_closure",
    "resolution": f"{_PLOTS}.muons:resolution",
    "response": f"{_PLOTS}.muons:response",
    "cvh": f"{_PLOTS}.muons:cvh",
    **{
        f"efficiency_{step}": f"{_PLOTS}.efficiencies:efficiency"
        for step in ("reco", "tracking", "idip", "trigger", "iso", "veto")
    },
    "prefire": f"{_PLOTS}.efficiencies:prefire",
    "pixel_hits": f"{_PLOTS}.efficiencies:pixel_hits",
    "pileup": f"{_PLOTS}.events:pileup",
    "vertex": f"{_PLOTS}.events:vertex",
    "recoil": f"{_PLOTS}.events:recoil",
    "theory": f"{_PLOTS}.theory:theory",
    "angular": f"{_PLOTS}.theory:angular",
    "ew": f"{_PLOTS}.theory:electroweak",
}
"""Payload -> the function that checks it and returns its page."""
ANY_TABLE = ("correctionlib", f"{_PLOTS}.tables:tables")
FORMATS = (".png", ".pdf", ".svg")
SHORT = 12
"""Digits of a sha256 that are shown."""


@dataclass(frozen=True)
class Shown:
    """A payload of a set: its page, or why it is refused; the file it was drawn to."""

    name: str
    kind: str
    sha256: str
    page: Page | None = None
    error: PayloadError | None = None
    file: Path | None = None

    def row(self) -> dict[str, Any]:
        """Return what there is to say, JSON-able."""
        said: dict[str, Any] = {"name": self.name, "kind": self.kind, "sha256": self.sha256}
        if self.page is not None:
            low, high = self.page.low, self.page.high
            said |= {"holds": self.page.holds, "quantity": self.page.quantity, "low": low, "high": high}
        if self.error is not None:
            said["error"] = {"code": self.error.code, "message": str(self.error)}
        if self.file is not None:
            said["file"] = str(self.file)
        return said


def read(corrections: CorrectionSet, name: str) -> Page:
    """Check a payload by the loader that a job would read it with, and return its page.

    Raises
    ------
    PayloadError
        If the payload is wrong, or ``wrong-kind`` if nothing reads it.
    """
    entry = corrections.entry(name)
    target = READERS.get(name) or (ANY_TABLE[1] if entry.kind == ANY_TABLE[0] else None)
    if target is None:
        raise PayloadError(
            f"Nothing reads a payload {name!r} of kind {entry.kind!r}.",
            code="wrong-kind",
            where=f"{corrections.name}/{name}",
            hint=f"Names with a meaning: {', '.join(READERS)}; any other must be of kind {ANY_TABLE[0]!r}.",
        )
    module, _, function = target.partition(":")
    reader: Callable[[CorrectionSet, str], Page] = getattr(import_module(module), function)
    return reader(corrections, name)


def draw(corrections: CorrectionSet, name: str, page: Page) -> Figure:
    """Return a page as a figure, headed by the set, the payload and its digest."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=page.size, layout="constrained")
        page.draw(figure)
        digest = corrections.entry(name).sha256[:SHORT]
        figure.suptitle(f"{name}   ({corrections.name}, {digest})", x=0.01, ha="left", fontweight="bold")
    return figure


def show(corrections: CorrectionSet, names: Sequence[str], out: Path | None = None) -> list[Shown]:
    """Check payloads and draw those that are right.

    Parameters
    ----------
    corrections : CorrectionSet
    names : sequence of str
        All of the set's if there are none.
    out : path, optional
        The image of a single payload. For several, each one's name is put before the suffix.

    Raises
    ------
    RequestError
        ``unknown-format`` if the suffix is none of .png, .pdf, .svg.
    PayloadError
        ``missing-correction`` if a name is not in the set.
    """
    if out is not None and out.suffix not in FORMATS:
        message = f"A plot cannot be saved as {out.name!r}."
        raise RequestError(message, code="unknown-format", hint=f"Suffixes: {', '.join(FORMATS)}.")
    chosen = list(names) or sorted(corrections.manifest.payloads)
    entries = {name: corrections.entry(name) for name in chosen}
    found = []
    for name, entry in entries.items():
        try:
            page = read(corrections, name)
        except PayloadError as error:
            found.append(Shown(name, entry.kind, entry.sha256, error=error))
            continue
        file = None
        if out is not None:
            file = out if len(entries) == 1 else out.with_name(f"{out.stem}-{name}{out.suffix}")
            _save(draw(corrections, name, page), file)
        found.append(Shown(name, entry.kind, entry.sha256, page, file=file))
    return found


def _save(figure: Figure, file: Path) -> None:
    try:
        figure.savefig(file)
    except OSError as error:
        raise RequestError(
            f"The plot cannot be written: {error.strerror}.", code="unwritable-folder", where=str(file)
        ) from None


def table(found: Sequence[Shown]) -> Table:
    """Return the table of a terminal."""
    made = Table("payload", "kind", "sha256", "holds", "range", box=None, header_style="bold")
    for shown in found:
        page = shown.page
        if page is None:
            holds, reach = Text(str(shown.error), style="red"), ""
        else:
            holds, reach = Text(page.holds), f"{page.quantity} {page.low:.4g} to {page.high:.4g}"
        made.add_row(shown.name, shown.kind, shown.sha256[:SHORT], holds, reach)
    return made


def command(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="SET_FOLDER", help="Holds manifest.json and the payloads.", show_default=False
        ),
    ],
    payloads: Annotated[
        list[str] | None,
        typer.Argument(metavar="PAYLOAD", help="Names of payloads; default: all.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Draw: .png, .pdf or .svg; several payloads get their names before the suffix.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a correction set on this machine as a job would read it; list and draw what is in it.

    The exit code is 2 if a payload is refused.

    For example:

    binworks corrections show demo/corrections/demo

    binworks corrections show corrections/mine theory angular -o page.png
    """
    corrections = sets.load(folder)
    found = show(corrections, payloads or [], out)
    if as_json:
        rows = [shown.row() for shown in found]
        typer.echo(json.dumps({"name": corrections.name, "digest": corrections.digest, "payloads": rows}))
    else:
        console = Console()
        console.print(Text(f"{corrections.name}  {corrections.digest[:SHORT]}", style="bold"))
        console.print(table(found))
        for shown in found:
            if shown.file is not None:
                console.print(f"wrote {shown.file}", highlight=False, soft_wrap=True)
    if wrong := [shown.error for shown in found if shown.error is not None]:
        raise wrong[0]
