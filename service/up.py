"""``binworks up``: API, driver, scheduler and workers on this machine, kept alive until a signal comes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console

from binworks.deploy.keeper import Keeper, stop_all
from binworks.deploy.local import DASHBOARD_PREFIX, LOOPBACK, LocalBackend
from binworks.service import tokens
from binworks.service.addresses import is_loopback
from binworks.service.database import Database
from binworks.service.environment import WORKER
from binworks.service.settings import FILE_NAME, Settings
from binworks.service.store import Store
from binworks.tensors.errors import RequestError, TransientError

READY_SECONDS = 90.0
HOPELESS_RESTARTS = 3
RUN_FILE = "service.json"
TOKEN_FILE = "token"  # noqa: S105  a file's name
LOCK_FILE = "lock"
OWNER = "admin"
DASHBOARD_PORT = 8787


class Service:
    """All processes of a service on this machine; ``with Service(settings, workers=2): ...``.

    Parameters
    ----------
    settings : Settings
        Saved into the home when it starts; scheduler and dashboard are started on the ports named there.
    workers : int
        Of one thread each.
    memory : str
        Limit of a worker, as Dask writes it.
    """

    def __init__(self, settings: Settings, *, workers: int, memory: str = "auto") -> None:
        self.settings = settings
        self.workers = workers
        self.backend = LocalBackend(
            settings.home,
            port=urlsplit(settings.scheduler).port or 0,
            dashboard_port=urlsplit(settings.dashboard or "").port or 0,
            memory=memory,
            preload="binworks.service.preload",
            environment=WORKER,
        )
        self.token_is_new = False
        self.driver = self._keeper("driver", "binworks.service.driver")
        self.api = self._keeper("api", "binworks.api")

    def __enter__(self) -> Service:
        """Start all and wait until they are ready.

        Raises
        ------
        TransientError
            Code ``not-ready`` if that takes too long, with the folder whose files may say why.
        """
        self.settings.save()
        self.token_is_new = ensure_token(self.settings)
        try:
            self.backend.start()
            self.backend.scale(self.workers)
            self.driver.start()
            self.api.start()
            self._wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all; returns when they have ended."""
        stop_all([keeper for keeper in (self.driver, self.api) if keeper.ident is not None])
        self.backend.close()

    def _keeper(self, name: str, module: str) -> Keeper:
        command = [sys.executable, "-m", module, "--home", str(self.settings.home)]
        return Keeper(name, command, self.settings.logs, {"PYTHONSAFEPATH": "1"})

    def _wait(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while not (_answers(f"{self.settings.url}/readyz") and self.driver.alive):
            failing = [keeper for keeper in (self.api, self.driver) if keeper.restarts >= HOPELESS_RESTARTS]
            if failing or time.monotonic() > end:
                what = " and ".join(k.process_name for k in failing) or "the service"
                raise TransientError(
                    f"{what} did not start.",
                    code="not-ready",
                    where=str(self.settings.logs),
                    hint=f"See {self.api.output.name} and {self.driver.output.name} there.",
                )
            time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  our own http address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def ensure_token(settings: Settings) -> bool:
    """Make the admin's token and its file if there is none that is valid; return whether it was made."""
    path = settings.home / TOKEN_FILE
    database = Database(settings.database_url)
    try:
        database.create_tables()
        if path.exists() and tokens.check(database, path.read_text().strip(), now=time.time()):
            return False
        secret = tokens.create(
            database, OWNER, tokens.SCOPES["admin"], now=time.time(), label="made by binworks up"
        )
    finally:
        database.close()
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
    draft.replace(path)
    return True


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Make the folder and hold it: one service a home.

    Raises
    ------
    RequestError
        Code ``home-not-writable`` or ``already-running``.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / LOCK_FILE).open("w")
    except OSError as error:
        raise RequestError(
            f"The home cannot be written: {error.strerror}.", code="home-not-writable", where=str(home)
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(
                "A service runs in this home already.",
                code="already-running",
                where=str(home),
                hint=f"Its address is in {home / RUN_FILE}; stop it, or choose another --home.",
            ) from None
        yield


def choose_port(host: str, port: int) -> int:
    """Return the port if it is free; any free one for 0.

    Raises
    ------
    RequestError
        Code ``port-in-use``.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RequestError(
                f"Port {port} of {host} cannot be used: {error.strerror}.",
                code="port-in-use",
                where=f"{host}:{port}",
                hint="Choose another with --port; 0 takes any that is free.",
            ) from None
        free: int = probe.getsockname()[1]
    return free


def checked_store(given: str) -> str:
    """Return the address of a store that can be written, absolute.

    Raises
    ------
    BinworksError
        If it cannot.
    """
    address = given if "://" in given else Path(given).absolute().as_uri()
    Store.open(address).probe()
    return address


def configure(home: Path, given: dict[str, Any], port: int) -> Settings:
    """Return the settings of a home: those it had, changed by those given, with ports that are free now.

    Raises
    ------
    RequestError
        If a port is taken, or a file that is named does not exist.
    """
    before = Settings.load(home) if (home / FILE_NAME).exists() else Settings(home=home)
    changes = {name: value for name, value in given.items() if value}
    for path in [*changes.get("catalogues", ()), *changes.get("corrections", ())]:
        if not path.exists():
            raise RequestError("There is no such file or folder.", code="no-such-file", where=str(path))
    try:
        dashboard = choose_port(LOOPBACK, DASHBOARD_PORT)
    except RequestError:
        dashboard = choose_port(LOOPBACK, 0)
    return before.model_copy(
        update={
            **changes,
            "home": home,
            "port": choose_port(changes.get("host", before.host), port),
            "scheduler": f"tcp://{LOOPBACK}:{choose_port(LOOPBACK, 0)}",  # both let everybody in
            "dashboard": f"http://{LOOPBACK}:{dashboard}",
        }
    )


def command(
    home: Annotated[Path, typer.Option(help="Folder of the service: job database, store, logs, token.")],
    catalogue: Annotated[list[Path] | None, typer.Option(help="File that lists data sets.")] = None,
    corrections: Annotated[list[Path] | None, typer.Option(help="Folder of correction sets.")] = None,
    data_root: Annotated[list[str] | None, typer.Option(help="Folder that jobs may read.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers of one thread.")] = os.cpu_count() or 1,
    memory: Annotated[str, typer.Option(help="Limit of a worker, e.g. 4GB; auto: its share.")] = "auto",
    host: Annotated[
        str | None,
        typer.Option(
            help="Address on which the REST service listens; default: the loopback, for this machine alone."
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the REST service; 0: any.")] = 8080,
    store: Annotated[
        str | None,
        typer.Option(help="Address of the store: a folder or s3://bucket/prefix; default: in the home."),
    ] = None,
    unit_events: Annotated[int | None, typer.Option(min=1, help="Events of a unit of work.")] = None,
    snapshot_seconds: Annotated[
        float | None, typer.Option(help="Between snapshots of a running job.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one line of JSON.")] = False,
) -> None:
    """Start a service on this machine and keep it alive; Ctrl-C ends it."""
    home = home.absolute()
    given = {
        "catalogues": tuple(path.absolute() for path in catalogue or ()),
        "corrections": tuple(path.absolute() for path in corrections or ()),
        "data_roots": tuple(data_root or ()),
        "store": None if store is None else checked_store(store),
        "host": host,
        "unit_events": unit_events,
        "snapshot_seconds": snapshot_seconds,
    }
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with locked(home):
        settings = configure(home, given, port)
        with Service(settings, workers=workers, memory=memory) as service:
            run_file = home / RUN_FILE
            addresses = {
                "url": settings.url,
                "dashboard": f"{settings.url}{DASHBOARD_PREFIX}/status",
                "home": str(home),
                "pid": os.getpid(),
            }
            run_file.write_text(json.dumps(addresses) + "\n")
            try:
                warn(settings)
                tell(settings, addresses, as_json=as_json, new=service.token_is_new)
                stop.wait()
            finally:
                run_file.unlink(missing_ok=True)


def warn(settings: Settings) -> None:
    """Say what a service that others reach needs."""
    if not is_loopback(settings.host):
        typer.secho(
            f"Others can reach {settings.host}, and tokens and results go over the line as they are: put TLS in "
            "front, and name the service's names in its setting `hosts`.",
            err=True,
            fg=typer.colors.YELLOW,
        )


def tell(settings: Settings, addresses: dict[str, Any], *, as_json: bool, new: bool) -> None:
    """Say where the service is and how one is let in.

    Parameters
    ----------
    new : bool
        Whether the admin's token was just made: then a terminal shows it, once.
    """
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        console.out(json.dumps(addresses))
        return
    console.print(f"[bold]binworks is up[/] at {settings.url}  (docs: {settings.url}/docs)")
    console.print(f"Dask dashboard: {addresses['dashboard']}")
    token = settings.home / TOKEN_FILE
    if new and sys.stdout.isatty():  # a file or a log would keep it
        console.print(f"Admin token, shown this once: {token.read_text().strip()}")
    console.print(f"To sign in to the page: the token in {token}")
    console.print("In another terminal, to be let in:")
    console.print(f"  export BINWORKS_HOME={settings.home}", markup=False)
    console.print("  binworks submit --help", markup=False)
    console.print("Ctrl-C ends it; jobs go on when it is started again.")
