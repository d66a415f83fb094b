"""Install the chart on a real Kubernetes, disturb a running job in every way, and compare its tensor bit by bit.

    python tests/kubernetes/prove.py --out kubernetes-proof --programs kubernetes-programs

Root is needed, and some 20 minutes. The programs of Kubernetes are those that `tests/kubernetes/build.sh` makes; the
image is built as `make image-proof` does, unless there is an archive already. Everything runs in network, mount and
process namespaces of its own, which end with this program however it ends. What was measured goes to ``proof.json``;
the exit code is 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import image
import node
from node import Node, wait

from binworks.client.children import running_service, sample
from binworks.client.client import Client
from binworks.client.demo import fingerprint
from binworks.client.job import Job
from binworks.client.status import FINISHED, Status

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/binworks"
NAMESPACE, RELEASE = "physics", "wmass"
FULLNAME = f"{RELEASE}-binworks"
EVENTS, SEED, UNIT_EVENTS = 600_000, 1, 2500
"""W -> mu nu in the data, as in the demo; small units, so that much of what is done comes in the midst of some."""
GC_SECONDS = 5.0
BUDGET_SECONDS = 15.0
READY_SECONDS, JOB_SECONDS = 600.0, 3600.0


def values(data: Path, folder: Path) -> dict[str, Any]:
    """Return the values of the chart: one small node, folders as volumes."""
    small = {"requests": {"cpu": "50m", "memory": "256Mi"}}
    host = {"hostPath": {"path": str(data), "type": "Directory"}}
    kernels = {"hostPath": {"path": str(folder / "kernels"), "type": "Directory"}}
    return {
        "image": {"repository": image.NAME, "tag": "first", "pullPolicy": "Never"},
        "data": [{"name": "samples", "mountPath": "/data", "volume": host}],
        "settings": {
            "catalogues": ["/data/catalogue.json"],
            "unit_events": UNIT_EVENTS,
            "snapshot_seconds": 5.0,
            # the next job must do all again
            "gc_seconds": GC_SECONDS,
            "keep_partials_days": 0.0,
        },
        "api": {"resources": {**small, "limits": {"memory": "6Gi"}}},
        "driver": {"resources": {**small, "limits": {"memory": "3Gi"}}},
        "scheduler": {"resources": {**small, "limits": {"memory": "3Gi"}}},
        "workers": {
            "replicas": 1,
            "processes": 1,
            "cpu": "50m",
            "memory": "2Gi",
            "grace": 120,
            "kernelCache": kernels,
        },
    }


def volumes(folder: Path) -> list[dict[str, Any]]:
    """Make folders for the claims of the chart, and return the volumes that are these folders."""
    made = []
    for name in ("state", "store", "kernels"):
        (folder / name).mkdir(parents=True)
        os.chown(folder / name, 1000, 1000)
    for name, mode, size in (("state", "ReadWriteOnce", "10Gi"), ("store", "ReadWriteMany", "200Gi")):
        spec = {
            "capacity": {"storage": size},
            "accessModes": [mode],
            "hostPath": {"path": str(folder / name), "type": "Directory"},
            "claimRef": {"namespace": NAMESPACE, "name": f"{FULLNAME}-{name}"},
            "persistentVolumeReclaimPolicy": "Retain",
        }
        made.append(
            {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
        )
    return made


@dataclass
class Proof:
    """What was seen; told as it happens."""

    measured: dict[str, Any] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def note(self, name: str, value: object) -> None:
        """Keep a number or a fact."""
        self.measured[name] = round(value, 2) if isinstance(value, float) else value
        print(f"{time.monotonic() - self.began:7.1f} s  {name}: {self.measured[name]}", flush=True)

    def check(self, name: str, holds: bool, why: object = "") -> None:
        """Keep whether something holds that must."""
        self.note(name, holds)
        if not holds:
            self.failed.append(f"{name} {why}".strip())


@dataclass
class Release:
    """The chart, installed on a node."""

    node: Node
    folder: Path
    proof: Proof

    def pods(self, component: str, *, of_now: bool = True) -> list[dict[str, Any]]:
        """Return the pods of a component; ``of_now``: without those that are ending."""
        found = self.node.listed("pods", NAMESPACE, f"app.kubernetes.io/component={component}")
        return [pod for pod in found if not (of_now and "deletionTimestamp" in pod["metadata"])]

    def names(self, component: str) -> set[str]:
        """Return the names of the pods of a component that are ready."""
        return {pod["metadata"]["name"] for pod in self.pods(component) if ready(pod)}

    def kubectl(self, *words: object) -> str:
        """Run kubectl in the release's namespace."""
        return self.node.kubectl("--namespace", NAMESPACE, *words)

    def upgrade(self, *changes: str) -> None:
        """Run helm upgrade with some values changed."""
        sets = [word for change in changes for word in ("--set", change)]
        self.node.helm("upgrade", RELEASE, CHART, "--namespace", NAMESPACE, "--reuse-values", *sets)

    def install(self, data: Path) -> None:
        """Install the chart with volumes of its own."""
        file = self.folder / "values.json"
        mounted = self.folder / "volumes"
        file.write_text(json.dumps(values(data, mounted)))
        self.node.kubectl("create", "namespace", NAMESPACE)
        made = {"apiVersion": "v1", "kind": "List", "items": volumes(mounted)}
        self.node.kubectl("apply", "--filename", "-", input=json.dumps(made))
        # so old an API server knows no default for a port's protocol when it merges by itself
        self.node.helm(
            "install", RELEASE, CHART, "--namespace", NAMESPACE, "--values", file, "--server-side=false"
        )

    def all_ready(self) -> bool:
        """Return whether every pod that should be there is ready."""
        return all(self.names(component) for component in ("service", "scheduler", "worker"))

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a client by the address of the service, with the administrator's token."""
        (service,) = [s for s in self.node.listed("services", NAMESPACE) if s["metadata"]["name"] == FULLNAME]
        token = self.kubectl(
            "exec",
            f"deployment/{FULLNAME}-service",
            "--container",
            "api",
            "--",
            "cat",
            "/var/lib/binworks/token",
        )
        port = service["spec"]["ports"][0]["port"]
        with Client(f"http://{service['spec']['clusterIP']}:{port}", token=token.strip()) as client:
            yield client


