"""``binworks sample``: simulated NanoAOD on the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from binworks.samples.bulk import BulkSummary, make_bulk, plan_bulk
from binworks.samples.catalogue import write_json
from binworks.samples.demo import DemoSummary, make_demo, plan_demo
from binworks.samples.processes import PROCESSES
from binworks.samples.production import CLUSTER, FileResult, FileTask
from binworks.samples.rootfile import prepare_folder
from binworks.samples.truth import DEMO_EFFECTS, EFFECTS, Truth

DEMO_EVENTS = 600_000
_NOT_IN_THE_DEMO = [effect for effect in EFFECTS if effect not in DEMO_EFFECTS]


class Layout(StrEnum):
    """How ``Events`` is stored."""

    ttree = "ttree"
    rntuple = "rntuple"


ProcessName = Annotated[str, typer.Argument(metavar="PROCESS", help="One of " + ", ".join(PROCESSES) + ".")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder; files of the same names are replaced.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", help="Processes; default: one a core.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a summary as JSON, and no progress.")]
LayoutOption = Annotated[Layout, typer.Option("--format", help="Of Events.")]
FileEvents = Annotated[int, typer.Option(help="At most so many events a file.")]
ShowerWeights = Annotated[
    bool, typer.Option("--ps-weights", help="Make PSWeight too; generation takes twice as long.")
]

Negative = Annotated[
    float, typer.Option(help="Share of negative weights, as generators beyond leading order have them.")
]

command = typer.Typer(
    name="sample",
    help="Simulate collisions as NanoAOD files: Pythia 8 and a parametric detector with a known truth.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app = command


@command.command(
    epilog="Example:  binworks sample demo --out demo --events 400000 --seed 1\n\n"
    "Writes data/*.root, catalogue.json, corrections/demo/ and truth.json, which holds the hidden shift of the W mass."
)
def demo(
    out: Out = Path("demo"),
    events: Annotated[
        int, typer.Option("--events", "-n", help="W -> mu nu events in the data; all else follows from it.")
    ] = DEMO_EVENTS,
    seed: Seed = 1,
    jobs: Jobs = 0,
    mass_shift: Annotated[
        float | None,
        typer.Option(
            "--mass-shift", help="MeV; default: hidden, from the seed, within +-80.", show_default=False
        ),
    ] = None,
    effect: Annotated[
        list[str] | None,
        typer.Option(
            "--effect",
            help=f"In which data differ from simulation; may be repeated; 'all', or 'none' for no effect. "
            f"Known: {', '.join(EFFECTS)}. Default: all but {', '.join(_NOT_IN_THE_DEMO)}.",
            show_default=False,
        ),
    ] = None,
    layout: LayoutOption = Layout.ttree,
    as_json: AsJson = False,
) -> None:
    """Simulate the demo: samples of W, Z and nonprompt muons, and "data" with a hidden shift of the W mass."""
    named = {"all": EFFECTS, "none": ()}
    effects = [name for word in effect or DEMO_EFFECTS for name in named.get(word, (word,))]
    plan = plan_demo(out, events, Truth.draw(seed, effects, mass_shift), layout.value)
    started = time.monotonic()
    with _progress([task for tasks in plan.tasks.values() for task in tasks], as_json) as advance:
        summary = make_demo(plan, jobs or cores(), advance)
    _report(summary, time.monotonic() - started, as_json)


@command.command(epilog="Example:  binworks sample generate Zmumu --events 200000 --out zmumu --ps-weights")
def generate(
    process: ProcessName,
    out: Out = Path("samples"),
    events: Annotated[int, typer.Option("--events", "-n", help="Number of events.")] = 100_000,
    seed: Seed = 1,
    jobs: Jobs = 0,
    file_events: FileEvents = 100_000,
    layout: LayoutOption = Layout.ttree,
    ps_weights: ShowerWeights = False,
    negative: Negative = 0.0,
    as_json: AsJson = False,
) -> None:
    """Generate simulated files of one process, with a catalogue and the detector's truth."""
    truth = Truth.draw(seed, (), 0.0)
    tasks = plan_bulk(
        out,
        process,
        events,
        truth,
        file_events=file_events,
        layout=layout.value,
        shower_weights=ps_weights,
        negative=negative,
    )
    _make(tasks, truth, jobs, as_json)


@command.command(
    epilog="Example:  binworks sample resample Wplusmunu --events 20000000 --out bulk\n\n"
    "For benchmarks: every event is measured anew, but the generator's statistics are those of the pool."
)
def resample(
    process: ProcessName,
    out: Out = Path("samples"),
    events: Annotated[int, typer.Option("--events", "-n", help="Number of events.")] = 10_000_000,
    seed: Seed = 1,
    jobs: Jobs = 0,
    pool: Annotated[int, typer.Option(help="Generated events to start from.", min=1)] = CLUSTER,
    file_events: FileEvents = 1_000_000,
    layout: LayoutOption = Layout.ttree,
    as_json: AsJson = False,
) -> None:
    """Make many events quickly from a small pool: new azimuth, new measurement and new number each time."""
    truth = Truth.draw(seed, (), 0.0)
    tasks = plan_bulk(out, process, events, truth, file_events=file_events, pool=pool, layout=layout.value)
    _make(tasks, truth, jobs, as_json)


def cores() -> int:
    """Return how many processes can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _make(tasks: list[FileTask], truth: Truth, jobs: int, as_json: bool) -> None:
    started = time.monotonic()
    folder = tasks[0].path.parent
    prepare_folder(folder)
    with _progress(tasks, as_json) as advance:
        summary = make_bulk(tasks, jobs or cores(), advance)
    write_json(folder / "truth.json", truth.model_dump_json(by_alias=True, indent=1))
    _report(summary, time.monotonic() - started, as_json)


@contextmanager
def _progress(
    tasks: Sequence[FileTask], quiet: bool
) -> Iterator[Callable[[FileTask, FileResult], None] | None]:
    """Show a bar over all files; the rate is in generated events."""
    if quiet:
        yield None
        return
    columns = (
        TextColumn("simulating"),
        BarColumn(),
        TextColumn("{task.fields[files]}/{task.fields[of]} files"),
        TextColumn("{task.fields[rate]} events/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        total = sum(task.expected_events for task in tasks)
        shown = bar.add_task("simulating", total=total, files=0, of=len(tasks), rate="-")
        done = [0, 0]
        started = time.monotonic()

        def advance(task: FileTask, result: FileResult) -> None:
            done[0] += 1
            done[1] += result.generated
            rate = done[1] / (time.monotonic() - started)
            bar.update(shown, advance=task.expected_events, files=done[0], rate=f"{rate:,.0f}")

        yield advance


def _report(summary: DemoSummary | BulkSummary, seconds: float, as_json: bool) -> None:
    facts: dict[str, Any] = {**dataclasses.asdict(summary), "seconds": round(seconds, 2)}
    facts["core_seconds"] = round(summary.core_seconds, 2)
    console = Console(soft_wrap=True)
    if as_json:
        console.print_json(json.dumps(facts, default=str))
        return
    table = Table(box=None, show_header=False)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _shown(value))
    console.print(table)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count:,}" for name, count in value.items())
    if isinstance(value, list):
        return f"{len(value)} files in {value[0].parent}" if value else "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
