"""A service without driver, scheduler or workers: job database and store filled by hand, and the API's own process."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import small_corrections
from sqlalchemy import insert, select, update

from binworks.client import Client
from binworks.service import layout, snapshot, tokens
from binworks.service.database import Database, generations, jobs, units
from binworks.service.jobs import Jobs, add_event, move
from binworks.service.ledger import Ledger
from binworks.service.model import JobRequest, JobState, UnitState
from binworks.service.quotas import Limits
from binworks.service.requests import resolve
from binworks.service.settings import Settings
from binworks.service.snapshot import Cut
from binworks.service.store import Store
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.axes import w_axes
from binworks.tensors.expansion import Expansion, Nuisance
from binworks.tensors.groups import mass
from binworks.tensors.groups.base import VariationGroup, dense_group
from binworks.tensors.histogram import Histogram

START_SECONDS = 90  # it is ready in three, but others may use the machine
OWNERS = ("alice", "bob")


def efficiency_like() -> VariationGroup:
    """Return a group of deviations whose coefficients depend on eta and charge."""
    rng = np.random.default_rng(3)
    names = [f"effEta{i}Charge{q}" for i in range(48) for q in range(2)]
    coefficients = np.zeros((96, 96, 3))
    coefficients[np.arange(96), np.arange(96)] = rng.normal(0, 0.01, (96, 3))
    nuisances = [Nuisance(name, "efficiency", name) for name in names]
    expansion = Expansion.dense(
        "efficiency", names, nuisances, coefficients, block_axes=("eta", "charge"), base=1.0
    )
    return VariationGroup(("c0", "c1", "c2"), expansion)


def wide() -> VariationGroup:
    """Return a group whose block is larger than what is answered at once, and stored in shards."""
    names = [f"wide{i}Up" for i in range(70)]
    return dense_group("wide", names, [Nuisance(name[:-2], "wide", name) for name in names])


GROUPS = (mass.group(), efficiency_like(), wide())


def filled(seed: int, groups: Sequence[VariationGroup] = GROUPS) -> Accumulator:
    """Return random sums on the W axes."""
    rng = np.random.default_rng(seed)
    nominal = Histogram.zeros(w_axes(), variances=True)
    nominal.values[...] = rng.gamma(3.0, 100.0, nominal.values.shape)
    assert nominal.variances is not None
    nominal.variances[...] = nominal.values * rng.uniform(0.5, 2.0, nominal.values.shape)
    histograms = {"nominal": nominal}
    for group in groups:
        block = group.block(w_axes())
        scale = 0.01 if group.expansion.base.all() else 1.0
        noise = rng.uniform(0.9, 1.1, block.values.shape)
        block.values[...] = scale * nominal.values[..., np.newaxis] * noise
        histograms[group.name] = block
    return Accumulator(histograms, {"entries": 100_000, "selected": 60_000, "sum_sign": 90_000})


@dataclass
class HandMade:
    """What the driver and the workers would write, written by the test."""

    settings: Settings
    database: Database
    jobs: Jobs
    store: Store
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, home: Path) -> HandMade:
        (home / "data").mkdir(parents=True)
        small_corrections.write(home / "corrections" / "toy")
        common = {"kind": "mc", "boson": "W"}
        datasets: list[dict[str, Any]] = [
            {
                "name": "Wplusmunu",
                "files": ["data/wp.root"],
                "group": "W",
                "cross_section": 11_000.0,
                **common,
            },
            {
                "name": "Wminusmunu",
                "files": ["data/wm.root"],
                "group": "W",
                "cross_section": 8_000.0,
                **common,
            },
            {"name": "SingleMuon", "files": ["data/d.root"], "kind": "data"},
        ]
        document = {"schema": "binworks.catalogue/1", "luminosity": 100.0, "datasets": datasets}
        (home / "catalogue.json").write_text(json.dumps(document))
        settings = Settings(
            home=home, catalogues=(home / "catalogue.json",), port=free_port(), max_active_jobs=100_000
        )
        settings.save()
        database = Database(settings.database_url)
        database.create_tables()
        repository = Jobs(database, limits=Limits.of(settings))
        made = cls(settings, database, repository, Store.open(settings.store_url))
        now = time.time()
        for owner in OWNERS:
            made.tokens[owner] = tokens.create(database, owner, ["read", "submit"], now=now)
        made.tokens["reader"] = tokens.create(database, "alice", ["read"], now=now)
        made.tokens["admin"] = tokens.create(database, "root", ["admin"], now=now)
        made.tokens["expired"] = tokens.create(
            database, "alice", ["read", "submit"], now=now - 100, lifetime=50
        )
        return made

    def submit(self, owner: str = "alice", **asked: Any) -> str:
        request = {"processor": "w_mass", "datasets": ["Wplusmunu"], "systematics": [], **asked}
        resolved = resolve(JobRequest.model_validate(request), self.settings)
        view, _ = self.jobs.create(resolved, owner)
        return view.id

    def move(self, job: str, *states: JobState, error: Mapping[str, Any] | None = None) -> None:
        for state in states:
            with self.database.write() as connection:
                row = connection.execute(select(jobs).where(jobs.c.id == job)).one()
                move(connection, row, state, time.time(), "by hand", dict(error) if error else None)

    def tell(self, job: str, kind: str, data: Mapping[str, Any]) -> None:
        with self.database.write() as connection:
            add_event(connection, job, kind, time.time(), dict(data))

    def publish(
        self,
        job: str,
        sums: Mapping[str, Accumulator],
        *,
        groups: Sequence[VariationGroup] = GROUPS,
        complete: bool = True,
        final: bool = False,
        lost_files: Sequence[str] = (),
    ) -> int:
        """Write a snapshot as the driver does, final if it is complete."""
        n = len(self.jobs.generations(job)) + 1
        _, resolved = Ledger(self.database).load(job)
        for group in groups:
            described, arrays = group.expansion.to_arrays()
            self.store.write_arrays(layout.expansion(job, group.name), arrays, described)
        for dataset in resolved.datasets:
            key = layout.dataset(job, n, dataset.name)
            self.store.write_accumulator(key, sums[dataset.name], snapshot.dataset_attributes(dataset))
        cut = Cut(n, complete, {}, [], [], [], 100_000, time.time())
        fraction = 1.0 if complete else 0.931 if final else 0.4
        covered = {"final": final or complete, "complete": complete, "fraction": fraction}
        facts = {**snapshot.root_attributes(job, resolved, cut), **covered}
        facts["systematics"] = [group.name for group in groups]
        facts["missing"]["files"] = list(lost_files)
        self.store.seal(layout.generation(job, n), facts)
        counts = {name: {"counts": accumulator.counts} for name, accumulator in sums.items()}
        manifest = snapshot.manifest(job, resolved, cut, counts)
        assert self.store.create_json(layout.manifest(job, n), manifest)
        row = {"job": job, "n": n, "published": True, "created": time.time(), "events": 100_000, "units": 1}
        with self.database.write() as connection:
            connection.execute(insert(generations).values(**row, **covered))
        self.tell(job, "snapshot", self.jobs.generations(job)[-1].model_dump(mode="json"))
        return n

    def lack(self, job: str, *, files: int = 2, state: UnitState = UnitState.SKIPPED) -> None:
        """Give a job a unit of 90 events that is done, one of 10 that is not, and files that could not be opened."""
        path = str(self.settings.home / "data" / "wp.root")
        error = {
            "code": "corrupt-file",
            "message": "It cannot be decoded.",
            "where": path,
            "hint": "Copy it.",
        }
        lost = {"state": state, "error": error, "attempts": 5, "splits": 2, "worker": "tcp://w:1"}
        lost |= {"traceback": "Traceback: here", "failures": 5}
        common = {"job": job, "dataset": "Wplusmunu", "partial": "p", "base": "b", "turn": 0.5}
        unreadable = [
            {
                "path": f"{path}.{i}",
                "dataset": "Wplusmunu",
                "error": {"code": "missing-file", "message": "Gone."},
            }
            for i in range(files)
        ]
        with self.database.write() as connection:
            for unit, (start, stop, facts) in enumerate(
                [(0, 90, {"state": UnitState.DONE, "entries": 90, "sum_sign": 90}), (90, 100, lost)]
            ):
                piece = {"path": path, "uuid": "u", "size": 1, "start": start, "stop": stop}
                where = {"unit": unit, "ranges": [piece], "events": stop - start}
                connection.execute(insert(units).values(**common, **where, **facts))
            row = {"planned": True, "unreadable": unreadable}
            connection.execute(update(jobs).where(jobs.c.id == job).values(**row))

    def incomplete(self, sums: Mapping[str, Accumulator], owner: str = "alice", **asked: Any) -> str:
        """Return a job that succeeded although events are missing."""
        job = self.submit(owner, datasets=list(sums), **asked)
        self.move(job, JobState.RUNNING)
        self.lack(job)
        self.publish(job, sums, groups=(), complete=False, final=True, lost_files=["a.root", "b.root"])
        self.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
        return job

    def finished(self, sums: Mapping[str, Accumulator], owner: str = "alice", **asked: Any) -> str:
        """Return a job that succeeded with these sums."""
        job = self.submit(owner, datasets=list(sums), **asked)
        self.move(job, JobState.RUNNING)
        self.publish(job, sums)
        self.move(job, JobState.FINALIZING, JobState.SUCCEEDED)
        return job


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ApiProcess:
    """``python -m binworks.api`` as `binworks up` starts it."""

    def __init__(self, home: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = home / f"api-{port}.log"
        self._command = [sys.executable, "-m", "binworks.api", "--home", str(home), "--port", str(port)]
        self.start()

    def __enter__(self) -> ApiProcess:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                assert httpx.get(f"{self.url}/healthz").status_code == 200
            except httpx.TransportError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)
            else:
                return

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(20)


@dataclass(frozen=True)
class Served:
    """The service, its API process, and one finished job of alice's."""

    made: HandMade
    api: ApiProcess
    job: str
    sums: Mapping[str, Accumulator]

    @property
    def url(self) -> str:
        return self.api.url

    def headers(self, user: str = "alice") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.made.tokens[user]}"}

    def http(self, user: str | None = "alice") -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers(user) if user else {}, timeout=30)

    def client(self, user: str = "alice") -> Client:
        return Client(self.url, self.made.tokens[user])


@contextmanager
def serving(home: Path) -> Iterator[Served]:
    """Serve a finished job of alice's."""
    made = HandMade.make(home)
    sums = {"Wplusmunu": filled(1), "Wminusmunu": filled(2), "SingleMuon": filled(3, groups=())}
    job = made.finished(sums)
    with ApiProcess(made.settings.home, made.settings.port) as api:
        yield Served(made, api, job, sums)
        api.stop()
    made.database.close()