def ready(pod: dict[str, Any]) -> bool:
    """Return whether Kubernetes calls a pod ready."""
    conditions = pod["status"].get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


class JobLostError(Exception):
    """The job failed, which nothing that is done here may cause."""


@dataclass
class Work:
    """A job that runs, and after its end the same anew; each must come to the tensor of this machine."""

    client: Client
    reference: str
    proof: Proof
    job: Job = field(init=False)
    jobs: int = 0

    def begin(self) -> float:
        """Submit the demo's job, and return the seconds to its first unit."""
        names = [entry["name"] for entry in self.client.datasets()]
        self.job = self.client.submit("w_mass", names, corrections="demo", label="kubernetes")
        self.jobs += 1
        return wait("the first unit", lambda: self.status().units_done, READY_SECONDS)

    def busy(self, what: str) -> None:
        """See that a job is running: this one, or the next."""
        if self.status().state in FINISHED:
            self.settle()
            time.sleep(2 * GC_SECONDS)
            self.begin()
        self.proof.note(f"{what}: begins in job {self.jobs} at", self.share())

    def share(self) -> str:
        """Return how far the job is, in words."""
        status = self.status()
        return f"{status.units_done} of {status.units_total} units"

    def settle(self) -> None:
        """Wait until the job has ended, and compare its tensor."""
        which = f"job {self.jobs}"
        wait(f"the end of {which}", lambda: self.status().state in FINISHED, JOB_SECONDS)
        status = self.status()
        self.proof.check(f"{which}: complete", status.complete and not status.missing_events, status)
        self.proof.note(f"{which}: units", status.units_total)
        self.proof.note(f"{which}: attempts that came to nothing", self.lost())
        found = fingerprint(self.job.tensor())
        self.proof.note(f"{which}: tensor", found)
        same = found == self.reference
        self.proof.check(f"{which}: tensor of this machine, bit by bit", same, self.reference)

    def progress(self, units: int, what: str) -> None:
        """Wait until so many more units are done, or all, and note after how many seconds."""
        aim = self.status().units_done + units

        def reached() -> bool:
            status = self.status()
            return status.units_done >= min(aim, status.units_total)

        took = wait(f"units after {what}", reached, READY_SECONDS)
        self.proof.note(f"{what}: seconds to {units} more units, or the end", took)

    def status(self) -> Status:
        """Return how the job is.

        Raises
        ------
        JobLostError
            It failed.
        """
        status = self.job.status()
        if status.error is not None:
            raise JobLostError(str(status.error))
        return status

    def lost(self) -> int:
        """Return how many attempts at units came to nothing so far."""
        units = self.job.units(limit=100_000)
        return sum(unit["attempts"] - 1 for unit in units if unit["attempts"])


