"""Back ends whose workers are jobs of a batch system: what they share.

A thread looks at the queue every few seconds and brings it to what is wanted. What to do is decided in `reconcile`;
how to say it to Slurm or HTCondor is theirs: a `Queue`.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Protocol

import psutil

from binworks.deploy.base import ClusterStatus
from binworks.deploy.direct import ask
from binworks.deploy.files import write
from binworks.deploy.keeper import Keeper
from binworks.deploy.reconcile import Entry, JobState, Reconciler
from binworks.deploy.scheduler import CONFIGURATION, DASHBOARD_PREFIX, LOOPBACK, address, scheduler
from binworks.deploy.site import SchedulerPart, Site
from binworks.deploy.tls import ENVIRONMENT as ENCRYPTED
from binworks.deploy.tls import Certificates
from binworks.tensors.code import source_digest
from binworks.tensors.errors import BinworksError, RequestError, TransientError

COMMAND_SECONDS = 60.0
CLOSE_SECONDS = 45.0
CLOSE_POLL_SECONDS = 0.5
WORKERS_SHARE = 0.9
"""Of a job's memory: the rest is for the processes that watch over the workers."""
ID_FILE = "cluster-id"
PLACE_FILE = "cluster-home"
DIGEST_LETTERS = 12
ENVIRONMENT_FILE = "cluster-environment"
ANY_TIME = {
    "workers": {"count", "minimum", "maximum", "idle"},
    "slurm": {"poll_seconds"},
    "htcondor": {"poll_seconds"},
}
"""What a site file says that makes no difference to a job."""
MARGIN_SECONDS = 60
"""Between the walltime and the moment at which a worker host has left, however slowly it started."""

log = logging.getLogger(__name__)


class Queue(Protocol):
    """What a batch system must be able to do with the jobs of one service.

    Each method raises TransientError, with the batch system's own words, if that does not answer or refuses.
    """

    def submit(self, count: int) -> Sequence[str]:
        """Submit jobs and return their names; they may be fewer than asked for."""
        ...

    def jobs(self) -> Mapping[str, Entry]:
        """Return all jobs of this service. A queue that cannot be asked is an error, never an empty answer."""
        ...

    def drain(self, names: Sequence[str]) -> None:
        """Let jobs finish what they are at, and end."""
        ...

    def remove(self, names: Sequence[str]) -> None:
        """End jobs at once; those that are gone do not matter."""
        ...


