"""The Slurm back end on a real Slurm of one node."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slurm_server
from backend_contract import BackendContract, names, reach
from distributed import Client, Security
from slurm_server import Slurm

from binworks.deploy import slurm as slurm_module
from binworks.deploy.batch import WorkerJob
from binworks.deploy.reconcile import Entry, JobState
from binworks.deploy.site import Site
from binworks.deploy.slurm import SlurmBackend, entry, script
from binworks.deploy.tls import Certificates
from binworks.deploy.worker import parser
from binworks.service.environment import WORKER
from binworks.tensors.errors import RequestError


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if reason := slurm_server.why_not():
        pytest.skip(reason)
    with slurm_server.serving() as running:
        yield running


def site(folder: Path, **slurm: Any) -> Site:
    return Site.model_validate(
        {
            "backend": "slurm",
            "scheduler": {"host": "127.0.0.1"},
            "workers": {
                "memory": "1GB",
                "walltime": 1800,
                "grace": 60,
                "scratch": folder,
                "host": "127.0.0.1",
            },
            "slurm": {"poll_seconds": 0.5, **slurm},
        }
    )


def back_end(home: Path, **slurm: Any) -> SlurmBackend:
    Certificates.ensure(home / "tls")
    ports = {"port": slurm_server.free_port(), "dashboard_port": 0}
    return SlurmBackend(
        home, site(home, **slurm), **ports, preload=None, environment=WORKER, tls=home / "tls"
    )


def security(backend: SlurmBackend) -> Security:
    files = backend.certificates
    return Security(
        tls_ca_file=str(files.ca("client")),
        tls_client_cert=str(files.cert("client")),
        tls_client_key=str(files.key("client")),
        require_encryption=True,
    )


class TestSlurmBackend(BackendContract):
    @pytest.fixture
    def backend(self, slurm: Slurm, tmp_path: Path) -> SlurmBackend:
        self.slurm = slurm
        return back_end(tmp_path)

    def security(self, backend: SlurmBackend) -> Security:  # type: ignore[override]
        return security(backend)

    def kill_a_worker(self, backend: SlurmBackend) -> None:  # type: ignore[override]
        assert self.slurm.ask("scancel", self.slurm.jobs("RUNNING")[0]) is not None


def test_the_reason_why_slurm_takes_no_job_is_shown(slurm: Slurm, tmp_path: Path) -> None:
    backend = back_end(tmp_path, partition="nowhere")
    backend.start()
    try:
        backend.scale(3)
        reason = reach(lambda: backend.status().reason, 20)
        assert reason.startswith(
            "no job was taken: sbatch: error: Batch job submission failed: Invalid partition"
        )
        assert "next try in" in reason
        assert backend.status().alive == 0
    finally:
        backend.close()


def test_hundreds_of_jobs_are_one_submission_and_the_reason_why_they_wait_is_shown(
    slurm: Slurm, tmp_path: Path
) -> None:
    backend = back_end(tmp_path, directives=["--begin=now+1hour"])
    backend.start()
    try:
        backend.scale(300)
        reach(lambda: backend.status().reason == "300 jobs wait in the queue (BeginTime)", 20)
        assert len({job.split("_")[0] for job in slurm.jobs("PENDING")}) == 1
        backend.scale(1)
        reach(lambda: len(slurm.jobs("PENDING")) == 1, 20)
    finally:
        backend.close()
    assert slurm.jobs("PENDING") == []


@pytest.mark.faults
def test_a_controller_that_is_away_changes_nothing_and_the_next_service_takes_the_jobs_over(
    slurm: Slurm, tmp_path: Path
) -> None:
    backend = back_end(tmp_path)
    backend.start()
    try:
        backend.scale(1)
        reach(lambda: backend.status().alive == 1)
        (job,) = slurm.jobs("RUNNING")
        slurm.stop_controller()
        backend.scale(2)
        reach(lambda: "does not answer" in str(backend.status().reason), 20)
        assert backend.status().alive == 1
        slurm.start_controller()
        reach(lambda: backend.status().alive == 2)
        assert job in slurm.jobs("RUNNING")
        assert backend.status().restarts == 0
        before = slurm.jobs("RUNNING")

        crash(backend)
        backend.start()
        time.sleep(1.0)
        backend.scale(2)
        reach(lambda: backend.status().alive == 2)
        with Client(
            backend.address(), security=security(backend), timeout=30, set_as_default=False
        ) as client:
            reach(lambda: len(names(client)) == 2)
        assert slurm.jobs("RUNNING") == before
    finally:
        backend.close()
    assert slurm.jobs("RUNNING", "PENDING") == []


def crash(backend: SlurmBackend) -> None:
    """Let its process forget everything and end its scheduler, as a crash would."""
    assert backend._thread is not None
    assert backend.scheduler is not None
    backend._closing.set()
    backend._thread.join()
    backend.scheduler.stop()


def test_what_slurm_says_is_understood() -> None:
    assert entry("RUNNING", "None") == Entry(JobState.RUNNING)
    assert entry("PENDING", "Resources") == Entry(JobState.PENDING, "Resources")
    assert entry("PENDING", "JobHeldUser") == Entry(JobState.HELD, "JobHeldUser")
    assert entry("PENDING", "launch failed requeued held").state == JobState.HELD
    assert entry("COMPLETING", "None").state == JobState.ENDING
    assert entry("OUT_OF_MEMORY", "OutOfMemory") == Entry(JobState.ENDED, "OUT_OF_MEMORY, OutOfMemory")
    assert entry("SOMETHING_NEW", "").state == JobState.ENDED


def test_the_script_becomes_the_worker_host_and_says_all_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("X509_USER_PROXY", "/home/jo's/proxy")
    loaded = Site.load(Path(slurm_module.__file__).parent / "sites" / "slurm.yaml")
    values = loaded.model_dump(exclude_none=True)
    values["workers"] |= {"keep": ["X509_USER_PROXY", "NOT_SET"], "lifetime": 3600, "processes": 8}
    job = WorkerJob(
        name="binworks-1",
        scheduler="tls://10.1.2.3:8786",
        home=tmp_path,
        logs=tmp_path / "logs",
        site=Site.model_validate(values),
        tls=("--tls-key", "/srv/my home/key"),
        environment={"OMP_NUM_THREADS": "1"},
        preload="binworks.service.preload",
    )
    job.write_environment()
    lines = script(job).splitlines()
    assert lines[0].startswith("#!")
    for expected in (
        f"-J binworks-1-{job.digest}",
        "--export=NONE",
        "--no-requeue",
        "--signal=B:TERM@600",
        "-t 0-12:00:00",
    ):
        assert f"#SBATCH {expected}" in lines
    assert f". {tmp_path}/cluster-environment" in lines
    assert "proxy" not in script(job)
    assert "export X509_USER_PROXY='/home/jo'\"'\"'s/proxy'" in job.environment_file.read_text().splitlines()
    words = shlex.split(lines[-1])
    assert words[:5] == ["exec", sys.executable, "-m", "binworks.deploy.worker", "tls://10.1.2.3:8786"]
    options = parser().parse_args(words[4:])
    assert (options.nworkers, options.nthreads, options.grace, options.lifetime) == (8, 1, 600, 3600)
    assert options.tls_key == "/srv/my home/key"
    assert options.keep == ["OMP_NUM_THREADS", "X509_USER_PROXY", "NOT_SET"]


@pytest.mark.parametrize(
    "directive", ["-M other", "--clusters=other", "--job-name=mine", "--signal=INT", "-a 0-3"]
)
def test_directives_with_which_jobs_would_be_lost_from_sight_are_refused(
    tmp_path: Path, directive: str
) -> None:
    backend = back_end(tmp_path, directives=[directive])
    with pytest.raises(RequestError, match=directive) as caught:
        backend.start()
    assert caught.value.code == "bad-site"
    backend.close()


def test_jobs_of_an_older_make_go_and_variables_of_the_shell_change_nothing(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "SBATCH_JOB_NAME": "other",
        "SQUEUE_PARTITION": "other",
        "SBATCH_EXPORT": "ALL",
    }.items():
        monkeypatch.setenv(name, value)
    old, new = (back_end(tmp_path, directives=["--begin=now+1hour", f"--nice={nice}"]) for nice in (1, 2))
    for backend, wanted in ((old, 3), (new, 2)):
        backend.start()
        backend.scale(wanted)
        waits = f"{wanted} jobs wait in the queue (BeginTime)"
        reach(lambda backend=backend, waits=waits: backend.status().reason == waits, 20)  # type: ignore[misc]
        if backend is old:
            crash(old)
            left = set(slurm.jobs("PENDING"))
    try:
        reach(lambda: len(slurm.jobs("PENDING")) == 2, 20)
        assert left.isdisjoint(slurm.jobs("PENDING"))
    finally:
        new.close()
