"""``python -m binworks.api --home DIR``: serve the REST interface of a home."""

from __future__ import annotations

import argparse
import gc
import resource
from contextlib import suppress
from pathlib import Path

import uvicorn

from binworks.api.app import create_app
from binworks.api.protocol import Protocol
from binworks.service import logs
from binworks.service.settings import Settings

GRACE_SECONDS = 2  # event streams would otherwise hold up the end for ever
KEEP_ALIVE_SECONDS = 30


def main(arguments: list[str] | None = None) -> None:
    """Read the home's settings and serve until a signal ends the process."""
    about = "Serve the REST interface of a binworks home."
    parser = argparse.ArgumentParser(prog="python -m binworks.api", description=about)
    parser.add_argument("--home", type=Path, required=True, help="folder that `binworks up` made")
    parser.add_argument("--host", help="address to listen on; default: that of the settings, loopback")
    parser.add_argument("--port", type=int, help="default: that of the settings")
    given = parser.parse_args(arguments)
    listen = {name: value for name in ("host", "port") if (value := getattr(given, name)) is not None}
    settings = Settings.load(given.home).model_copy(update=listen)
    logs.begin(settings, "api.log")
    _allow_many_readers()
    app = create_app(settings)
    gc.collect()
    gc.freeze()  # what is there now, stays: looking through it again and again would hold up requests
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        loop="auto",  # uvloop, where it is; with httptools half the time of a request
        http=Protocol,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        access_log=False,
        log_config=None,
    )


def _allow_many_readers() -> None:
    """Let each of many streams have its file descriptor: as many as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
