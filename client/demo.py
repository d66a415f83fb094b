"""``binworks demo``: from simulated collisions to a W mass through the whole system, each part as a user runs it."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import binworks
from binworks.client.children import RunningService, running_service, sample
from binworks.client.plots import plot_fit
from binworks.client.show import Follower
from binworks.tensors.fit import FitResult, enough_events, fit_mass
from binworks.tensors.fit_model import mass_templates
from binworks.tensors.tensor import Tensor

SIMULATED_MASS_MEV = 80379.0
SIGNAL = "Wmunu"
"""Its normalisation floats: the mass is to come from the shape of pT, not from the rate."""
DEFAULT_EVENTS = 600_000
PLOTS = ("mw.png", "mw.pdf")
CLOSURE_SHOWN = (-100.0, -50.0, -10.0, 10.0, 50.0, 100.0)


@dataclass
class Steps:
    """Announces the steps of the demo and keeps how long each took, in seconds."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[Callable[[str], None]]:
        """Time what is done within; gives a function for remarks about it."""
        self.console.print(f"[bold cyan]{name:<8}[/] {what}")
        started = time.monotonic()
        yield lambda remark: self.console.print(f"{'':<8} {remark}")
        self.seconds[name] = round(time.monotonic() - started, 2)
        self.console.print(f"{'':<8} [dim]{self.seconds[name]:.1f} s[/]")


