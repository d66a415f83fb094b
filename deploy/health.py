"""``python -m binworks.deploy.health``: the image's health check.

Every container of the service has it, and only some serve the API. Those are well if their API answers ``/healthz``;
a worker, scheduler or driver is well as long as it runs, which the engine sees without asking.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

API = "binworks.api"
SETTINGS = "settings.json"
PATH = "/healthz"
SECONDS = 5.0
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  what is listened on, and how to reach it from here


def served(processes: Path = Path("/proc")) -> Iterator[tuple[str, int]]:
    """Yield host and port of each API that runs here.

    Parameters
    ----------
    processes : Path
        Folder with one folder a process, as Linux shows them.
    """
    for file in processes.glob("[0-9]*/cmdline"):
        try:
            words = [word.decode(errors="replace") for word in file.read_bytes().rstrip(b"\0").split(b"\0")]
        except OSError:  # it has ended, or is somebody else's
            continue
        if "-m" in words and words[words.index("-m") + 1 :][:1] == [API]:
            yield address(words[words.index(API) + 1 :])


def address(arguments: Sequence[str]) -> tuple[str, int]:
    """Return where an API listens that was started with these arguments.

    Raises
    ------
    OSError
        If the settings of its home cannot be read.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args(arguments)
    settings = json.loads((given.home / SETTINGS).read_bytes())
    host = given.host or settings.get("host", "127.0.0.1")
    return ANYWHERE.get(host, host), given.port or settings.get("port", 8080)


def answers(host: str, port: int) -> bool:
    """Return whether an API is alive, within seconds."""
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=SECONDS)) as connection:
            connection.request("GET", PATH)
            return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def main() -> None:
    """Exit with code 1 if an API that runs here does not answer."""
    silent = [f"{host}:{port}" for host, port in set(served()) if not answers(host, port)]
    if silent:
        sys.exit(f"No answer from the API at {', '.join(silent)}.")


if __name__ == "__main__":
    main()
