"""The command line. A command's code is imported when that command is on the line, so ``--help`` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Annotated

import typer

import binworks
from binworks.tensors.errors import BinworksError, TransientError

OK, JOB_FAILED, BAD_REQUEST, UNREACHABLE = 0, 1, 2, 3
EXIT_CODES = "Exit codes: 0 done; 1 the job failed; 2 wrong usage or request; 3 the service does not answer."


@dataclass(frozen=True)
class Command:
    """Where a command's code is (a function, or a `typer.Typer` with commands of its own), and its line in the help.

    A function may have commands below it, too. It acts when none of them is on the line, so it takes a
    `typer.Context` and returns at once if ``invoked_subcommand`` is set.
    """

    target: str
    summary: str
    panel: str | None = None
    below: Mapping[str, Command] = field(default_factory=dict)


_JOBS, _ASK, _RUN = "Jobs", "What can be asked for", "Service"
COMMANDS = {
    "submit": Command("binworks.client.commands:submit", "Submit a job.", _JOBS),
    "jobs": Command("binworks.client.commands:jobs", "List jobs, newest first.", _JOBS),
    "status": Command("binworks.client.commands:status", "Show how a job is.", _JOBS),
    "watch": Command("binworks.client.commands:watch", "Follow a job until it is finished.", _JOBS),
    "pull": Command("binworks.client.commands:pull", "Download a job's tensor or histograms.", _JOBS),
    "export": Command(
        "binworks.client.commands:export", "Download a file for a fit: rabbit, pyhf, ROOT, UHI.", _JOBS
    ),
    "exports": Command("binworks.client.commands:exports", "List a job's files for fits.", _JOBS),
    "units": Command(
        "binworks.client.commands:units", "List units of work, for example those that failed.", _JOBS
    ),
    "cancel": Command("binworks.client.commands:cancel", "Ask for the end of a job.", _JOBS),
    "retry": Command(
        "binworks.client.commands:retry",
        "Try again what failed or lacks events, keeping what is done.",
        _JOBS,
    ),
    "delete": Command("binworks.client.commands:delete", "Delete a finished job with its snapshots.", _JOBS),
    "usage": Command("binworks.client.commands:usage", "Show what you use and may use.", _JOBS),
    "processors": Command(
        "binworks.client.commands:processors", "List processors, options and systematics.", _ASK
    ),
    "datasets": Command("binworks.client.commands:datasets", "List the data sets of the catalogue.", _ASK),
    "corrections": Command(
        "binworks.client.commands:corrections",
        "List the correction sets.",
        _ASK,
        {"show": Command("binworks.corrections.show:command", "Check and draw a correction set.")},
    ),
    "up": Command("binworks.service.up:command", "Start a service on this machine.", _RUN),
    "workers": Command(
        "binworks.service.workers_command:command", "Show the workers of a service here, or scale them.", _RUN
    ),
    "token": Command(
        "binworks.service.token_command:command", "Make, list and end tokens of a service here.", _RUN
    ),
    "tls": Command(
        "binworks.service.tls_command:command", "Make, renew and show certificates of the Dask parts.", _RUN
    ),
    "fsck": Command(
        "binworks.service.fsck:command", "Check what is stored against the ledger; repair it.", _RUN
    ),
    "gc": Command("binworks.service.gc:command", "Remove what nobody needs any more.", _RUN),
    "sample": Command("binworks.samples.cli:command", "Simulate collisions as NanoAOD files.", _RUN),
    "demo": Command(
        "binworks.client.demo:command", "From simulated collisions to a W mass, in one go.", _RUN
    ),
}


def build(words: Sequence[str]) -> typer.Typer:
    """Return the application; the command that is the first of the words is loaded, the others are listed."""
    app = typer.Typer(
        name="binworks",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    _attach(app, COMMANDS, words)
    return app


def _attach(app: typer.Typer, commands: Mapping[str, Command], words: Sequence[str]) -> None:
    """Add commands; the first one whose name is among the words is loaded, with those below it."""
    wanted = next((word for word in words if word in commands), None)
    for name, command in commands.items():
        if name != wanted:
            app.command(name, help=command.summary, rich_help_panel=command.panel)(_listed)
            continue
        module, _, attribute = command.target.partition(":")
        target = getattr(import_module(module), attribute)
        if command.below:
            group = typer.Typer()
            group.callback(invoke_without_command=True, epilog=EXIT_CODES)(target)
            _attach(group, command.below, words)
            target = group
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, rich_help_panel=command.panel)
        else:
            app.command(name, rich_help_panel=command.panel, epilog=EXIT_CODES)(target)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    completed = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
    try:
        build([*words, *completed.split()])(args=words, prog_name="binworks")
    except BinworksError as error:
        typer.secho(f"binworks: {error}", err=True, fg=typer.colors.RED)
        raise SystemExit(UNREACHABLE if isinstance(error, TransientError) else BAD_REQUEST) from None


def _listed() -> None:
    """Stand in the list of commands for one that is not on the line."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(binworks.__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Billions of collision events into fit-ready histogram tensors."""
