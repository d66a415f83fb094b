"""``binworks tls``: make, renew and show the certificates with which the Dask parts let each other in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from binworks.deploy.tls import DAYS, RENEW_DAYS, Certificates, Shown
from binworks.service.settings import FILE_NAME, Settings
from binworks.tensors.errors import RequestError

FOLDER = "tls"
command = typer.Typer(no_args_is_help=True)

Home = Annotated[
    Path | None,
    typer.Option(
        envvar="BINWORKS_HOME",
        help="Folder of the service; they lie where its setting tls says, or in its folder tls.",
    ),
]
Out = Annotated[Path | None, typer.Option(help="Their folder, where there is no home.")]
Days = Annotated[int, typer.Option(min=1, max=3650, help="For which the certificates of the parts hold.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command.callback()
def about() -> None:
    """Make, renew and show the certificates with which scheduler, workers and driver let each other in."""


@command.command()
def init(
    home: Home = None,
    out: Out = None,
    days: Days = DAYS,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Make a new authority although there is one: all parts have to be restarted with what it signs.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a private authority, for ten years, and a certificate of each part: scheduler, worker, client (the driver).

    For example, for a service on this machine, and for a Kubernetes secret of the workers:

    binworks tls init --home binworks-home

    binworks tls init --out tls && kubectl create secret generic binworks-tls-worker --from-file=tls/worker
    """
    made = Certificates.make(_folder(home, out), days, replace=replace)
    _tell(made, made.shown(), as_json=as_json)
    if not as_json:
        typer.echo(
            "Keep ca/ca.key to yourself: whoever has it lets anybody in. No part needs it; it is for renewal.",
            err=True,
        )


@command.command()
def renew(home: Home = None, out: Out = None, days: Days = DAYS, as_json: AsJson = False) -> None:
    """Make new keys and certificates of all parts, with the authority that is there.

    What runs keeps the old ones until it is restarted; old and new ones get on with each other until the old expire.

    For example:

    binworks tls renew --home binworks-home --days 90
    """
    found = Certificates(_folder(home, out))
    found.renew(days)
    _tell(found, found.shown(), as_json=as_json)
    if not as_json:
        typer.echo("Running parts keep theirs: restart them, one after another.", err=True)


@command.command()
def show(
    home: Home = None,
    out: Out = None,
    days: Annotated[
        int, typer.Option(min=0, max=3650, help="Exit code 1 if one expires within so many.")
    ] = RENEW_DAYS,
    as_json: AsJson = False,
) -> None:
    """Show what is there, until when it holds, and whether it fits together; exit code 1 if something is to be done.

    For example, in a daily job that mails what it prints when it fails:

    binworks tls show --home binworks-home --days 30
    """
    found = Certificates(_folder(home, out))
    shown = found.shown()
    _tell(found, shown, as_json=as_json, days=days)
    if any(_trouble(one, days) for one in shown):
        raise typer.Exit(1)


def _folder(home: Path | None, out: Path | None) -> Path:
    if out is not None:
        return out.absolute()
    if home is None:
        raise RequestError(
            "Where are the certificates?", code="no-folder-given", hint="Give --home or --out."
        )
    named = Settings.load(home).tls if (home / FILE_NAME).exists() else None
    return named or home.absolute() / FOLDER


def _trouble(shown: Shown, days: int) -> str | None:
    """Return what is to be done about a certificate, if anything."""
    left = shown.expires - datetime.now(UTC)
    if shown.fault:
        return shown.fault
    if left < timedelta(0):
        return "it has expired"
    return f"it expires in {left.days} days" if left < timedelta(days=days) else None


def _tell(found: Certificates, shown: list[Shown], *, as_json: bool, days: int = 0) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(found.folder), "certificates": [_json(s, days) for s in shown]}))
        return
    table = Table("certificate", "until", "SHA-256", "", box=None, header_style="bold")
    for one in shown:
        trouble = _trouble(one, days)
        style = "red" if trouble else ""
        table.add_row(one.name, f"{one.expires:%Y-%m-%d}", one.fingerprint[:16], trouble or "", style=style)
    Console(highlight=False).print(table)


def _json(shown: Shown, days: int) -> dict[str, Any]:
    return {
        "name": shown.name,
        "expires": shown.expires.isoformat(),
        "fingerprint": shown.fingerprint,
        "trouble": _trouble(shown, days),
    }
