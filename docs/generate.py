"""Write the reference pages that follow from the code: settings, command line, REST.

``python docs/generate.py`` after a change; a test compares the pages with the code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from binworks.api.app import create_app
from binworks.client import cli
from binworks.deploy.site import Part, Site
from binworks.service.settings import Settings

REFERENCE = Path(__file__).parent / "reference"
HOME = Path("binworks-home")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings() -> str:
    """Return the page of the service's settings."""
    fields = Settings.model_json_schema()["properties"]
    rows = [(f"`{name}`", _default(field), field.get("description", "")) for name, field in fields.items()]
    return f"""# Settings of the service

`binworks up` writes them to `settings.json` in the home of the service; `api` and `driver` read them from there. They
say how the service runs and change nothing of what is computed.

{table(("name", "default", "meaning"), rows)}
"""


def site() -> str:
    """Return the page of the site file."""
    document = Site.model_json_schema()
    sections = []
    for name, field in Site.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, Part):
            keys = part.model_json_schema()["properties"].items()
            rows = [(f"`{key}`", _default(value), value.get("description", "")) for key, value in keys]
            sections.append(f"## `{name}`\n\n{table(('key', 'default', 'meaning'), rows)}\n")
    backends = ", ".join(f"`{name}`" for name in document["properties"]["backend"]["enum"])
    return f"""# Site file

YAML, for `binworks up --config`. It says where workers run; the [how-to](../howto/cluster.md) has examples, and so has
`deploy/sites`. Keys that are not listed here are refused. Times are seconds, or `hours:minutes:seconds`, or
`days-hours:minutes:seconds`; sizes may have a unit, `16GB` or `16GiB`.

Its key `backend` is one of {backends}; the option `--backend` wins over it, and `--workers` over the numbers of
workers.

{chr(10).join(sections)}"""


def _default(field: dict[str, Any]) -> str:
    return f"`{field['default']!r}`" if "default" in field else "must be given"


def command_line() -> str:
    """Return the page of the commands."""
    sections = []
    for name, command in cli.COMMANDS.items():
        application: Any = typer.main.get_command(cli.build([name, *command.below]))
        loaded = application.commands[name]
        sections += [_command(*found) for found in _commands(f"binworks {name}", loaded)]
    return f"# Command line\n\n{cli.EXIT_CODES}\n\n{chr(10).join(sections)}"


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Give a command, where it acts by itself, and those below it."""
    below = getattr(command, "commands", {})
    if not below or getattr(command, "invoke_without_command", False):
        yield path, command
    for name, child in below.items():
        yield from _commands(f"{path} {name}", child)


def _command(name: str, command: Any) -> str:
    about = (command.help or "").replace("\f", "").strip()
    rows = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
    listed = f"\n\n{table(('parameter', 'meaning', 'default'), rows)}" if rows else ""
    return f"## `{name}`\n\n{about}{listed}\n"


def _parameter(parameter: Any) -> tuple[str, str, str]:
    words = " ".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        words = parameter.metavar or str(parameter.name).upper()
    shown = "" if parameter.default in (None, False, ()) else f"`{parameter.default}`"
    return f"`{words}`", getattr(parameter, "help", None) or "", shown


def rest() -> str:
    """Return the page of the REST interface."""
    described = create_app(Settings(home=HOME)).openapi()
    sections = [
        _route(method, path, route)
        for path, methods in described["paths"].items()
        for method, route in methods.items()
    ]
    request = described["components"]["schemas"]["JobRequest"]["properties"]
    rows = [(f"`{name}`", field.get("description", "")) for name, field in request.items()]
    return f"""# REST

Bodies are JSON. Send `Authorization: Bearer TOKEN`. A running service has the full schemas at `/openapi.json` and a
page to try them at `/docs`. Every error is a problem document (RFC 9457); its `code` is one of [these](errors.md).

## What a job is asked with

{table(("field", "meaning"), rows)}

{"".join(sections)}"""


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    rows = [
        (f"`{parameter['name']}`", parameter["in"], parameter.get("description", ""))
        for parameter in route.get("parameters", [])
        if parameter["in"] != "path"
    ]
    listed = f"{table(('parameter', 'in', 'meaning'), rows)}\n\n" if rows else ""
    named = f"Operation `{route['operationId']}`."
    return f"## `{method.upper()} {path}`\n\n{named} {route.get('description', route['summary']).strip()}\n\n{listed}"


PAGES = {"settings.md": settings, "site.md": site, "cli.md": command_line, "rest.md": rest}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page().rstrip() + "\n")


if __name__ == "__main__":
    main()
