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
from binworks.deploy.batch import ID_FILE
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
        assert list(queue(large).jobs()) == ["1.0"] or len(queue(large).jobs()) == 1
    finally:
        large.close()


EVENTS, FILES, UNIT = 20_000, 6, 150


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a catalogue of two data sets and a correction set."""
    folder = tmp_path_factory.mktemp("data")
    small_corrections.write(folder / "corrections" / "small")
    for seed in range(FILES):
        small_nano.write(folder / f"w{seed}.root", small_nano.events(EVENTS, seed, pdf_members=7))
    small_nano.write(folder / "data.root", small_nano.events(EVENTS, 99, kind="data"))
    files = [f"w{seed}.root" for seed in range(FILES)]
    signal = {"name": "Wplusmunu", "files": files, "boson": "W", "cross_section": 11_000.0}
    muons = {"name": "SingleMuon", "files": ["data.root"], "kind": "data"}
    document = {"schema": "binworks.catalogue/1", "luminosity": 10.0, "datasets": [signal, muons]}
    (folder / "catalogue.json").write_text(json.dumps(document))
    return folder


def submit(service: RunningService) -> Job:
    everything = [entry["name"] for entry in service.client.datasets()]
    job: Job = service.client.submit("w_mass", everything, corrections="small", options={"pdf_members": 7})
    return job


def digests(service: RunningService, job: Job) -> dict[str, str]:
    """Return the digests of a job's final sums."""
    status = job.wait(600).check()
    manifest = Store.open(Settings.load(service.home).store_url).read_json(
        layout.manifest(job.id, status.generation or 0)
    )
    return {name: entry["digest"] for name, entry in manifest["datasets"].items()}


class Workers:
    """The workers of a service, as its scheduler and the queue see them."""

    def __init__(self, home: Path) -> None:
        settings = Settings.load(home)
        assert settings.tls is not None
        self.client = Client(settings.scheduler, security=security(Certificates(settings.tls)), timeout=30)
        self.home = home
        self.prefix = f"binworks-{(home / ID_FILE).read_text().strip()}"

    def close(self) -> None:
        self.client.close()

    def names(self) -> set[str]:
        """Return the names of those that the scheduler knows."""
        known = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return {worker["name"] for worker in known}

    def of(self, job: str) -> str:
        return f"{self.prefix}-{job}"

    def running(self) -> list[str]:
        """Return the batch jobs that run."""
        mine = f'BinworksCluster == "{self.prefix}" && JobStatus == 2'
        return condor("condor_q", "-constraint", mine, "-af:j", "ClusterId").splitlines()

    def one(self) -> str:
        """Return a batch job whose worker is at work."""
        found: str = reach(
            lambda: next(
                (job for line in self.running() if self.of(job := line.split()[0]) in self.names()), None
            )
        )
        return found

    def ask(self, count: int) -> None:
        subprocess.run([*BINWORKS, "workers", "--home", str(self.home), str(count)], check=True)


def test_a_w_job_survives_all_that_a_pool_does_to_its_workers(data: Path, tmp_path: Path) -> None:
    common = ("--catalogue", data / "catalogue.json", "--unit-events", UNIT, "--snapshot-seconds", 5)
    with running_service(tmp_path / "local", *common, "--workers", 2) as service:
        expected = digests(service, submit(service))
    config = tmp_path / "site.yaml"
    config.write_text(yaml.safe_dump(site(kernel_cache=str(tmp_path / "kernels"))))
    begin = time.monotonic()
    with running_service(tmp_path / "pool", *common, "--backend", "htcondor", "--config", config) as service:
        with closing(Workers(service.home)) as workers:
            reach(lambda: len(workers.names()) == 3, 120)
            note("binworks up until three workers are there", time.monotonic() - begin)
            job = submit(service)
            reach(lambda: job.status().units_done > 5, 120)
            for program in ("condor_rm", "condor_vacate_job", "condor_hold"):
                disturb(workers, program)
                assert job.status().state == "running"
            rescale(workers)
            done = job.status()
            assert done.state == "running", done
            assert [unit for unit in job.units(limit=100_000) if unit["attempts"] > 1] == []
            condor("condor_vacate_job", "-fast", workers.one())  # this one may lose what it is at
            assert digests(service, job) == expected
            workers.ask(0)
            timed("all drained after the job's end", lambda: not workers.names())
        closing_since = time.monotonic()
    note("the service's end", time.monotonic() - closing_since)


def disturb(workers: Workers, program: str) -> None:
    """Let a worker's job be removed, vacated or held, and wait until another one is in its place."""
    victim = workers.one()
    before = workers.client.scheduler_info(n_workers=-1)["workers"]
    address = next(each for each, worker in before.items() if worker["name"] == workers.of(victim))
    condor(program, victim)

    def known() -> Mapping[str, Any]:
        found: Mapping[str, Any] = workers.client.scheduler_info(n_workers=-1)["workers"]
        return found

    begin = time.monotonic()
    reach(lambda: address not in known(), 90)
    note(f"{program}: until its worker has left", time.monotonic() - begin)
    reach(lambda: len(known()) == 3, 120)
    note(f"{program}: until there are three again", time.monotonic() - begin)


def rescale(workers: Workers) -> None:
    workers.ask(1)
    timed("from three workers to one, drained", lambda: len(workers.names()) == 1)
    workers.ask(4)
    timed("from one worker to four", lambda: len(workers.names()) == 4, 120)