@dataclass
class Disturbances:
    """What is done while jobs run."""

    release: Release
    work: Work
    proof: Proof

    def all(self) -> None:
        """Do everything, one after another."""
        for name, disturb in (
            ("scale up", self.scale_up),
            ("drain", self.drain),
            ("empty the node", self.empty_node),
            ("kill worker", lambda: self.kill("worker")),
            ("kill scheduler", lambda: self.kill("scheduler")),
            ("kill service", lambda: self.kill("service")),
            ("upgrade", self.upgrade),
            ("scale down", self.scale_down),
        ):
            self.work.busy(name)
            disturb()
            self.proof.note(f"{name}: ends at", self.work.share())

    def scale_up(self) -> None:
        """One worker to three."""
        others = {part: self.release.names(part) for part in ("service", "scheduler", "worker")}
        began = time.monotonic()
        self.release.upgrade("workers.replicas=3")
        self.proof.note("scale up: helm upgrade, seconds", time.monotonic() - began)
        took = wait("three workers", lambda: len(self.release.names("worker")) == 3, READY_SECONDS)
        self.proof.note("scale up: three pods ready, seconds", took)
        wait("three at work", lambda: len(self.workers_at_work()) == 3, READY_SECONDS)
        self.proof.note("scale up: all three at work, seconds", time.monotonic() - began)
        kept = all(names <= self.release.names(part) for part, names in others.items())
        self.proof.check("scale up: no pod was touched", kept)

    def workers_at_work(self) -> set[str]:
        """Return the pods whose log says that their worker has joined."""
        joined = set()
        for name in self.release.names("worker"):
            if "Registered to" in self.release.kubectl("logs", name):
                joined.add(name)
        return joined

    def drain(self) -> None:
        """Stop a worker's pod as a node that is emptied does: it finishes its unit first."""
        victim = sorted(self.workers_at_work())[0]
        lost = self.work.lost()
        began = time.monotonic()
        self.release.kubectl("delete", "pod", victim, "--wait=true", f"--timeout={READY_SECONDS:.0f}s")
        self.proof.note("drain: seconds until the pod was gone", time.monotonic() - began)
        self.proof.check("drain: no unit was done again", self.work.lost() == lost, self.work.lost())
        wait("its successor", lambda: len(self.release.names("worker")) == 3, READY_SECONDS)

    def empty_node(self) -> None:
        """Evict the workers by `kubectl drain`: one at a time, as the budget says, each with its unit done."""
        before, lost = self.release.names("worker"), self.work.lost()
        selector = "--pod-selector=app.kubernetes.io/component=worker"
        # a pod with scratch space of its own is evicted if one says so
        words = ("drain", "node", selector, "--delete-emptydir-data", f"--timeout={READY_SECONDS:.0f}s")
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            drained = pool.submit(self.release.node.kubectl, *words)
            wait("an eviction", lambda: len(before & self.release.names("worker")) == 2, READY_SECONDS)
            time.sleep(BUDGET_SECONDS)  # nothing can take its place: there is no other node
            stay = before & self.release.names("worker")
            self.release.node.kubectl("uncordon", "node")
            self.proof.check("empty the node: the budget keeps the others", len(stay) == 2, stay)
            drained.result()
        self.proof.note("empty the node: seconds until all had gone", time.monotonic() - began)
        wait("their successors", lambda: len(self.release.names("worker") - before) == 3, READY_SECONDS)
        self.proof.check("empty the node: no unit was done again", self.work.lost() == lost, self.work.lost())

    def kill(self, component: str) -> None:
        """End a pod by force, and see that another takes its place and the job goes on."""
        before = self.release.names(component)
        victim = sorted(before)[0]
        began = time.monotonic()
        self.release.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
        wait(
            f"a new {component}",
            lambda: len(self.release.names(component) - {victim}) >= len(before),
            READY_SECONDS,
        )
        self.proof.note(f"kill {component}: seconds until another was ready", time.monotonic() - began)
        wait("the API", self.work.status, READY_SECONDS)
        self.work.progress(2, f"kill {component}")

    def upgrade(self) -> None:
        """Replace every pod by one of another tag."""
        before = {name for part in ("service", "scheduler", "worker") for name in self.release.names(part)}
        began = time.monotonic()
        self.release.upgrade("image.tag=second")

        def replaced() -> bool:
            now = {part: self.release.names(part) for part in ("service", "scheduler", "worker")}
            return len(now["worker"]) == 3 and all(names and not names & before for names in now.values())

        wait("all pods of the new version", replaced, 2 * READY_SECONDS)
        self.proof.note("upgrade: seconds until all pods were new", time.monotonic() - began)
        self.work.progress(2, "upgrade")

    def scale_down(self) -> None:
        """Three workers to two."""
        began = time.monotonic()
        self.release.upgrade("workers.replicas=2")
        wait("two workers", lambda: len(self.release.pods("worker", of_now=False)) == 2, READY_SECONDS)
        self.proof.note("scale down: seconds until the third was gone", time.monotonic() - began)


