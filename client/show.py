"""How jobs look on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from binworks.client.events import Event
from binworks.client.export import Export
from binworks.client.status import Status
from binworks.tensors.incomplete import percent

Told = Callable[[str, float, float], None]
COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
}


SHOWN_FAILURES = 5


def jobs(found: Iterable[Status]) -> Table:
    """Return a table of jobs."""
    table = Table("job", "state", "events", "label", "note", box=None, header_style="bold")
    for status in found:
        done = f"{status.fraction:.0%} of {status.events_total:,}" if status.events_total else ""
        note = status.note or ("INCOMPLETE" if status.state == "succeeded" and not status.complete else "")
        table.add_row(status.id, state(status.state), done, status.label or "", Text(note, style="yellow"))
    return table


def job(status: Status) -> Table:
    """Return all that is worth knowing about a job: with the first failures, and what to do about them."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_row("job", status.id)
    table.add_row("state", state(status.state))
    table.add_row("events", f"{status.events_done:,} of {status.events_total:,} ({status.fraction:.1%})")
    table.add_row("units", f"{status.units_done} of {status.units_total} done, {status.units_failed} failed")
    if status.rate and not status.finished:
        left = "" if status.eta is None else f", {status.eta:.0f} s to go"
        table.add_row("rate", f"{status.rate:,.0f} events/s{left}")
    if status.generation is not None:
        table.add_row("snapshot", f"{status.generation}, {'complete' if status.complete else 'INCOMPLETE'}")
    if status.note:
        table.add_row("note", Text(status.note, style="yellow"))
    if status.error:
        table.add_row("error", Text(f"{status.error} [{status.error.code}]", style="red"))
    _add_missing(table, status)
    return table


def _add_missing(table: Table, status: Status) -> None:
    """Add what is missing, the first reasons, and the commands that may help."""
    if status.left_out:
        table.add_row("missing", Text(status.left_out, style="yellow"))
    for number, missing in enumerate(status.failures[:SHOWN_FAILURES]):
        table.add_row("" if number else "because", Text(f"{_range(missing)}: {_problem(missing['error'])}"))
    if status.missing_files > SHOWN_FAILURES:
        table.add_row("", f"... and {status.missing_files - SHOWN_FAILURES} more")
    if status.units_failed:
        table.add_row("details", f"binworks units {status.id} --state failed (or skipped)")
    if status.retriable:
        table.add_row("try again", f"binworks retry {status.id}")


def _range(missing: Mapping[str, Any]) -> str:
    whole = missing.get("start") is None
    return missing["path"] if whole else f"{missing['path']}[{missing['start']}:{missing['stop']}]"


def failures(found: Iterable[Mapping[str, Any]]) -> Text:
    """Return units that failed or were left out, a paragraph each: what, where, why, and what to do about it."""
    text = Text()
    for unit in found:
        worker = f" on {unit['worker']}" if unit.get("worker") else ""
        tries = f"{unit['attempts']} attempt{'s' * (unit['attempts'] != 1)}"
        steps = f", the last in {2 ** unit['splits']} steps" if unit.get("splits") else ""
        text.append(f"unit {unit['unit']} of {unit['dataset']}", style="bold")
        text.append(f"  {unit['state']} after {tries}{steps}{worker}, {unit['events']:,} events\n")
        text.append("".join(f"  {file}\n" for file in unit["files"]), style="dim")
        problem = unit.get("error") or {}
        text.append(f"  {_problem(problem)}\n", style="red")
        if problem.get("hint"):
            text.append(f"  {problem['hint']}\n")
        if unit.get("traceback"):
            text.append("".join(f"    {line}\n" for line in unit["traceback"].splitlines()), style="dim")
    text.rstrip()
    return text


def usage(found: Mapping[str, Any]) -> Table:
    """Return what somebody uses and may use."""
    table = Table("", "used", "limit", box=None, header_style="bold")
    for name, quota in found.items():
        if isinstance(quota, Mapping):
            limit = "none" if quota["limit"] is None else f"{quota['limit']:,.6g}"
            table.add_row(name.replace("_", " "), f"{quota['used']:,.6g}", limit)
    return table


def mappings(found: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> Table:
    """Return a table of documents, some of their fields a column each."""
    table = Table(*columns, box=None, header_style="bold")
    for document in found:
        table.add_row(*(_cell(document.get(column)) for column in columns))
    return table


def state(name: str) -> Text:
    """Return the name of a state in its colour."""
    return Text(name, style=COLOURS.get(name, ""))


@contextmanager
def bar(wanted: Told | bool | None) -> Iterator[Told | None]:
    """Give what shows how far something is: a bar for True, nothing for False, else the callable itself."""
    if wanted is not True:
        yield wanted or None
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[size]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("waiting", total=None, size="")

        def told(what: str, done: float, total: float) -> None:
            size = f"{decimal(int(done))} of {decimal(int(total))}" if what == "downloading" else ""
            progress.update(task, description=what, completed=done, total=total, size=size)

        yield told


def exports(found: Iterable[Export]) -> Table:
    """Return a table of exports."""
    table = Table("export", "format", "snapshot", "state", "bytes", "error", box=None, header_style="bold")
    for export in found:
        size = "" if export.bytes is None else f"{export.bytes:,}"
        how = export.state if export.finished else f"{export.state}, {export.progress:.0%}"
        error = Text(str(export.error or ""), style="red")
        table.add_row(export.id, export.format, str(export.generation), how, size, error)
    return table


class Follower:
    """Shows the events of a job: lines for what matters, a bar for the rest.

    Parameters
    ----------
    console : Console
        Where; without a terminal there are lines only.
    job : str
        Id of the job.
    """

    def __init__(self, console: Console, job: str) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(f"job {job}", total=None, rate="")

    def __enter__(self) -> Follower:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "progress":
            self._advance(event.data)
        else:
            self._console.print(Text(event.time[11:19], style="dim"), line(event), highlight=False)

    def note(self, text: str | None) -> None:
        """Show why a job does not get on, if it does not."""
        if text:
            self._console.print(Text(text, style="yellow"))

    def _advance(self, data: Mapping[str, Any]) -> None:
        events = data["counts"]["events"]
        rate = f"{data['rate']:,.0f} events/s" if data.get("rate") else ""
        if data.get("eta_s") is not None:
            rate += f", {data['eta_s']:.0f} s to go"
        self._progress.update(self._task, completed=events["done"], total=events["total"] or None, rate=rate)


def line(event: Event) -> Text:
    """Return an event in one line."""
    data = event.data
    if event.kind == "state":
        error = data.get("error")
        return state(data["state"]) + (Text(f": {_problem(error)}", style="red") if error else Text(""))
    if event.kind == "snapshot":
        whole = "complete" if data["complete"] else f"{percent(data['fraction'])} of the events"
        return Text(f"snapshot {data['n']}, {whole}")
    if event.kind == "unit-failed":
        text = (
            f"unit {data['unit']} of {data['dataset']} {data['state']}: {_problem(data.get('error') or {})}"
        )
        return Text(text, style="yellow")
    if event.kind == "note":
        return Text(str(data.get("note") or "it goes on"), style="yellow")
    return Text(event.kind, style="dim")


def _problem(problem: Mapping[str, Any]) -> str:
    where = f"{problem['where']}: " if problem.get("where") else ""
    return f"{where}{problem.get('message', 'no reason given')} [{problem.get('code', 'internal')}]"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
