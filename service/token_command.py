"""``binworks token``: make, list and end tokens of a service on this machine, by its job database."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.table import Table

from binworks.service import tokens
from binworks.service.database import Database
from binworks.service.model import Scope
from binworks.service.settings import Settings
from binworks.service.tokens import Role
from binworks.tensors.errors import RequestError, unknown_name

KNOWN: tuple[Scope, ...] = get_args(Scope)
command = typer.Typer(no_args_is_help=True)

Home = Annotated[Path, typer.Option(envvar="BINWORKS_HOME", help="Folder of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command.callback()
def about() -> None:
    """Make, list and end the tokens that let people and fit jobs in."""


@command.command()
def create(
    home: Home,
    owner: Annotated[str, typer.Option(help="Whose jobs are submitted and read with it.")],
    role: Annotated[
        Role, typer.Option(help="user: submits and reads; fit: reads; admin: all of everybody's.")
    ] = "user",
    scope: Annotated[
        list[str] | None, typer.Option(help=f"Instead of a role: {', '.join(KNOWN)}; may be repeated.")
    ] = None,
    days: Annotated[float, typer.Option(min=0.001, max=3650, help="Until it ends.")] = 365,
    label: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token; its secret is printed now and never again.

    For example, for the fit jobs of alice, for 30 days:

    binworks token create --home binworks-home --owner alice --role fit --days 30 --label "fits on the cluster"
    """
    checked_owner(owner)
    scopes = _scopes(scope) if scope else tokens.SCOPES[role]
    lifetime = days * tokens.DAY_SECONDS
    with _database(home) as database:
        now = time.time()
        secret = tokens.create(database, owner, scopes, now=now, lifetime=lifetime, label=label)
        made = tokens.view(database, tokens.token_id(secret), now=now)
    if as_json:
        typer.echo(json.dumps({**made.model_dump(mode="json"), "token": secret}))
        return
    typer.echo(secret)
    typer.echo(
        f"{', '.join(made.scopes)} as {owner} until {made.expires:%Y-%m-%d}; id {made.id}. "
        "It is not shown again: keep it like a password, for example as BINWORKS_TOKEN.",
        err=True,
    )


@command.command("list")
def listed(
    home: Home,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the tokens, newest first, with those that ended in the last 30 days.

    For example:

    binworks token list --home binworks-home --owner alice
    """
    with _database(home) as database:
        found = tokens.listed(database, now=time.time(), owner=owner)
    if as_json:
        typer.echo(json.dumps([token.model_dump(mode="json") for token in found]))
        return
    table = Table(
        "id", "owner", "kind", "scopes", "created", "expires", "label", box=None, header_style="bold"
    )
    for token in found:
        table.add_row(
            token.id,
            token.owner,
            token.kind,
            ", ".join(token.scopes),
            f"{token.created:%Y-%m-%d}",
            "expired" if token.expired else f"{token.expires:%Y-%m-%d}",
            token.label or "",
            style="dim" if token.expired else "",
        )
    Console(highlight=False).print(table)


@command.command()
def revoke(
    home: Home,
    token: Annotated[str, typer.Argument(metavar="ID", help="Of the token; `list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """End a token, the sessions opened with it and the tokens made with it; it opens nothing a second later.

    For example:

    binworks token revoke --home binworks-home 0123456789ab
    """
    with _database(home) as database:
        tokens.revoke(database, token)
    typer.echo(json.dumps({"revoked": token}) if as_json else f"{token} is revoked.")


def checked_owner(owner: str) -> None:
    """Refuse a name that no owner can have.

    Raises
    ------
    RequestError
        Code ``bad-owner``.
    """
    if not re.fullmatch(tokens.OWNER, owner):
        raise RequestError(
            "This cannot be the name of an owner.",
            code="bad-owner",
            where=owner,
            hint="1 to 200 printable ASCII characters without space and slash; the first a letter or digit.",
        )


def _scopes(given: list[str]) -> list[Scope]:
    unknown = [name for name in given if name not in KNOWN]
    if unknown:
        raise unknown_name("scope", unknown[0], list(KNOWN))
    return [scope for scope in KNOWN if scope in given]


@contextmanager
def _database(home: Path) -> Iterator[Database]:
    settings = Settings.load(home)
    database = Database(settings.database_url)
    try:
        database.create_tables()
        yield database
    finally:
        database.close()