def command(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.")] = Path("demo"),
    events: Annotated[int, typer.Option(min=1, help="W -> mu nu events in the data.")] = DEFAULT_EVENTS,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulation and of the hidden W mass.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Processes that simulate; Dask workers.")] = 2,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running at the end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Simulate collisions with a hidden W mass, fill histograms with the service, fit the mass, draw it.

    The folder then holds the samples, the home of the service, mw.png, mw.pdf and result.json. Samples that are there
    already with the same parameters are used again.
    """
    # as an exception, so that the processes that were started are ended on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    steps = Steps(Console(stderr=as_json, highlight=False, soft_wrap=True))
    out = out.absolute()
    with steps.step("samples", f"W, Z and nonprompt muons; {events:,} W -> mu nu in the data") as say:
        made = sample(out, events=events, seed=seed, jobs=workers, quiet=as_json)
        say(f"{'in' if made else 'already in'} {out}")
    with ExitStack() as stack:
        with steps.step("service", f"API, driver, Dask scheduler and {workers} workers") as say:
            options = ("--catalogue", out / "catalogue.json", "--workers", workers)
            service = stack.enter_context(running_service(out / "home", *options, keep=keep))
            say(f"API {service.url}/docs")
            say(f"Dask dashboard {service.dashboard}")
        tensor = _fill(service, steps)
        result, closure = _fit(tensor, steps)
        with steps.step("plot", "muon pT, data over prediction, effect of the mass") as say:
            for name in PLOTS:
                plot_fit(tensor, result, out / name, title="binworks demo")
                say(f"{out / name}")
    report = _report(tensor, result, closure, out)
    report |= {"events": events, "seed": seed, "workers": workers, "seconds": steps.seconds}
    (out / "result.json").write_text(json.dumps(report, indent=1) + "\n")
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show(steps.console, report)
    if keep:
        steps.console.print(f"The service is left running; end it with: kill {service.pid}")
        steps.console.print(f"export BINWORKS_HOME={service.home}")


def _fill(service: RunningService, steps: Steps) -> Tensor:
    """Run the W job and pull its tensor."""
    client = service.client
    with steps.step("job", "the W processor over all data sets, with all systematics") as say:
        names = [entry["name"] for entry in client.datasets()]
        job = client.submit("w_mass", names, corrections="demo", label="demo")
        with Follower(steps.console, job.id) as follower:
            for event in job.watch():
                follower.show(event)
        status = job.status().check()
        say(f"{status.events_total:,} events")
    with steps.step("tensor", f"pulling job {job.id}") as say:
        tensor = job.tensor()
        bins, processes = tensor.nominal[0].size, len(tensor.processes)
        say(f"{bins:,} bins, {processes} processes, {len(tensor.nuisances)} nuisances")
    return tensor


def _fit(tensor: Tensor, steps: Steps) -> tuple[FitResult, dict[float, float]]:
    """Fit the mass, and pseudo-data with known shifts: what comes back, by shift in MeV."""
    with steps.step("fit", "the W mass; closure with 20 shifts made by weights of the same events") as say:
        rebin = enough_events(tensor)
        result = fit_mass(tensor, floating=[SIGNAL], rebin=rebin)
        shifts, templates = mass_templates(tensor)
        pseudo = zip(shifts, templates.sum(axis=1), strict=True)
        closure = {
            shift: fit_mass(tensor, data, floating=[SIGNAL], rebin=rebin).mass_shift
            for shift, data in pseudo
            if shift
        }
        merged = ", ".join(f"{n} in {axis}" for axis, n in rebin.items() if n > 1) or "none merged"
        say(f"{result.used.sum():,} bins ({merged}: enough simulated events in each)")
    return result, closure


def _report(
    tensor: Tensor, result: FitResult, closure: Mapping[float, float], folder: Path
) -> dict[str, Any]:
    """Return all numbers as JSON; here the truth is looked at for the first time."""
    truth = float(json.loads((folder / "truth.json").read_bytes())["hidden"]["mass_shift_mev"])
    return {
        "version": binworks.__version__,
        "job": tensor.metadata,
        "tensor_sha256": fingerprint(tensor),
        "mass_mev": SIMULATED_MASS_MEV + result.mass_shift,
        "fit": result.summary(),
        "closure": [{"injected_mev": shift, "fitted_mev": fitted} for shift, fitted in closure.items()],
        "hidden_shift_mev": truth,
        "pull": (result.mass_shift - truth) / result.uncertainty,
    }


def fingerprint(tensor: Tensor) -> str:
    """Return a hash of all sums of a tensor: equal if and only if they are equal to the last bit."""
    digest = hashlib.sha256()
    for array in (
        tensor.nominal,
        tensor.variances,
        tensor.data,
        *(b[1].values for _, b in sorted(tensor.blocks.items())),
    ):
        digest.update(b"none" if array is None else array.tobytes())
    return digest.hexdigest()


def _show(console: Console, report: Mapping[str, Any]) -> None:
    fit = report["fit"]
    console.print(_closure_table(report["closure"]))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    parts = ", ".join(f"{name} {part:.1f}" for name, part in fit["impacts_mev"].items())
    table.add_row("uncertainty from", f"{parts} MeV")
    table.add_row("chi2 / ndf", f"{fit['chi2']:.1f} / {fit['ndf']}, p = {fit['p_value']:.2f}")
    table.add_row("hidden truth", f"{SIMULATED_MASS_MEV:.0f} {report['hidden_shift_mev']:+.1f} MeV")
    table.add_row("pull", f"{report['pull']:+.2f}")
    shift, error = fit["mass_shift_mev"], fit["uncertainty_mev"]
    console.print(f"\n[bold green]m_W = {SIMULATED_MASS_MEV:.0f} {shift:+.1f} +- {error:.1f} MeV[/]")
    console.print(table)
    console.print(f"[dim]in all {sum(report['seconds'].values()):.0f} s[/]")


def _closure_table(closure: Sequence[Mapping[str, float]]) -> Table:
    """Return what came back for some of the shifts, and the largest deviation of all."""
    largest = max(abs(row["fitted_mev"] - row["injected_mev"]) for row in closure)
    table = Table(
        title=f"Closure: {len(closure)} injected shifts come back within {largest:.1g} MeV", box=None
    )
    shown = [row for row in closure if row["injected_mev"] in CLOSURE_SHOWN]
    table.add_column("injected [MeV]")
    for row in shown:
        table.add_column(f"{row['injected_mev']:+.0f}", justify="right")
    table.add_row("fitted [MeV]", *(f"{row['fitted_mev']:+.3f}" for row in shown))
    return table
