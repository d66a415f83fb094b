"""The HTCondor back end keeps the contract on a real pool; ``make condor-proof`` runs this inside one."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import small_corrections
import small_nano
import yaml
from backend_contract import BackendContract, names, reach
from distributed import Client, Security

from binworks.client.children import BINWORKS, RunningService, running_service
from binworks.client.job import Job
from binworks.deploy import dask  # noqa: F401  for this process's connections, too
from binworks.deploy.htcondor import HTCondorBackend, HTCondorQueue
from binworks.deploy.site import Site
from binworks.deploy.tls import Certificates
from binworks.service import layout
from binworks.service.environment import WORKER
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.up import choose_port
from binworks.tensors.errors import TransientError

MEASURED = "BINWORKS_CONDOR_MEASURED"

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(MEASURED not in os.environ, reason="not in an HTCondor pool: make condor-proof"),
]


def condor(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def note(what: str, seconds: float) -> None:
    """Keep a measured time."""
    path = Path(os.environ[MEASURED])
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, what: round(seconds, 1)}, indent=1) + "\n")


def timed(what: str, reached: Callable[[], Any], seconds: float = 90.0) -> None:
    begin = time.monotonic()
    reach(reached, seconds)
    note(what, time.monotonic() - begin)


def site(**workers: Any) -> dict[str, Any]:
    sizes = {"count": 3, "processes": 1, "memory": "1GB", "walltime": 3600, "grace": 60, **workers}
    return {"scheduler": {"host": "127.0.0.1"}, "workers": sizes, "htcondor": {"poll_seconds": 1}}


def backend(folder: Path, where: Mapping[str, Any]) -> HTCondorBackend:
    certificates = Certificates.ensure(folder / "tls").folder
    ports = {"port": choose_port("127.0.0.1", 0), "dashboard_port": choose_port("127.0.0.1", 0)}
    return HTCondorBackend(
        folder, Site.model_validate(where), **ports, preload=None, environment=WORKER, tls=certificates
    )


def security(own: Certificates) -> Security:
    return Security(
        tls_ca_file=str(own.ca("client")),
        tls_client_cert=str(own.cert("client")),
        tls_client_key=str(own.key("client")),
        require_encryption=True,
    )


def queue(back: HTCondorBackend) -> HTCondorQueue:
    assert isinstance(back.queue, HTCondorQueue)
    return back.queue


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert condor("condor_q", "-allusers", "-af:j", "JobStatus").strip() == ""


class TestHTCondorBackend(BackendContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> HTCondorBackend:
        return backend(tmp_path, site())

    def kill_a_worker(self, backend: HTCondorBackend) -> None:  # type: ignore[override]
        condor("condor_rm", next(iter(queue(backend).jobs())))

    def security(self, backend: HTCondorBackend) -> Security:  # type: ignore[override]
        return security(backend.certificates)


def test_workers_that_share_no_folder_with_the_service_get_their_certificates_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood = 'it\'s "fine" $(HOME) $HOME, 50 % off'
    monkeypatch.setenv("MOOD", mood)
    where = site(
        processes=2, keep=["MOOD", "PLACE"], prologue=["HERE=$(pwd) # a remark", "export PLACE=$HERE"]
    )
    where["htcondor"]["transfer"] = True
    alone = backend(tmp_path, where)
    alone.start()
    alone.scale(2)
    try:
        with Client(alone.address(), security=security(alone.certificates), timeout=30) as client:
            reach(lambda: len(names(client)) == 2, 90)
            seen = client.run(lambda: (str(Path.cwd()), dict(os.environ)))
    finally:
        alone.close()
    for folder, environment in seen.values():
        assert environment["MOOD"] == mood
        assert environment["PLACE"] == folder
        assert "/execute/dir_" in folder
        assert environment["OMP_NUM_THREADS"] == "1"
        assert not [name for name in environment if name.startswith("_CONDOR")]


def test_a_host_that_cannot_start_is_shown_with_its_exit_code_and_tried_again_later(tmp_path: Path) -> None:
    broken = backend(tmp_path, site(python="/nowhere/python"))
    broken.start()
    broken.scale(1)
    try:
        reach(lambda: "it ended with code 127" in (broken.status().reason or ""), 60)
        reach(lambda: "next try in" in (broken.status().reason or ""), 60)
        assert broken.status().alive == 0
    finally:
        broken.close()


def test_a_pool_without_room_is_shown_and_a_queue_that_does_not_answer_is_not_believed(
    tmp_path: Path,
) -> None:
    large = backend(tmp_path, site(memory="900GB"))
    large.start()
    large.scale(1)
    try:
        reach(lambda: "1 job waits in the queue (no match found)" in (large.status().reason or ""), 60)
        os.environ["_CONDOR_SCHEDD_HOST"] = "127.0.0.1:9"
        try:
            with pytest.raises(TransientError, match="condor_q"):
                queue(large).jobs()
            reach(lambda: "does not answer" in (large.status().reason or ""), 60)
        finally:
            del os.environ["_CONDOR_SCHEDD_HOST"]
        reach(lambda: "does not answer" not in (large.status().reason or ""), 60)
        assert len(queue(large).jobs()) == 1
    finally:
        large.close()


EVENTS, SAMPLES, UNIT, SPARE = 20_000, 12, 100, 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a catalogue of data sets and a correction set."""
    folder = tmp_path_factory.mktemp("data")
    small_corrections.write(folder / "corrections" / "small")
    datasets = []
    for seed in range(SAMPLES):
        events = small_nano.events(EVENTS, seed, pdf_members=7)
        small_nano.write(folder / f"w{seed}.root", events, cluster=UNIT)  # units end where clusters do
        facts = {"boson": "W", "cross_section": 11_000.0}
        datasets.append({"name": f"w{seed}", "files": [f"w{seed}.root"], **facts})
    document = {"schema": "binworks.catalogue/1", "luminosity": 10.0, "datasets": datasets}
    (folder / "catalogue.json").write_text(json.dumps(document))
    return folder


