"""``binworks up``: API, driver, scheduler and workers on this machine, kept alive until a signal comes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from binworks.deploy.scheduler import DASHBOARD_PREFIX, LOOPBACK
from binworks.deploy.site import BackendName, Site
from binworks.service import logs
from binworks.service.addresses import is_loopback
from binworks.service.running import TOKEN_FILE, Service, place_of
from binworks.service.settings import DATABASE_VARIABLE, FILE_NAME, FROM_ENVIRONMENT, Settings
from binworks.service.store import Store
from binworks.tensors.errors import RequestError

RUN_FILE = "service.json"
LOCK_FILE = "lock"
DASHBOARD_PORT = 8787
LOCAL = Site()


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
        except OSError as error:
            raise RequestError(
                f"Files cannot be locked in the home: {error.strerror}.",
                code="home-not-writable",
                where=str(home),
                hint="Two services in one home would harm each other: put it on a file system with locks.",
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


def configure(home: Path, given: dict[str, Any], port: int, site: Site = LOCAL) -> Settings:
    """Return the settings of a home: those it had, changed by those given, with ports that are free now.

    The scheduler of a cluster keeps its port: workers that are under way find it again after a restart.

    Raises
    ------
    RequestError
        If a port is taken, or a file that is named does not exist.
    """
    before = Settings.load(home) if (home / FILE_NAME).exists() else Settings(home=home)
    changes = {name: value for name, value in given.items() if value}
    if os.environ.get(DATABASE_VARIABLE):
        changes["database"] = FROM_ENVIRONMENT
    for path in [*changes.get("catalogues", ()), *changes.get("corrections", ())]:
        if not path.exists():
            raise RequestError("There is no such file or folder.", code="no-such-file", where=str(path))
    try:
        dashboard = choose_port(LOOPBACK, DASHBOARD_PORT)
    except RequestError:
        dashboard = choose_port(LOOPBACK, 0)
    scheduler = choose_port(*place_of(site))
    return before.model_copy(
        update={
            **changes,
            "home": home,
            "port": choose_port(changes.get("host", before.host), port),
            "scheduler": f"tcp://{LOOPBACK}:{scheduler}",  # the back end says what comes before the port
            "dashboard": f"http://{LOOPBACK}:{dashboard}",  # it lets everybody in
        }
    )


def command(
    home: Annotated[Path, typer.Option(help="Folder of the service: job database, store, logs, token.")],
    catalogue: Annotated[list[Path] | None, typer.Option(help="File that lists data sets.")] = None,
    corrections: Annotated[list[Path] | None, typer.Option(help="Folder of correction sets.")] = None,
    data_root: Annotated[list[str] | None, typer.Option(help="Folder that jobs may read.")] = None,
    backend: Annotated[
        BackendName | None, typer.Option(help="Where workers run; default: the site file's, or this machine.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Site file: scheduler, workers, batch system.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Workers of one thread; default: the site file's, or one a processor."),
    ] = None,
    memory: Annotated[
        str, typer.Option(help="Limit of a worker on this machine, e.g. 4GB; auto: its share.")
    ] = "auto",
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
    """Start a service on this machine and keep it alive; Ctrl-C ends it.

    Workers run on this machine, or as batch jobs:

    binworks up --home binworks-home --catalogue catalogue.json

    binworks up --home binworks-home --backend slurm --config site.yaml
    """
    home = home.absolute()
    site = site_of(config, backend, workers)
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
        service = Service(configure(home, given, port, site), site, memory=memory)
        logs.to_file(service.settings.logs / "up.log")
        serve(service, stop, as_json=as_json)


def serve(service: Service, stop: threading.Event, *, as_json: bool) -> None:
    """Run a service until it shall stop, and say where it is."""
    settings, run_file = service.settings, service.settings.home / RUN_FILE
    addresses = {
        "url": settings.url,
        "dashboard": f"{settings.url}{DASHBOARD_PREFIX}/status",
        "home": str(settings.home),
        "pid": os.getpid(),
    }
    with service:
        run_file.write_text(json.dumps(addresses) + "\n")
        try:
            warn(settings)
            tell(settings, addresses, as_json=as_json, new=service.token_is_new)
            stop.wait()
        finally:
            run_file.unlink(missing_ok=True)


def site_of(config: Path | None, backend: BackendName | None, workers: int | None) -> Site:
    """Return the site file's content, changed by what the command line says.

    Raises
    ------
    RequestError
        Code ``no-such-file`` or ``bad-site``.
    """
    site = LOCAL if config is None else Site.load(config)
    changes: dict[str, Any] = {} if backend is None else {"backend": backend}
    if workers is not None:
        changes["workers"] = site.workers.model_copy(
            update={"count": workers, "minimum": None, "maximum": None}
        )
    return site.model_copy(update=changes)


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
