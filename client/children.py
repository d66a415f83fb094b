"""Other commands of binworks run as processes of their own, and always ended: the demo's samples and its service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import binworks
from binworks.client.address import RUN_FILE
from binworks.client.client import Client
from binworks.tensors.errors import InputError, TransientError

BINWORKS = (sys.executable, "-c", "from binworks.client.cli import main; main()")
MADE_WITH = "samples.json"
START_SECONDS, STOP_SECONDS = 120.0, 30.0
LAST_LINES = 12


@dataclass(frozen=True)
class RunningService:
    """A service on this machine: a client of it, its addresses, its home and the id of its main process."""

    client: Client
    url: str
    dashboard: str
    home: Path
    pid: int


def sample(folder: Path, *, events: int, seed: int, jobs: int, quiet: bool = False) -> bool:
    """Simulate the demo's collisions by ``binworks sample demo``; not if they are there with the same parameters.

    Parameters
    ----------
    folder : Path
        Gets data, corrections, catalogue and truth.
    events : int
        W -> mu nu events in the data.
    seed : int
    jobs : int
        Processes.
    quiet : bool
        Show no progress.

    Returns
    -------
    bool
        Whether they had to be made.

    Raises
    ------
    InputError
        Code ``sample-failed``.
    """
    made_with = {"version": binworks.__version__, "events": events, "seed": seed}
    note = folder / MADE_WITH
    if note.exists() and json.loads(note.read_bytes()) == made_with:
        return False
    note.unlink(missing_ok=True)
    options = {"--out": folder, "--events": events, "--seed": seed, "--jobs": jobs}
    words = [str(word) for pair in options.items() for word in pair] + (["--json"] if quiet else [])
    command = [*BINWORKS, "sample", "demo", *words]
    output = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(command, stdout=output, start_new_session=True)  # noqa: S603  our own command
    with _ended(process):
        if process.wait() != 0:
            message = f"The simulation ended with code {process.returncode}; its messages are above."
            raise InputError(message, code="sample-failed", where=str(folder))
    note.write_text(json.dumps(made_with) + "\n")
    return True


@contextmanager
def running_service(home: Path, *options: object, keep: bool = False) -> Iterator[RunningService]:
    """Run ``binworks up`` on a free port, wait until it is ready, and end it on the way out.

    Parameters
    ----------
    home : Path
        Of the service.
    *options
        More words of its command line, for example ``"--workers", 2``.
    keep : bool
        Leave it running, unless something goes wrong.

    Raises
    ------
    TransientError
        Code ``not-started``, with the end of its log.
    """
    home.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in ("up", "--home", home, "--port", 0, *options)]
    log = home / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  our own command
            [*BINWORKS, *words], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    with _ended(process, keep=keep):
        run = _wait_for(process, home, log)
        with Client(home=home) as client:
            yield RunningService(client, run["url"], run["dashboard"], home, process.pid)


def _wait_for(process: subprocess.Popen[bytes], home: Path, log: Path) -> dict[str, Any]:
    """Return what the service says of itself when it is ready."""
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            run: dict[str, Any] = json.loads((home / RUN_FILE).read_bytes())
        except (OSError, ValueError):  # not there yet, or half written
            run = {}
        if run.get("pid") == process.pid:  # not that of an earlier one
            return run
        time.sleep(0.1)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
    raise TransientError(f"The service did not start.\n{last}", code="not-started", where=str(log))


@contextmanager
def _ended(process: subprocess.Popen[bytes], *, keep: bool = False) -> Iterator[None]:
    """End a process on the way out, and all that it started.

    It leads a session of its own: a Ctrl-C on the terminal is for us, who then end it in order.
    """
    try:
        yield
    except BaseException:
        keep = False
        raise
    finally:
        if not keep and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if not keep:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