class Load:
    """W jobs, one after the other, so that there is always one under way."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.jobs: list[Job] = []

    def submit(self) -> None:
        datasets = [f"w{len(self.jobs)}"]
        job: Job = self.service.client.submit(
            "w_mass", datasets, corrections="small", options={"pdf_members": 7}
        )
        self.jobs.append(job)

    def keep_up(self) -> None:
        """Return when a job runs that will do so for a while."""

        def busy() -> bool:
            status = self.jobs[-1].status()
            if status.units_total and status.units_total - status.units_done < SPARE:
                self.submit()
            return status.state == "running" and status.units_total - status.units_done >= SPARE

        reach(busy, 300)

    def digests(self) -> list[dict[str, str]]:
        """Return the digests of the jobs' final sums."""
        store = Store.open(Settings.load(self.service.home).store_url)
        found = []
        for job in self.jobs:
            status = job.wait(900).check()
            manifest = store.read_json(layout.manifest(job.id, status.generation or 0))
            found.append({name: entry["digest"] for name, entry in manifest["datasets"].items()})
        return found

    def repeated(self) -> list[Mapping[str, Any]]:
        """Return the units that were begun more than once."""
        return [unit for job in self.jobs for unit in job.units(limit=100_000) if unit["attempts"] > 1]


class Workers:
    """The workers of a service, as its scheduler and the queue see them."""

    def __init__(self, home: Path) -> None:
        settings = Settings.load(home)
        assert settings.tls is not None
        self.client = Client(settings.scheduler, security=security(Certificates(settings.tls)), timeout=30)
        self.home = home

    def close(self) -> None:
        self.client.close()

    def names(self) -> set[str]:
        """Return the names of those that the scheduler knows."""
        known = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return {worker["name"] for worker in known}

    def has(self, job: str) -> bool:
        """Return whether the scheduler knows the worker of a batch job."""
        return any(name.endswith(f"-{job}") for name in self.names())

    def running(self) -> list[str]:
        """Return the batch jobs that run."""
        found = condor("condor_q", "-constraint", "JobStatus == 2", "-af:j", "ClusterId")
        return [line.split()[0] for line in found.splitlines()]

    def one(self) -> str:
        """Return a batch job whose worker is at work."""
        found: str = reach(lambda: next((job for job in self.running() if self.has(job)), None))
        return found

    def ask(self, count: int) -> None:
        words = [*BINWORKS, "workers", "--home", str(self.home), str(count)]
        subprocess.run(words, check=True, capture_output=True)


@pytest.mark.timeout(2400)
def test_w_jobs_survive_all_that_a_pool_does_to_their_workers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("--catalogue", data / "catalogue.json", "--unit-events", UNIT, "--snapshot-seconds", 5)
    config = tmp_path / "site.yaml"
    config.write_text(yaml.safe_dump(site(kernel_cache=str(Path.home() / "kernels"))))
    monkeypatch.setenv("BINWORKS_KERNEL_CACHE", str(Path.home() / "kernels"))
    with running_service(tmp_path / "warm", *common, "--workers", 1) as service:
        warming = Load(service)  # compiles the kernels once
        warming.submit()
        warming.digests()
    begin = time.monotonic()
    with running_service(tmp_path / "pool", *common, "--backend", "htcondor", "--config", config) as service:
        with closing(Workers(service.home)) as workers:
            reach(lambda: len(workers.names()) == 3, 300)
            note("binworks up until three workers are there", time.monotonic() - begin)
            load = Load(service)
            load.submit()
            reach(lambda: load.jobs[0].status().units_done > 5, 300)
            for program in ("condor_rm", "condor_vacate_job", "condor_hold"):
                load.keep_up()
                disturb(workers, program)
            load.keep_up()
            rescale(workers)
            assert load.repeated() == []
            load.keep_up()
            condor("condor_vacate_job", "-fast", workers.one())  # this one may lose what it is at
            found = load.digests()
            workers.ask(0)
            timed("the last four workers drained after the jobs' end", lambda: not workers.names())
        closing_since = time.monotonic()
    note("end of the service", time.monotonic() - closing_since)
    with running_service(tmp_path / "local", *common, "--workers", 2) as service:
        here = Load(service)
        for _ in load.jobs:
            here.submit()
        assert here.digests() == found


def disturb(workers: Workers, program: str) -> None:
    """Let a worker's job be removed, vacated or held, and wait until another one is in its place."""
    victim = workers.one()
    before = workers.client.scheduler_info(n_workers=-1)["workers"]
    address = next(each for each, worker in before.items() if worker["name"].endswith(f"-{victim}"))
    condor(program, victim)

    def known() -> Mapping[str, Any]:
        found: Mapping[str, Any] = workers.client.scheduler_info(n_workers=-1)["workers"]
        return found

    begin = time.monotonic()
    reach(lambda: address not in known(), 200)
    note(f"{program}: until its worker has left", time.monotonic() - begin)
    reach(lambda: len(known()) == 3, 200)
    note(f"{program}: until there are three again", time.monotonic() - begin)


def rescale(workers: Workers) -> None:
    workers.ask(1)
    timed("from three workers to one, drained", lambda: len(workers.names()) == 1, 200)
    workers.ask(4)
    timed("from one worker to four", lambda: len(workers.names()) == 4, 200)
