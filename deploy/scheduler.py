"""The scheduler's process: the same on every back end that runs it on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from binworks.deploy.keeper import Keeper
from binworks.deploy.worker import scrubbed

CONFIGURATION = {
    # The driver counts whom a unit kills; Dask would blame all units that a dead worker held.
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "30s",
    # a host that is cut off is noticed after so long, a worker that is frozen after a minute, not after five
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "60s",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
}

LOOPBACK = "127.0.0.1"
"""The dashboard lets everybody in: others reach it through the API only."""
DASHBOARD_PREFIX = "/dask"


def address(host: str, port: int, *, tls: bool) -> str:
    """Return the address of a scheduler, as Dask writes it."""
    return f"{'tls' if tls else 'tcp'}://{f'[{host}]' if ':' in host else host}:{port}"


def scheduler(
    folder: Path,
    *,
    host: str,
    port: int,
    dashboard_port: int,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] = CONFIGURATION,
) -> Keeper:
    """Start a scheduler that is kept alive; does not wait for it.

    Parameters
    ----------
    folder : Path
        Its output goes to ``<folder>/logs``.
    host, port : str, int
        Where it listens; the same when it is started again.
    dashboard_port : int
        On the loopback.
    flags : sequence of str
        Its certificates; with them it talks TLS only.
    environment : mapping
        Added to what workers may see of this process's: their code may ask the scheduler for its own.
    """
    options = ["--host", host, "--port", str(port)]
    options += ["--dashboard-address", f"{LOOPBACK}:{dashboard_port}", "--dashboard-prefix", DASHBOARD_PREFIX]
    if flags:
        options += ["--protocol", "tls", *flags]
    command = [sys.executable, "-m", "binworks.deploy.dask", "scheduler", *options]
    inherited = scrubbed(os.environ, ("PYTHONPATH",))
    keeper = Keeper("scheduler", command, folder / "logs", environment, inherited=inherited)
    keeper.start()
    return keeper
