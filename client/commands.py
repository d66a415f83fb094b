"""The commands about jobs. Each is a thin layer over `Client`; ``--json`` gives what the service said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from binworks.client import options, save, show
from binworks.client.cli import JOB_FAILED
from binworks.client.client import Client
from binworks.client.job import Job
from binworks.client.snapshot import Snapshot
from binworks.tensors.errors import RequestError

LOST = ("failed", "skipped")
out = Console()


def submit(
    file: options.File = None,
    processor: options.Processor = None,
    dataset: options.Datasets = None,
    all_datasets: options.AllDatasets = False,
    corrections: options.Corrections = None,
    systematics: options.Systematics = None,
    option: options.ProcessorOptions = None,
    luminosity: options.Luminosity = None,
    priority: options.Priority = None,
    skip: options.Skip = None,
    label: options.Label = None,
    key: options.Key = None,
    reuse: options.Reuse = False,
    wait: options.Wait = False,
    as_json: options.AsJson = False,
    url: options.Url = None,
    home: options.Home = None,
) -> None:
    """Submit a job and print its id.

    For example:

    binworks submit --processor w_mass --all-datasets --corrections demo --wait

    binworks submit -p w_mass -d Wplusmunu -s mass -s pdf --label "first look"

    binworks submit job.json
    """
    with Client(url, home=home) as client:
        given = {
            "processor": processor,
            "datasets": [entry["name"] for entry in client.datasets()] if all_datasets else dataset,
            "corrections": corrections,
            "systematics": systematics,
            "options": dict(map(_option, option)) if option else None,
            "luminosity": luminosity,
            "priority": priority,
            "on_error": None if skip is None else {"skip": skip},
            "label": label,
        }
        asked = {field: value for field, value in given.items() if value is not None}
        request = {**(_read(file) if file else {}), **asked}
        job = client.submit_request(request, idempotency_key=key, reuse=reuse)
        if as_json and not wait:
            _print(job.status().raw)
        elif not as_json:
            typer.echo(job.id)
        if wait:
            _follow(job, as_json=as_json)


def jobs(
    state: options.JobStateOption = None,
    limit: options.Limit = 20,
    as_json: options.AsJson = False,
    url: options.Url = None,
    home: options.Home = None,
) -> None:
    """List jobs, newest first."""
    with Client(url, home=home) as client:
        found = client.jobs(state=state, limit=limit)
    _print([status.raw for status in found] if as_json else show.jobs(found))


def status(
    job: options.Job, as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None
) -> None:
    """Show how a job is: state, events, rate, what is missing, why it failed, and what to do about it."""
    with Client(url, home=home) as client:
        found = client.job(job).status()
    _print(found.raw if as_json else show.job(found))


def watch(
    job: options.Job, as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None
) -> None:
    """Follow a job until it is finished; the exit code is 1 if it did not succeed.

    With --json each event is a line.
    """
    with Client(url, home=home) as client:
        _follow(client.job(job), as_json=as_json)


def pull(
    job: options.Job,
    target: options.Out,
    allow_partial: options.AllowPartial = False,
    as_json: options.AsJson = False,
    url: options.Url = None,
    home: options.Home = None,
) -> None:
    """Download the latest snapshot of a job; what arrives is checked against the service's digests.

    For example:

    binworks pull 7hq2mkc3xv --out tensor.npz

    binworks pull 7hq2mkc3xv --out histograms.zip --allow-partial
    """
    with Client(url, home=home) as client:
        snapshot = client.job(job).snapshot(allow_partial=allow_partial)
        with show.bar(not as_json and out.is_terminal) as told:
            digest = save.pull(snapshot, target, None if told is None else _steps(snapshot, told))
    facts = {
        "file": str(target),
        "bytes": target.stat().st_size,
        "sha256": digest,
        "generation": snapshot.generation,
        "complete": snapshot.complete,
        "fraction": snapshot.fraction,
        "missing": snapshot.contents["missing"],
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    out.print(f"{target}  {facts['bytes']:,} bytes  sha256 {digest}", highlight=False, soft_wrap=True)
    if snapshot.mark:
        out.print(f"[yellow]{snapshot.mark}")


def export(
    job: options.Job,
    format: options.Format,  # noqa: A002  what everybody calls it
    target: options.ExportOut = None,
    card: options.Card = None,
    generation: options.Generation = None,
    allow_partial: options.AllowPartial = False,
    as_json: options.AsJson = False,
    url: options.Url = None,
    home: options.Home = None,
) -> None:
    """Let the service make a file for a fit, and download it.

    One that was cut short goes on where it was when the command is given again; what arrives is checked against the
    service's digest.

    For example:

    binworks export 7hq2mkc3xv --format rabbit --out w.hdf5

    binworks export 7hq2mkc3xv --format rabbit-sparse --card card.json --out w.hdf5
    """
    with Client(url, home=home) as client:
        found = client.job(job).export(
            format,
            target,
            card=None if card is None else _read(card),
            generation=generation,
            allow_partial=allow_partial,
            progress=not as_json and out.is_terminal,
        )
    if as_json:
        typer.echo(json.dumps({**found.raw, "file": str(found.path)}))
    else:
        text = f"{found.path}  {found.bytes or 0:,} bytes  sha256 {found.sha256}"
        out.print(text, highlight=False, soft_wrap=True)


def exports(
    job: options.Job, as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None
) -> None:
    """List the files for fits that the service has of a job, newest first."""
    with Client(url, home=home) as client:
        found = client.job(job).exports()
    _print([dict(one.raw) for one in found] if as_json else show.exports(found))


def units(
    job: options.Job,
    state: options.UnitStateOption = None,
    limit: options.Limit = 100,
    as_json: options.AsJson = False,
    url: options.Url = None,
    home: options.Home = None,
) -> None:
    """List units of work: what is done; what failed, where, why and what to do about it.

    For example:

    binworks units 7hq2mkc3xv --state failed
    """
    with Client(url, home=home) as client:
        found = client.job(job).units(state, limit)
    if as_json:
        _print(found)
        return
    failed = [unit for unit in found if unit["state"] in LOST]
    others = [
        {**unit, "error": (unit.get("error") or {}).get("message")} for unit in found if unit not in failed
    ]
    if others or not failed:
        columns = ("unit", "dataset", "state", "events", "attempts", "seconds", "files", "error")
        _print(show.mappings(others, columns))
    if failed:
        out.print(show.failures(failed), soft_wrap=True)


def cancel(
    job: options.Job, as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None
) -> None:
    """Ask for the end of a job; a finished one stays as it is."""
    with Client(url, home=home) as client:
        found = client.job(job).cancel()
    _print(found.raw if as_json else show.state(found.state))


def retry(
    job: options.Job, as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None
) -> None:
    """Take up a job again that failed, or whose result lacks events; what it has done is kept."""
    with Client(url, home=home) as client:
        found = client.job(job).retry()
    _print(found.raw if as_json else show.state(found.state))


def delete(
    job: options.Job, as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None
) -> None:
    """Delete a finished job with all its snapshots."""
    with Client(url, home=home) as client:
        client.job(job).delete()
    _print({"id": job, "deleted": True} if as_json else "deleted")


def usage(
    owner: options.Owner = None,
    as_json: options.AsJson = False,
    url: options.Url = None,
    home: options.Home = None,
) -> None:
    """Show what you use and may use: jobs, queued units, stored bytes, processor hours of the last 30 days."""
    with Client(url, home=home) as client:
        found = client.usage(owner)
    _print(dict(found) if as_json else show.usage(found))


def processors(as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None) -> None:
    """List the processors with their options and systematics."""
    with Client(url, home=home) as client:
        found = client.processors()
    rows = [{**p, "options": sorted(p["options"].get("properties", {}))} for p in found]
    _print(
        found
        if as_json
        else show.mappings(rows, ("name", "summary", "options", "systematics", "corrections"))
    )


def datasets(as_json: options.AsJson = False, url: options.Url = None, home: options.Home = None) -> None:
    """List the data sets that can be asked for by name."""
    with Client(url, home=home) as client:
        found = client.datasets()
    rows = [{**d, "files": len(d["files"])} for d in found]
    _print(found if as_json else show.mappings(rows, ("name", "kind", "group", "cross_section", "files")))


def corrections(
    context: typer.Context,
    as_json: options.AsJson = False,
    url: options.Url = None,
    home: options.Home = None,
) -> None:
    """List the correction sets that can be asked for by name.

    For example:

    binworks corrections

    binworks corrections show demo/corrections/demo -o page.png
    """
    if context.invoked_subcommand is not None:
        return
    with Client(url, home=home) as client:
        found = client.corrections()
    _print(found if as_json else show.mappings(found, ("name", "payloads", "digest")))


def _follow(job: Job, *, as_json: bool) -> None:
    """Show a job to its end; leave with 1 unless it succeeded."""
    with show.Follower(Console(quiet=True) if as_json else out, job.id) as follower:
        follower.note(job.status().note)
        for event in job.watch():
            if as_json:
                typer.echo(json.dumps(vars(event)))
            else:
                follower.show(event)
    status = job.status()
    if status.retriable and not as_json:
        out.print(show.job(status))
    if status.state != "succeeded":
        raise typer.Exit(JOB_FAILED)


def _steps(snapshot: Snapshot, told: show.Told) -> Callable[[str], None]:
    """Return what moves a bar on with every histogram that has come."""
    total = sum(len(entry["histograms"]) for entry in snapshot.datasets.values())
    come: list[str] = []

    def step(name: str) -> None:
        come.append(name)
        told("pulling", len(come), total)

    return step


def _print(found: Any) -> None:
    if isinstance(found, list | dict):
        typer.echo(json.dumps(found))
    else:
        out.print(found)


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise RequestError("An option is written KEY=VALUE.", code="bad-option", where=text)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise RequestError(f"This is no JSON document: {error}", code="bad-file", where=str(file)) from None
    if not isinstance(found, dict):
        raise RequestError("A request, or a card, is a JSON object.", code="bad-file", where=str(file))
    return found
