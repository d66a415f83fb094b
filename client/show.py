"""How jobs look on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from binworks.client.events import Event
from binworks.client.status import Status

COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
}


def jobs(found: Iterable[Status]) -> Table:
    """Return a table of jobs."""
    table = Table("job", "state", "events", "label", box=None, header_style="bold")
    for status in found:
        done = f"{status.fraction:.0%} of {status.events_total:,}" if status.events_total else ""
        table.add_row(status.id, state(status.state), done, status.label or "")
    return table


def job(status: Status) -> Table:
    """Return all that is worth knowing about a job."""
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
    if status.missing_files:
        table.add_row("left out", f"{status.missing_events:,} events, {status.missing_files} files")
    if status.note:
        table.add_row("note", status.note)
    if status.error:
        table.add_row("error", Text(f"{status.error} [{status.error.code}]", style="red"))
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
        whole = "complete" if data["complete"] else f"{data['fraction']:.1%} of the events"
        return Text(f"snapshot {data['n']}, {whole}")
    if event.kind == "unit-failed":
        text = (
            f"unit {data['unit']} of {data['dataset']} {data['state']}: {_problem(data.get('error') or {})}"
        )
        return Text(text, style="yellow")
    return Text(str(data.get("note") or event.kind), style="dim")


def _problem(problem: Mapping[str, Any]) -> str:
    where = f"{problem['where']}: " if problem.get("where") else ""
    return f"{where}{problem.get('message', 'no reason given')} [{problem.get('code', 'internal')}]"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,.6g}" if isinstance(value, float) else str(value)