def prove(here: Node, archive: Path, data: Path, folder: Path, reference: str, proof: Proof) -> None:
    """Do it all; the report is filled on the way."""
    with here.running(archive, image.PAUSE) as took:
        for name, seconds in took.items():
            proof.note(f"node: {name}, seconds", seconds)
        for tag in ("first", "second"):
            here.tag(image.BUILT, f"{image.NAME}:{tag}")
        release = Release(here, folder, proof)
        try:
            _run_job(release, data, reference)
        finally:
            _keep_logs(release)
            proof.check("every part of Kubernetes lived to the end", not here.alive(), here.alive())


def _run_job(release: Release, data: Path, reference: str) -> None:
    proof = release.proof
    began = time.monotonic()
    release.install(data)
    proof.note("install: helm, seconds", time.monotonic() - began)
    wait("all pods", release.all_ready, READY_SECONDS)
    proof.note("install: all pods ready, seconds", time.monotonic() - began)
    _permissions(release)
    with release.client() as client:
        work = Work(client, reference, proof)
        proof.note("first unit: seconds since the job was submitted", work.begin())
        proof.note("first unit: seconds since helm install", time.monotonic() - began)
        Disturbances(release, work, proof).all()
        work.settle()


def _permissions(release: Release) -> None:
    """See that no pod may ask anything of Kubernetes, and none has a token to do so."""
    for component in ("service", "scheduler", "worker"):
        account = f"system:serviceaccount:{NAMESPACE}:{FULLNAME}-{component}"
        may = []
        for what in ("get secrets", "list pods", "create pods", "delete deployments"):
            try:
                release.kubectl("auth", "can-i", *what.split(), "--as", account)
            except RuntimeError:  # says no by its exit code
                continue
            may.append(what)
        release.proof.check(f"permissions: {component} has none", not may, may)


def _keep_logs(release: Release) -> None:
    folder = release.folder / "logs"
    folder.mkdir(exist_ok=True)
    words = ("get", "pods,events,deployments,persistentvolumeclaims", "--output", "wide")
    for name, ask in {
        "overview": lambda: release.kubectl(*words),
        "pods": lambda: release.kubectl("describe", "pods"),
        **{part: _log_of(release, part) for part in ("service", "scheduler", "worker")},
    }.items():
        try:
            (folder / f"{name}.log").write_text(ask())
        except RuntimeError as error:
            (folder / f"{name}.log").write_text(str(error))


