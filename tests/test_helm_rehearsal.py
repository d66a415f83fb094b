"""The chart does what it promises, as far as processes of one machine can show: scale, heal, upgrade, same bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import postgres_server
import pytest
import service_toys
import yaml
from held_toy import set_pace
from helm_chart import RELEASE, Rendered, render
from helm_rehearsal import Node, Pod, rehearsal, why_not

from binworks.processors.dataset import Dataset
from binworks.service import layout
from binworks.service.model import JobRequest
from binworks.service.requests import resolve
from binworks.service.settings import Settings
from binworks.service.store import Store, digest_of

pytest_plugins = ["helm_fixture"]

USER = 1000
NAME = f"{RELEASE}-binworks"
FILES, EVENTS = 6, 10_000
QUICK, FOR_EVER = 2.0, 3600.0
UNITS = FILES * EVENTS // service_toys.UNIT_EVENTS
TOYS = {
    "toys.pth": f"{Path(__file__).parent}\n",
    "toys-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: toys\nVersion: 1\n",
    "toys-1.dist-info/entry_points.txt": "[binworks.processors]\ntoy = held_toy:Held\n",
}


class Release:
    """The chart as it is installed on a node, and upgraded."""

    def __init__(self, helm: Path, node: Node, folder: Path) -> None:
        self.helm = helm
        self.node = node
        self.values = folder / "values.yaml"
        self.token = ""
        self.given: dict[str, Any] = {
            "user": USER,
            "data": [
                {
                    "name": "samples",
                    "mountPath": "/data",
                    "volume": {"hostPath": {"path": str(folder / "data")}},
                }
            ],
            "settings": {
                "data_roots": ["/data"],
                "unit_events": service_toys.UNIT_EVENTS,
                "backoff_seconds": 0.2,
                "lease_seconds": 3.0,
            },
            "api": {"drainSeconds": 1},
            "workers": {"replicas": 1, "processes": 1, "memory": "2Gi", "grace": 60},
        }

    def upgrade(self, **changes: Any) -> None:
        """Install it, or change what is there, as ``helm upgrade --wait`` does; returns when all pods are ready."""
        for name, value in changes.items():
            before = self.given.get(name)
            self.given[name] = {**before, **value} if isinstance(before, dict) else value
        self.values.write_text(yaml.safe_dump(self.given))
        rendered: Rendered = render(self.helm, "--values", str(self.values))
        self.node.apply(rendered)
        self.node.until(self.node.settled, f"pods after {changes}")

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """Ask the API, as somebody behind its Service does; patiently, as it may be replaced."""
        token = self.token or (self.node.claims / f"{NAME}-state/token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}

        def once() -> Any:
            try:
                url = f"http://{self.node.address(NAME, 'http')}{path}"
                return httpx.request(method, url, headers=headers, timeout=10, trust_env=False, **more)
            except (httpx.HTTPError, StopIteration):
                return None

        answer = self.node.until(lambda: self.node.ask(once), "an answer")
        assert answer.is_success, answer.text
        return answer.json()

    def done(self, job: str) -> int:
        """Return how many units are done."""
        return int(self.ask("GET", f"/v1/jobs/{job}")["counts"]["units"]["done"])


@pytest.fixture
def release(helm: Path, tmp_path: Path) -> Iterator[Release]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with rehearsal(tmp_path / "node", pods=8, modules=TOYS) as node:
        yield Release(helm, node, tmp_path)


def request(files: Sequence[str]) -> dict[str, Any]:
    dataset = {"name": "toys", "files": [f"/data/{Path(file).name}" for file in files]}
    return {"processor": "toy", "datasets": [dataset]}


def processes(pods: list[Pod]) -> dict[tuple[str, str], int | None]:
    return {(pod.name, container.name): container.pid for pod in pods for container in pod.containers}


def kill(pod: Pod, name: str) -> None:
    """Kill a container, and see that it is started again."""
    container = pod.container(name)
    before = container.restarts
    container.kill()
    pod.node.until(lambda: container.restarts > before and container.ready, f"{name} again")


@pytest.mark.faults
@pytest.mark.timeout(900)  # half a minute on a quiet machine, and pods wait for each other
def test_a_job_survives_scaling_kills_and_an_upgrade_bit_by_bit(release: Release, tmp_path: Path) -> None:
    node = release.node
    files = service_toys.write_all(tmp_path / "data", FILES, EVENTS)
    set_pace(tmp_path / "data", QUICK)
    release.upgrade()
    asked = request(files)
    job = release.ask("POST", "/v1/jobs", json=asked)["id"]
    node.until(lambda: release.done(job) > 0, "a unit")
    set_pace(tmp_path / "data", FOR_EVER)

    before = processes(node.pods)
    release.upgrade(workers={"replicas": 2})
    assert before.items() <= processes(node.pods).items(), "scaling restarted something"

    for component, name in (("worker", "worker"), ("scheduler", "scheduler"), ("service", "driver")):
        kill(node.of(component)[0], name)
    reached = release.done(job)
    set_pace(tmp_path / "data", QUICK)
    node.until(lambda: release.done(job) > reached, "progress after the kills")

    release.upgrade(workers={"replicas": 1})
    (drained,) = node.ended
    assert drained.container("worker").code == 0

    release.upgrade(image={"tag": "next"})
    assert release.done(job) < UNITS, "the job was done before all was replaced"
    set_pace(tmp_path / "data", 0)
    assert not set(processes(node.pods).values()) & set(before.values())

    node.until(lambda: release.ask("GET", f"/v1/jobs/{job}")["state"] == "succeeded", "success")
    ended = [*node.ended, *node.pods]
    assert [c.killed_for for pod in ended for c in pod.containers if c.killed_for] == []
    assert {c.code for pod in node.ended for c in pod.containers} <= {0, None, 143, -15}
    check(release, job, asked, files, tmp_path)


def check(release: Release, job: str, asked: dict[str, Any], files: Sequence[str], folder: Path) -> None:
    """Compare a job's sums with those of this process, bit by bit."""
    found = release.ask("GET", f"/v1/jobs/{job}")
    store = Store.open(str(release.node.claims / f"{NAME}-store"))
    digest = digest_of(store.read_accumulator(layout.dataset(job, found["generation"], "toys")))
    with service_toys.registered(folder / "toys"):
        local = {**asked, "datasets": [{"name": "toys", "files": list(files)}]}
        settings = Settings(home=folder, data_roots=(str(folder),), unit_events=service_toys.UNIT_EVENTS)
        resolved = resolve(JobRequest.model_validate(local), settings)
        assert digest == service_toys.serial(
            folder / "serial", Dataset(name="toys", files=tuple(files)), resolved
        )


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_two_apis_and_two_drivers_share_a_server_and_stand_in_for_each_other(
    release: Release, tmp_path: Path
) -> None:
    if (reason := postgres_server.why_not()) is not None:
        pytest.skip(reason)
    node, token = release.node, f"bw_{'0123456789abcdef' * 2}"
    files = service_toys.write_all(tmp_path / "data", FILES, EVENTS)
    set_pace(tmp_path / "data", QUICK)
    with postgres_server.serving() as server:
        address = server.new_database().replace(str(server.sockets), "/database")
        node.add("database", {"url": address})
        node.add("token", {"token": token})
        release.token = token
        sockets = {
            "name": "database",
            "mountPath": "/database",
            "volume": {"hostPath": {"path": str(server.sockets)}},
        }
        nobody = server.sockets.stat()  # the server's socket is for its own user
        release.upgrade(
            user=nobody.st_uid,
            group=nobody.st_gid,
            data=[*release.given["data"], sockets],
            database={"existingSecret": "database"},
            token={"existingSecret": "token"},
            api={"replicas": 2},
            driver={"replicas": 2},
        )
        job = release.ask("POST", "/v1/jobs", json=request(files))["id"]
        node.until(lambda: release.done(job) > 0, "a unit")
        set_pace(tmp_path / "data", FOR_EVER)

        for pod in [*node.of("driver"), *node.of("api")]:
            kill(pod, pod.component)
        set_pace(tmp_path / "data", 0)
        node.until(lambda: release.ask("GET", f"/v1/jobs/{job}")["state"] == "succeeded", "success")
        check(release, job, request(files), files, tmp_path)
    password = postgres_server.PASSWORD
    for log in (tmp_path / "node/pods").rglob("*.log"):
        text = log.read_text(errors="replace")
        assert password not in text
        assert token not in text
