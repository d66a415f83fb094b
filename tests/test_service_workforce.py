"""The workers of a service follow its backlog, or what an admin asks for, and it is said how they are."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from backend_contract import reach
from service_toys import Running, registered, service, write_all

from binworks.deploy.base import ClusterStatus
from binworks.deploy.site import SchedulerPart, Site, WorkersPart
from binworks.deploy.slurm import SlurmBackend
from binworks.deploy.tls import Certificates
from binworks.service import workforce
from binworks.service.running import Service, bounds_of, secured
from binworks.service.settings import Settings
from binworks.service.up import configure, site_of
from binworks.service.workers_command import describe, parse
from binworks.service.workforce import Bounds, Status
from binworks.tensors.errors import RequestError

IDLE = 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    site = Site(workers=WorkersPart(minimum=0, maximum=2, idle=IDLE))
    folder = tmp_path_factory.mktemp("service")
    with (
        registered(folder / "toys"),
        service(folder / "home", site=site, data_roots=(str(folder / "data"),)) as made,
    ):
        yield made


def workers(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from binworks.client.cli import main; main()", "workers"]
    home = str(running.settings.home)
    return subprocess.run([*command, *words, "--home", home], capture_output=True, text=True, check=False)


@pytest.mark.faults
def test_workers_come_with_the_backlog_and_go_after_it(running: Running) -> None:
    status = json.loads(workers(running, "--json").stdout)
    assert status["bounds"] == {"minimum": 0, "maximum": 2}
    assert status["cluster"]["wanted"] == 0
    job = running.submit(
        {"D": write_all(running.settings.home.parent / "data", 4, 3000)}, options={"jitter": 0.2}
    ).id
    view = running.wait(job, 60)
    assert view.complete, view
    assert view.note is None
    seen = workforce.read(running.settings.home)
    assert seen is not None
    assert seen.cluster.wanted > 0
    reach(lambda: workforce.read(running.settings.home).cluster.wanted == 0, IDLE + 15)  # type: ignore[union-attr]


@pytest.mark.faults
def test_an_admin_scales_a_service_that_runs(running: Running) -> None:
    asked = workers(running, "1", "--json")
    assert json.loads(asked.stdout)["bounds"] == {"minimum": 1, "maximum": 1}
    reach(lambda: "1 of 1 alive, 1 connected (asked for: 1)" in workers(running).stdout, 90)
    assert workers(running, "many").returncode == 2
    workers(running, "0:2")


def test_a_home_without_a_service_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from binworks.client.cli import main; main()", "workers"]
    done = subprocess.run([*command, "--home", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No service runs in this home" in done.stderr


@pytest.mark.parametrize(("text", "bounds"), [("40", Bounds(40, 40)), ("0:200", Bounds(0, 200))])
def test_a_number_or_bounds_can_be_asked_for(text: str, bounds: Bounds) -> None:
    assert parse(text) == bounds


@pytest.mark.parametrize("text", ["", "-1", "5:2", "many", "1:2:3", "1e3"])
def test_what_is_no_number_of_workers_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="no number of workers"):
        parse(text)


def test_the_reason_for_missing_workers_is_told() -> None:
    cluster = ClusterStatus(scheduler=True, wanted=8, alive=4, restarts=2, reason="sbatch: invalid account")
    words = describe(Status(Bounds(0, 20), 8, cluster, connected=3))
    assert "4 of 8 alive, 3 connected (asked for: 0 to 20, the backlog asks for 8); 2 restarts" in words
    assert "sbatch: invalid account" in words
    assert "does not say" in describe(Status(Bounds(1, 1), None, cluster, connected=None))


def test_the_command_line_wins_over_the_site_file_and_a_cluster_must_say_how_many(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("backend: slurm\nworkers: {minimum: 1, maximum: 9}\n")
    assert bounds_of(site_of(path, None, None)) == Bounds(1, 9)
    site = site_of(path, "htcondor", 3)
    assert (site.backend, bounds_of(site)) == ("htcondor", Bounds(3, 3))
    with pytest.raises(RequestError, match="How many"):
        bounds_of(site_of(None, "slurm", None))
    assert bounds_of(Site()).minimum >= 1


def test_the_scheduler_listens_for_others_only_where_the_site_says_so_and_then_with_tls(
    tmp_path: Path,
) -> None:
    settings = configure(tmp_path, {}, 0)
    assert Service(settings, Site()).settings.scheduler.startswith("tcp://127.0.0.1:")
    site = Site(scheduler=SchedulerPart(host="10.9.8.7"))
    served = Service(settings.model_copy(update={"scheduler": "tcp://127.0.0.1:8786"}), site).settings
    assert served.scheduler == "tls://10.9.8.7:8786"
    assert served.tls == tmp_path / "tls"


def test_batch_jobs_are_given_what_local_workers_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = configure(tmp_path, {}, 0).model_copy(update={"credentials": tmp_path / "credentials"})
    site = Site(backend="slurm", scheduler=SchedulerPart(host="127.0.0.1"), workers=WorkersPart(count=1))
    backend = Service(settings, site).backend
    assert isinstance(backend, SlurmBackend)
    assert backend.environment["BINWORKS_CREDENTIALS"] == str(tmp_path / "credentials")
    assert backend.environment["PYTHONSAFEPATH"] == "1"


def test_a_cluster_is_not_started_with_certificates_that_have_expired(tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=100)
    Certificates.make(tmp_path / "tls", days=10, now=long_ago)
    shutil.rmtree(tmp_path / "tls" / "ca")  # their authority is kept elsewhere
    settings = Settings(home=tmp_path, tls=tmp_path / "tls")
    with pytest.raises(RequestError, match="scheduler: it has expired"):
        secured(settings, Site())
