"""Write the table of values in ``helm/binworks/README.md``, from the schema and the defaults.

``python helm/readme.py``; with ``--check`` it writes nothing and fails if the table is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent / "binworks"
BEGIN, END = "<!-- values -->\n", "<!-- end of values -->\n"
HEAD = "| value | default | meaning |\n| --- | --- | --- |\n"


def rows(schema: Mapping[str, Any], values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield a line for each value that is no group of others."""
    for name, known in schema["properties"].items():
        if name not in values:
            continue
        if path == "" and name == "settings":
            yield "| `settings` | | Settings of the service, by the names of docs/reference/settings.md. |\n"
        elif "properties" in known:
            yield from rows(known, values[name], f"{path}{name}.")
        else:
            default = json.dumps(values[name]).replace("|", "\\|")
            meaning = known["description"].replace("|", "\\|").replace("<", "&lt;")
            yield f"| `{path}{name}` | `{default}` | {meaning} |\n"


def main() -> None:
    """Bring the table up to date."""
    parser = argparse.ArgumentParser(description="Write the table of values in the chart's README.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if it is out of date")
    check = parser.parse_args().check
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    readme = CHART / "README.md"
    before = readme.read_text()
    head, _, rest = before.partition(BEGIN)
    _, _, tail = rest.partition(END)
    after = "".join([head, BEGIN, HEAD, *rows(schema, values), END, tail])
    if check and after != before:
        sys.exit("The table is out of date: run `python helm/readme.py`.")
    if not check:
        readme.write_text(after)


if __name__ == "__main__":
    main()
