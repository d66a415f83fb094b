"""Whether what the service needs is there: database, store, space, scheduler, driver. Looked at now and then only.

Anybody may ask, so that no answer names a folder, an address or a person.
"""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from binworks.deploy.direct import ask
from binworks.deploy.scheduler import DASHBOARD_PREFIX
from binworks.service import certificates, lease, workforce
from binworks.service.database import Database
from binworks.service.database import lease as leases
from binworks.service.folders import Folder
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.tensors.errors import BinworksError, TransientError

GOOD_SECONDS = 2.0
BAD_SECONDS = 0.25
"""What is not there is looked for again soon: somebody waits for it."""
CONNECT_SECONDS = 1.0
HEALTH = f"{DASHBOARD_PREFIX}/health"
MOST_FREE, PART_FREE = 64 << 20, 0.01
"""A disk is full below so many bytes; a small one, below this part of it."""

log = logging.getLogger(__name__)

Name = Literal["database", "store", "space", "scheduler", "driver"]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True)
class Space:
    """Bytes of a disk."""

    free: int
    total: int

    @property
    def full(self) -> bool:
        """Whether hardly anything is left."""
        return self.free < min(MOST_FREE, PART_FREE * self.total)


class Checks:
    """What is there.

    Parameters
    ----------
    settings : Settings
    database : Database
    store : Store
    """

    def __init__(self, settings: Settings, database: Database, store: Store) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._looks: dict[Name, Callable[[], None]] = {
            "database": self._look_at_database,
            "store": self._look_at_store,
            "space": self._look_at_space,
            "scheduler": self._look_at_scheduler,
            "driver": self._look_at_driver,
        }
        self._locks = {name: threading.Lock() for name in NAMES}
        self._known: dict[Name, tuple[float, BinworksError | None]] = {}

    def failed(self, names: Sequence[Name] = NAMES) -> dict[Name, BinworksError]:
        """Return what is not there, and why; a good answer is two seconds old at most."""
        found = {name: self._ask(name) for name in names}
        return {name: error for name, error in found.items() if error is not None}

    def lease_seconds(self) -> float:
        """Return for how long the driver's lease holds; negative: nobody has one.

        Raises
        ------
        TransientError
            Code ``no-database``.
        """
        try:
            with self._database.read() as connection:
                query = select(leases.c.expires).where(leases.c.name == lease.NAME)
                expires: float = connection.execute(query).scalar() or 0.0
        except OperationalError as error:
            raise _no_database() from error
        return expires - time.time()

    def space(self) -> dict[str, Space]:
        """Return what is free where the home is, and the store if it is a folder."""
        places = {"home": self._settings.home}
        if isinstance(self._store.objects, Folder):
            places["store"] = self._store.objects.root
        return {name: _space(path) for name, path in places.items()}

    def workers(self) -> workforce.Status | None:
        """Return how the workers are, if `binworks up` keeps them."""
        return workforce.read(self._settings.home)

    def certificates(self) -> dict[str, float]:
        """Return for how many seconds each certificate of the Dask parts holds."""
        return certificates.remaining(self._settings.tls, time.time())

    def _ask(self, name: Name) -> BinworksError | None:
        with self._locks[name]:  # many who ask at once look once
            until, before = self._known.get(name, (0.0, None))
            error = before
            if time.monotonic() >= until:
                error = self._look(name)
                if error is not None and before is None:
                    log.warning("%s: %s", error.message, error.__cause__ or error.hint)
                self._known[name] = (time.monotonic() + (BAD_SECONDS if error else GOOD_SECONDS), error)
        return error

    def _look(self, name: Name) -> BinworksError | None:
        try:
            self._looks[name]()
        except BinworksError as error:
            return error
        return None

    def _look_at_database(self) -> None:
        self.lease_seconds()

    def _look_at_store(self) -> None:
        try:
            self._store.probe()
        except BinworksError as error:  # it may name a bucket or a folder
            raise TransientError(
                "The store does not take what is written.",
                code="no-store",
                hint="The service's log says why.",
            ) from error

    def _look_at_space(self) -> None:
        for name, space in self.space().items():
            if space.full:
                raise TransientError(
                    f"The disk of the {name} is full: {space.free} of {space.total} bytes are free.",
                    code="disk-full",
                    hint="Workers wait until there is space; `binworks gc` says what could be removed.",
                )

    def _look_at_scheduler(self) -> None:
        address, dashboard = urlsplit(self._settings.scheduler), self._settings.dashboard
        try:
            if address.scheme == "tls" and dashboard:
                # whoever comes without a certificate leaves a warning in the scheduler's log at its other port
                ask(f"{dashboard}{HEALTH}", CONNECT_SECONDS).close()
            else:
                socket.create_connection(
                    (address.hostname or "", address.port or 8786), CONNECT_SECONDS
                ).close()
        except (OSError, HTTPException) as error:
            raise TransientError(
                "The scheduler does not answer.",
                code="no-scheduler",
                hint="Jobs go on when it is there again.",
            ) from error

    def _look_at_driver(self) -> None:
        if self.lease_seconds() <= 0:
            raise TransientError(
                "No driver is at work.", code="no-driver", hint="Jobs go on when one is started."
            )


def _space(path: Path) -> Space:
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        raise TransientError("The disk cannot be asked.", code="store-read-failed") from error
    return Space(usage.free, usage.total)


def _no_database() -> TransientError:
    return TransientError(
        "The job database does not answer.", code="no-database", hint="Try again in a moment."
    )
