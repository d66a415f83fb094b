"""All processes of a service that `binworks up` runs: API, driver, and a back end with scheduler and workers."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from binworks.deploy.base import Backend
from binworks.deploy.batch import reachable
from binworks.deploy.direct import ask
from binworks.deploy.files import write
from binworks.deploy.keeper import Keeper, stop_all
from binworks.deploy.local import LocalBackend
from binworks.deploy.scheduler import LOOPBACK
from binworks.deploy.site import Site
from binworks.deploy.tls import Certificates
from binworks.service import credentials, tokens
from binworks.service.addresses import is_loopback
from binworks.service.database import Database
from binworks.service.environment import WORKER
from binworks.service.settings import Settings
from binworks.service.workforce import Bounds, Workforce
from binworks.tensors.errors import RequestError, TransientError

READY_SECONDS = 90.0
HOPELESS_RESTARTS = 3
TLS_FOLDER = "tls"
BUCKET_VARIABLES = "AWS_*"
PRELOAD = "binworks.service.preload"
TOKEN_FILE = "token"  # noqa: S105  a file's name
OWNER = "admin"


def bounds_of(site: Site) -> Bounds:
    """Return how many workers a site file asks for; on this machine alone, one a processor unless it says so.

    Raises
    ------
    RequestError
        Code ``bad-site`` if it does not say.
    """
    workers = site.workers
    if workers.maximum is not None:
        return Bounds(workers.minimum or 0, workers.maximum)
    if workers.count is None and site.backend != "local":
        raise RequestError(
            "How many workers?",
            code="bad-site",
            where="workers",
            hint="Give --workers, or in the site file workers.count, or workers.minimum and workers.maximum.",
        )
    count = workers.count if workers.count is not None else os.cpu_count() or 1
    return Bounds(count, count)


def place_of(site: Site) -> tuple[str, int]:
    """Return where the scheduler of a site listens; port 0: on any that is free.

    Raises
    ------
    RequestError
        Code ``bad-site`` if it is not clear.
    """
    place = site.scheduler
    if site.backend == "local" and place.host is None and place.interface is None:
        return LOOPBACK, 0
    return reachable(place), place.port


def backend_of(settings: Settings, site: Site, memory: str) -> Backend:
    """Return the back end that a site file names; nothing is started yet.

    Raises
    ------
    RequestError
        Code ``missing-extra`` if dask-jobqueue is not installed.
    """
    environment = {**WORKER, **credentials.environment(settings)}
    port = urlsplit(settings.scheduler).port or 0
    dashboard = urlsplit(settings.dashboard or "").port or 0
    if site.backend == "local":
        workers = site.workers
        return LocalBackend(
            settings.home,
            host=place_of(site)[0],
            port=port,
            dashboard_port=dashboard,
            memory=memory,
            preload=PRELOAD,
            environment=environment,
            keep=(*workers.keep, BUCKET_VARIABLES) if settings.store.startswith("s3://") else workers.keep,
            tls=settings.tls,
            lifetime=workers.lifetime,
            stagger=workers.spread,
            grace=workers.grace,
        )
    assert settings.tls is not None  # noqa: S101  see `secured`
    return _batch(site)(
        settings.home,
        site,
        port=port,
        dashboard_port=dashboard,
        preload=PRELOAD,
        environment=environment,
        tls=settings.tls,
    )


def _batch(site: Site) -> Callable[..., Backend]:
    """Return the class of a batch system's back end.

    Raises
    ------
    RequestError
        Code ``missing-extra``.
    """
    module, name = {
        "slurm": ("binworks.deploy.slurm", "SlurmBackend"),
        "htcondor": ("binworks.deploy.htcondor", "HTCondorBackend"),
    }[site.backend]
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise RequestError(
            "Batch systems need dask-jobqueue, which is not installed.",
            code="missing-extra",
            hint="pip install 'binworks[batch]'",
        )
    found: Callable[..., Backend] = getattr(importlib.import_module(module), name)
    return found


def secured(settings: Settings, site: Site) -> Settings:
    """Return settings with certificates if the scheduler is reached from other machines; made if there are none.

    Raises
    ------
    RequestError
        If they cannot be made, those that are named are not there, or have expired.
    """
    alone = site.backend == "local" and is_loopback(place_of(site)[0])
    if settings.tls is None and alone:
        return settings
    folder = Certificates.ensure(settings.tls or settings.home / TLS_FOLDER).folder
    return settings.model_copy(update={"tls": folder})


class Service:
    """All processes of a service: API and driver on this machine, scheduler and workers by a back end.

    Parameters
    ----------
    settings : Settings
        Saved into the home when it starts; scheduler and dashboard are started on the ports named there.
    site : Site
        Where workers run, and how many.
    memory : str
        Limit of a worker on this machine, as Dask writes it.

    Raises
    ------
    RequestError
        If the site file lacks something, or what the back end needs is not installed.
    """

    def __init__(self, settings: Settings, site: Site, *, memory: str = "auto") -> None:
        self.site = site
        bounds, settings = bounds_of(site), secured(settings, site)
        self.backend = backend_of(settings, site, memory)
        self.settings = settings.model_copy(update={"scheduler": self.backend.address()})
        self.workforce = Workforce(self.settings, self.backend, bounds, site.workers.idle)
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
            self.workforce.start()
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
        self.workforce.stop()
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
        with ask(url) as answer:
            return bool(answer.status == 200)
    except OSError:
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
    write(path, secret)
    return True