@dataclass(frozen=True)
class WorkerJob:
    """What each batch job runs: a worker host.

    Parameters
    ----------
    name : str
        Of all jobs of this service, and of no others.
    scheduler : str
        Address.
    home, logs : Path
        Of the service; folder for the jobs' output.
    site : Site
        Sizes, times and places.
    tls : tuple of str
        Options that name the workers' certificates.
    environment : mapping
        What workers need beside what the batch system gives.
    preload : str or None
        Module that each worker imports before it takes work.
    """

    name: str
    scheduler: str
    home: Path
    logs: Path
    site: Site
    tls: tuple[str, ...]
    environment: Mapping[str, str]
    preload: str | None

    @property
    def environment_file(self) -> Path:
        """Where `exports` are written for the jobs: batch systems show scripts and descriptions to others."""
        return self.home / ENVIRONMENT_FILE

    @cached_property
    def digest(self) -> str:
        """What differs if a job that was submitted earlier would not do what one does now."""
        authority = Path(self.tls[1]) if len(self.tls) > 1 else None
        signed = sha256(authority.read_bytes()).hexdigest() if authority and authority.exists() else None
        site = self.site.model_dump_json(exclude=ANY_TIME)
        parts = [self.options(), self.exports(), site, signed, source_digest()]
        return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:DIGEST_LETTERS]

    def times(self) -> tuple[int, int]:
        """Return the seconds after which a worker host leaves, and by how many they differ.

        It has left at the walltime, and not all of the hosts that began together leave together.
        """
        workers = self.site.workers
        left = workers.walltime - workers.grace
        longest = left - min(MARGIN_SECONDS, left // 2)
        spread = workers.spread if workers.lifetime is not None else workers.stagger or longest // 10
        spread = min(spread, longest // 2)
        return max(1, min(workers.lifetime or longest, longest - spread)), spread

    def arguments(self) -> list[str]:
        """Return the options of the worker host that dask-jobqueue does not give itself."""
        workers = self.site.workers
        lifetime, stagger = self.times()
        options: list[tuple[str, object]] = [
            ("--nworkers", workers.processes),
            ("--grace", workers.grace),
            ("--lifetime", lifetime),
            ("--stagger", stagger),
            ("--preload", self.preload),
            ("--host", workers.host),
            ("--interface", workers.interface),
            ("--ports", workers.ports),
            *(("--keep", name) for name in (*self.environment, *workers.keep)),
        ]
        given = [text for name, value in options if value is not None for text in (name, str(value))]
        return [*given, *self.tls]

    def exports(self) -> dict[str, str]:
        """Return the environment that the job is given, with the values that kept variables have here."""
        kept = {name: os.environ[name] for name in self.site.workers.keep if name in os.environ}
        return {**kept, **self.environment}

    def write_environment(self) -> None:
        """Write what `exports` returns as lines of shell, for the owner alone."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(self.exports().items())]
        write(self.environment_file, "\n".join(lines))

    def prologue(self) -> list[str]:
        """Return lines of shell that come before the worker host: the site's own, and a safe place for kernels."""
        workers = self.site.workers
        if workers.kernel_cache is not None:
            return [
                *workers.prologue,
                f"export BINWORKS_KERNEL_CACHE={shlex.quote(str(workers.kernel_cache))}",
            ]
        # scratch is often open to all users of a node, and whoever can write compiled kernels there runs code here
        cache = f'cache={shlex.quote(str(workers.scratch))}/binworks-"$(id -u)"'
        own = 'mkdir -m 700 "$cache" 2>/dev/null || { [ -O "$cache" ] && [ ! -L "$cache" ]; } || cache="$(mktemp -d)"'
        return [*workers.prologue, cache, own, 'export BINWORKS_KERNEL_CACHE="$cache/kernels"']

    def options(self) -> dict[str, Any]:
        """Return what the Job classes of dask-jobqueue take: the batch shell becomes the worker host."""
        workers = self.site.workers
        return {
            "scheduler": self.scheduler,
            "job_name": self.name,
            "cores": workers.processes,
            "processes": workers.processes,
            "memory": f"{int(workers.memory * WORKERS_SHARE)}B",
            "python": f"exec {shlex.quote(str(workers.python or sys.executable))}",
            "worker_command": "binworks.deploy.worker",
            "worker_extra_args": [shlex.quote(text) for text in self.arguments()],
            "job_script_prologue": self.prologue(),
            "death_timeout": workers.patience,
            "local_directory": shlex.quote(str(workers.scratch)),
        }


class BatchBackend(ABC):
    """A scheduler on this machine and workers in batch jobs; see `binworks.deploy.base.Backend`.

    Jobs that die are replaced, later and later if they die at once. When this process dies, the jobs live on for
    ``workers.patience`` seconds, and the next one with the same folder takes them over.

    Parameters
    ----------
    folder : Path
        The service's home; workers must see it. Logs go to ``<folder>/logs``.
    site : Site
        The batch system and the size of its jobs.
    port, dashboard_port : int
        Of the scheduler. They stay the same when it is started again.
    preload : str or None
        Module that each worker imports before it takes work.
    environment : mapping
        Added to that of the processes.
    tls : Path
        Folder of certificates.
    """

    programs: ClassVar[tuple[str, ...]]
    """Without these commands the batch system cannot be used."""

    def __init__(
        self,
        folder: Path,
        site: Site,
        *,
        port: int,
        dashboard_port: int,
        preload: str | None,
        environment: Mapping[str, str],
        tls: Path,
    ) -> None:
        self.folder = folder
        self.site = site
        self.host = reachable(site.scheduler)
        self.port = port
        self.dashboard_port = dashboard_port
        self.preload = preload
        self.environment = {**CONFIGURATION, **ENCRYPTED, **environment}
        self.certificates = Certificates(tls)
        self.scheduler: Keeper | None = None
        self.queue: Queue | None = None
        self._reconciler = self._new_reconciler()
        self._silence: str | None = None
        self._lock = threading.Lock()
        self._scaled = threading.Event()
        """Before it is known what is wanted, jobs of an earlier process are left alone."""
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def open_queue(self, job: WorkerJob) -> Queue:
        """Return the queue that runs this job."""

    @property
    @abstractmethod
    def poll_seconds(self) -> float:
        """Time between two looks at the queue."""

    def start(self) -> None:
        """Start the scheduler and look after the queue.

        Raises
        ------
        RequestError
            Code ``no-batch-system`` if its commands are not installed here.
        """
        require(self.programs)
        job = self._job()
        job.write_environment()
        self.queue = self.open_queue(job)
        self._reconciler = self._new_reconciler()
        self._closing.clear()
        self._scaled.clear()
        self.scheduler = scheduler(
            self.folder,
            host=self.host,
            port=self.port,
            dashboard_port=self.dashboard_port,
            flags=self.certificates.flags("scheduler"),
            environment=self.environment,
        )
        self._thread = threading.Thread(target=self._run, name="batch queue", daemon=True)
        self._thread.start()

    def scale(self, workers: int) -> None:
        """Ask for this many workers; the last batch job may bring some more."""
        jobs = -(-workers // self.site.workers.processes)
        with self._lock:
            if jobs == self._reconciler.wanted and self._scaled.is_set():
                return
            self._reconciler.wanted = jobs
        self._scaled.set()
        self._wake.set()

    def address(self) -> str:
        """Return the address of the scheduler."""
        return address(self.host, self.port, tls=True)

    def status(self) -> ClusterStatus:
        """Return how many workers the running jobs hold, and why there are not more."""
        size = self.site.workers.processes
        with self._lock:
            explained = self._reconciler.explain(time.monotonic())
            return ClusterStatus(
                scheduler=self.scheduler is not None and self.scheduler.alive,
                wanted=self._reconciler.wanted * size,
                alive=self._reconciler.running * size,
                restarts=self._reconciler.replaced + (self.scheduler.restarts if self.scheduler else 0),
                reason="; ".join(reason for reason in (self._silence, explained) if reason) or None,
            )

    def close(self) -> None:
        """End the jobs, then the scheduler."""
        if self._thread is None:
            return
        self._closing.set()
        self._wake.set()
        self._thread.join()
        self._thread = None
        try:
            self._empty()
        except TransientError as error:
            log.warning("jobs may be left in the queue, and end without a scheduler: %s", error)
        with self._lock:
            self._reconciler = self._new_reconciler()
        if self.scheduler is not None:
            self.scheduler.stop()
            self.scheduler = None

    def _job(self) -> WorkerJob:
        return WorkerJob(
            name=f"binworks-{self._read_id()}",
            scheduler=self.address(),
            home=self.folder,
            logs=self.folder / "logs",
            site=self.site,
            tls=tuple(self.certificates.flags("worker")),
            environment=self.environment,
            preload=self.preload,
        )

    def _new_reconciler(self) -> Reconciler:
        return Reconciler(self.site.workers.grace, self.site.workers.patience)

    def _read_id(self) -> str:
        """Return what tells the jobs of this home from all others, also from those of a copy of it."""
        path, place = self.folder / ID_FILE, self.folder / PLACE_FILE
        here = str(self.folder.resolve())
        if not path.exists() or not place.exists() or place.read_text().strip() != here:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(path, secrets.token_hex(4))
            write(place, here)
        return path.read_text().strip()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            if not self._scaled.is_set():
                self._wake.wait()
                continue
            try:
                self.reconcile()
            except Exception as error:  # this thread must go on
                log.warning("the queue could not be looked after", exc_info=True)
                with self._lock:
                    self._silence = f"the queue could not be looked after: {error}"
            self._wake.wait(self.poll_seconds)

    def reconcile(self) -> None:
        """Look at the queue once, and tell it what is wanted."""
        assert self.queue is not None  # noqa: S101
        try:
            entries = self.queue.jobs()
        except BinworksError as error:
            with self._lock:
                self._silence = f"the queue does not answer: {error}"
            return
        joined = self._joined() if self._reconciler.unproven else frozenset()
        with self._lock:
            self._silence = None
            orders = self._reconciler.decide(entries, time.monotonic(), joined)
        self._remove(orders.remove)
        self._drain(orders.drain)
        if orders.submit and not self._closing.is_set():
            self._submit(orders.submit)

    def _joined(self) -> frozenset[str]:
        """Return the jobs of which a worker is connected to the scheduler, if that says so."""
        try:
            with ask(
                f"http://{LOOPBACK}:{self.dashboard_port}{DASHBOARD_PREFIX}/json/identity.json"
            ) as answer:
                known = json.load(answer)["workers"].values()
        except (OSError, HTTPException, ValueError, KeyError):
            return frozenset()
        # the last part of a worker's name is its job's; Dask adds a number if there are several in a job
        last = -1 if self.site.workers.processes == 1 else -2
        return frozenset(str(worker["name"]).split("-")[last] for worker in known)

    def _remove(self, names: Sequence[str]) -> None:
        assert self.queue is not None  # noqa: S101
        if not names:
            return
        log.info("removing %s", ", ".join(names))
        try:
            self.queue.remove(names)
        except BinworksError as error:
            with self._lock:
                self._silence = f"jobs could not be removed: {error}"
                self._reconciler.not_removed(names, time.monotonic())

    def _drain(self, names: Sequence[str]) -> None:
        assert self.queue is not None  # noqa: S101
        if not names:
            return
        log.info("draining %s", ", ".join(names))
        try:
            self.queue.drain(names)
        except BinworksError as error:
            with self._lock:
                self._silence = f"jobs could not be drained: {error}"
                self._reconciler.not_drained(names)

    def _submit(self, count: int) -> None:
        assert self.queue is not None  # noqa: S101
        try:
            names = self.queue.submit(count)
        except BinworksError as error:
            log.warning("no job was taken: %s", error)
            with self._lock:
                self._reconciler.refused(f"no job was taken: {error}", time.monotonic())
            return
        log.info("submitted %s", ", ".join(names))
        with self._lock:
            self._reconciler.submitted(names, time.monotonic())

    def _empty(self) -> None:
        """Remove all jobs and wait until they have ended."""
        assert self.queue is not None  # noqa: S101
        end, removed = time.monotonic() + CLOSE_SECONDS, False
        while left := [n for n, entry in self.queue.jobs().items() if entry.state != JobState.ENDED]:
            if not removed:
                self.queue.remove(left)
                removed = True
            if time.monotonic() > end:
                log.warning("these jobs have not ended: %s", ", ".join(left))
                return
            time.sleep(CLOSE_POLL_SECONDS)


def require(programs: Sequence[str]) -> None:
    """Check that commands are installed.

    Raises
    ------
    RequestError
        Code ``no-batch-system``.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise RequestError(
            f"Not installed on this machine: {', '.join(missing)}.",
            code="no-batch-system",
            hint="Start the service on a machine from which jobs can be submitted.",
        )


def run(
    command: Sequence[str],
    *,
    text: str = "",
    hidden: tuple[str, ...] = (),
    harmless: Sequence[str] = (),
) -> str:
    """Run a command of the batch system and return what it prints.

    Parameters
    ----------
    command : sequence of str
        Program and arguments.
    text : str
        Its standard input.
    hidden : tuple of str
        Variables of this process's environment that it shall not see begin with one of these.
    harmless : sequence of str
        It has not failed if each line of its complaints holds one of these.

    Raises
    ------
    TransientError
        Code ``batch-system``, with its last line, if it fails or takes too long.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    try:
        done = subprocess.run(  # noqa: S603  no shell, and the arguments are ours
            list(command),
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise TransientError(
            f"{command[0]} did not answer within {COMMAND_SECONDS:.0f} s.", code="batch-system"
        ) from None
    except OSError as error:
        raise TransientError(f"{command[0]} cannot be run: {error}.", code="batch-system") from None
    complaints = [line for line in done.stderr.splitlines() if line.strip()]
    serious = [line for line in complaints if not any(words in line for words in harmless)]
    if done.returncode != 0 and (serious or not complaints):
        said = (serious or done.stdout.split("\n")[-1:])[-1] or f"it ended with {done.returncode}"
        raise TransientError(f"{command[0]}: {said.removeprefix(f'{command[0]}: ')}", code="batch-system")
    return done.stdout


def reachable(place: SchedulerPart) -> str:
    """Return the address of this machine that workers reach.

    Raises
    ------
    RequestError
        Code ``bad-site`` if there is no such interface, or none that leads out.
    """
    if place.host is not None:
        return place.host
    if place.interface is not None:
        known = psutil.net_if_addrs()
        found = {each.family: str(each.address).split("%")[0] for each in known.get(place.interface, [])}
        for family in (socket.AF_INET, socket.AF_INET6):
            if family in found:
                return found[family]
        raise RequestError(
            f"This machine has no address on an interface {place.interface!r}.",
            code="bad-site",
            where="scheduler.interface",
            hint=f"Known: {', '.join(sorted(known))}.",
        )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # nothing is sent: the kernel says which way it would go
        address = str(probe.getsockname()[0])
        if not ip_address(address).is_loopback:
            return address
    raise RequestError(
        "It is not clear under which address the workers reach this machine.",
        code="bad-site",
        where="scheduler",
        hint="Give scheduler.interface or scheduler.host.",
    )