def _log_of(release: Release, component: str) -> Callable[[], str]:
    selector = f"app.kubernetes.io/component={component}"
    return lambda: release.kubectl(
        "logs", "--selector", selector, "--all-containers", "--prefix", "--tail=-1"
    )


def local_tensor(data: Path, home: Path, note: Path, events: int) -> str:
    """Return the fingerprint of the tensor that a service on this machine makes of the same events."""
    wanted = {"events": events, "seed": SEED, "unit_events": UNIT_EVENTS, "code": image.revision()}
    if note.exists() and (known := json.loads(note.read_bytes()))["of"] == wanted:
        return str(known["tensor"])
    options = ("--catalogue", data / "catalogue.json", "--unit-events", UNIT_EVENTS)
    with running_service(home, *options) as service:
        names = [entry["name"] for entry in service.client.datasets()]
        job = service.client.submit("w_mass", names, corrections="demo", label="local")
        job.wait(JOB_SECONDS)
        found = fingerprint(job.tensor())
    note.write_text(json.dumps({"of": wanted, "tensor": found}))
    return found


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--out", type=Path, default=Path("kubernetes-proof"), help="folder for all that is made"
    )
    made.add_argument("--programs", type=Path, help="folder with Kubernetes' programs, kubectl and helm")
    made.add_argument(
        "--events", type=int, default=EVENTS, help="W -> mu nu in the data (default: %(default)s)"
    )
    made.add_argument("--archive", type=Path, help="image that was built before, as `image.py` saves it")
    made.add_argument("--inside", help=argparse.SUPPRESS)
    return made


def outside(given: argparse.Namespace, out: Path) -> int:
    """Prepare what needs this machine, then go on in namespaces of our own."""
    # as an exception, so that what was started is ended on the way out
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    data = out / "data"
    sample(data, events=given.events, seed=SEED, jobs=os.cpu_count() or 1)
    reference = local_tensor(data, out / "home", out / "reference.json", given.events)
    archive = given.archive or image.build(out / "image").archive
    cgroup = f"binworks-proof-{os.getpid()}"
    enter = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inside = [*sys.argv, "--inside", f"{cgroup},{reference}", "--archive", str(archive.absolute())]
    node.make_cgroup(cgroup)
    try:
        return subprocess.run([*enter, "--propagation=private", sys.executable, *inside]).returncode
    finally:
        if left := node.remove_cgroup(cgroup):
            print(f"left behind: {left}", file=sys.stderr)
        for large in (*out.glob("*/node/containerd"), *out.glob("*/volumes")):
            shutil.rmtree(large, ignore_errors=True)


def inside(given: argparse.Namespace, out: Path) -> int:
    """Run the node and the job; this is the first process of the namespace, and all others end with it."""
    cgroup, reference = given.inside.split(",")
    proof = Proof()
    folder = out / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir()
    here = Node(folder / "node", node.find(given.programs), cgroup)
    try:
        prove(here, given.archive, out / "data", folder, reference, proof)
    except Exception as error:
        proof.check("to the end", False, repr(error))
        raise
    finally:
        report = {"failed": proof.failed, "revision": image.revision(), **proof.measured}
        (folder / "proof.json").write_text(json.dumps(report, indent=1) + "\n")
        print(f"{len(proof.failed)} failed: {proof.failed}" if proof.failed else "all holds", flush=True)
    return 1 if proof.failed else 0


def main() -> int:
    """Run the proof."""
    given = parser().parse_args()
    if os.geteuid() != 0:
        sys.exit("Namespaces, containers and mounts need root.")
    try:
        node.find(given.programs)
    except FileNotFoundError as error:
        sys.exit(str(error))
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    return inside(given, out) if given.inside else outside(given, out)


if __name__ == "__main__":
    sys.exit(main())
