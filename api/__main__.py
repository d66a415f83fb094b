"""``python -m binworks.api --home DIR``: serve the REST interface of a home."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn

from binworks.api.app import create_app
from binworks.service import logs
from binworks.service.settings import Settings

GRACE_SECONDS = 2  # event streams would otherwise hold up the end for ever


def main(arguments: list[str] | None = None) -> None:
    """Read the home's settings and serve until a signal ends the process."""
    about = "Serve the REST interface of a binworks home."
    parser = argparse.ArgumentParser(prog="python -m binworks.api", description=about)
    parser.add_argument("--home", type=Path, required=True, help="folder that `binworks up` made")
    parser.add_argument("--host", help="address to listen on; default: that of the settings, loopback")
    parser.add_argument("--port", type=int, help="default: that of the settings")
    given = parser.parse_args(arguments)
    settings = Settings.load(given.home)
    logs.to_file(settings.logs / "api.log")
    uvicorn.run(
        create_app(settings),
        host=given.host or settings.host,
        port=settings.port if given.port is None else given.port,
        timeout_graceful_shutdown=GRACE_SECONDS,
        access_log=False,
        log_config=None,
    )


if __name__ == "__main__":
    main()
