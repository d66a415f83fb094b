"""A rehearsal of the chart without Kubernetes: its containers as processes here, looked after as a kubelet would.

What is real: each container's command, arguments, environment, user, mounts, read-only root, probes, hooks and grace
come from the rendered chart. Each pod has a network of its own with an address, and each container is the first
process of its own process space, sees its volumes at their paths, has no capability, and cannot write its image, which
is this machine's root with this repository's Python. Deployments are rolled as their strategy says.

What is not: there is one node, no limit of memory, no policy of the network; a service is an address that moves to the
first pod that is ready; and names are resolved by a file.
"""

from __future__ import annotations

import ctypes
import hashlib
import http.client
import json
import os
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from helm_chart import NAMESPACE, Manifest, Rendered
from hosts.network import Host, network
from hosts.network import why_not as why_no_network

HOUSE = Path(__file__).resolve().parent.parent
TICK_SECONDS = 0.1
BACKOFF_SECONDS = (0.0, 10.0, 20.0, 40.0)
"""Before a container is started again, as a kubelet waits."""
NEW_NETWORK = 0x40000000
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
IMAGE_ENVIRONMENT = {
    "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LANG": "C.UTF-8",
}
"""What deploy/Containerfile sets."""
IMAGE = list(dict.fromkeys(Path(path) for path in (sys.prefix, sys.base_prefix, HOUSE)))
"""What containers must see of this machine, and may not be hidden by a volume."""

T = TypeVar("T")


def why_not() -> str | None:
    """Return why there can be no rehearsal here."""
    if (reason := why_no_network()) is not None:
        return reason
    missing = [tool for tool in ("setpriv", "chroot", "mount") if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    layers = "lowerdir=/,upperdir=u,workdir=w"
    script = f"mount -t tmpfs t /mnt && cd /mnt && mkdir u w r && mount -t overlay o -o {layers} r"
    tried = ["unshare", "--mount", "sh", "-c", script]
    if subprocess.run(tried, capture_output=True).returncode:
        return "this kernel lays no file system over the root"
    closed = [path for path in IMAGE if path.stat().st_mode & 0o005 != 0o005]
    if closed:
        return f"only their owner may read {closed}"
    return None


# containers


@dataclass
class Container:
    """A container of a pod: what it is, and its process if there is one."""

    pod: Pod
    spec: Manifest
    process: subprocess.Popen[bytes] | None = None
    begun: float = 0.0
    not_before: float = 0.0
    restarts: int = 0
    code: int | None = None
    started: bool = False
    ready: bool = False
    failures: dict[str, int] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    answers: dict[str, Future[bool]] = field(default_factory=dict)
    killed_for: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name in the pod."""
        return str(self.spec["name"])

    @property
    def log(self) -> Path:
        """File with what it wrote."""
        return self.pod.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Number of its first process, on this machine."""
        if self.process is None or self.process.poll() is not None:
            return None
        number = self.process.pid
        with suppress(OSError, IndexError):  # it has just begun, or has just ended
            return int(Path(f"/proc/{number}/task/{number}/children").read_text().split()[0])
        return None

    def start(self) -> None:
        """Start the process."""
        environment = self.pod.environment(self.spec)
        words = [expanded(w, environment) for w in (*self.spec["command"], *self.spec.get("args", ()))]
        command = [
            "setpriv",
            "--pdeathsig=KILL",
            *self.pod.host.enter,
            "unshare",
            "--mount",
            "--pid",
            "--fork",
        ]
        command += ["--kill-child", "sh", "-ec", self.pod.script(self.spec, words, environment)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.begun = time.monotonic()
        self.started = "startupProbe" not in self.spec
        self.ready = False
        self.failures, self.asked, self.answers = {}, {}, {}

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send its first process a signal."""
        if (pid := self.pid) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def enter(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Run a command in it, as its user."""
        pid = self.pid
        if pid is None:
            return subprocess.CompletedProcess(command, 1, b"", b"it does not run")
        inside = [
            "nsenter",
            f"--target={pid}",
            "--mount",
            "--pid",
            "--net",
            f"--root=/proc/{pid}/root",
            "--wd=/",
        ]
        words = [*inside, *self.pod.as_user(), *_assigned(self.pod.environment(self.spec)), *command]
        return subprocess.run(words, capture_output=True)

    def look(self, now: float, pool: ThreadPoolExecutor) -> None:
        """Start it again if it has ended, ask its probes, and do what they say."""
        if self.process is None:
            if now >= self.not_before:
                self.start()
            return
        if (code := self.process.poll()) is not None:
            self.code, self.process, self.ready = code, None, False
            self.not_before = now + BACKOFF_SECONDS[min(self.restarts, 3)]
            self.restarts += 1
            return
        for kind in ("startupProbe",) if not self.started else ("readinessProbe", "livenessProbe"):
            self._probe(kind, now, pool)
        if "readinessProbe" not in self.spec:
            self.ready = self.started

    def _probe(self, kind: str, now: float, pool: ThreadPoolExecutor) -> None:
        probe = self.spec.get(kind)
        if probe is None:
            return
        if kind not in self.answers:
            if now - self.asked.get(kind, 0.0) >= probe.get("periodSeconds", 10):
                self.asked[kind] = now
                self.answers[kind] = pool.submit(self._ask, probe)
            return
        if not self.answers[kind].done():
            return
        good = self.answers.pop(kind).result()
        self.failures[kind] = 0 if good else self.failures.get(kind, 0) + 1
        if kind == "startupProbe" and good:
            self.started = True
        if kind == "readinessProbe":
            self.ready = good or (self.ready and self.failures[kind] < probe.get("failureThreshold", 3))
        elif self.failures[kind] >= probe.get("failureThreshold", 3):
            self.killed_for.append(kind)
            self.kill()

    def _ask(self, probe: Manifest) -> bool:
        seconds = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            return self.enter(probe["exec"]["command"]).returncode == 0
        port = next(p["containerPort"] for p in self.spec["ports"] if p["name"] == probe["httpGet"]["port"])
        connection = http.client.HTTPConnection(self.pod.host.address, port, timeout=seconds)
        try:
            connection.request("GET", probe["httpGet"]["path"])
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def expanded(word: str, environment: Mapping[str, str]) -> str:
    """Return an argument with its ``$(NAME)`` replaced, as Kubernetes does it."""
    for name, value in environment.items():
        word = word.replace(f"$({name})", value)
    return word


def _assigned(environment: Mapping[str, str]) -> list[str]:
    return ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]


# pods


@dataclass
class Pod:
    """A pod: its address, its folder with its own volumes, its containers."""

    name: str
    component: str
    template: Manifest
    host: Host
    node: Node
    folder: Path
    containers: list[Container] = field(default_factory=list)
    first: list[Container] = field(default_factory=list)
    ending: threading.Thread | None = None

    def __post_init__(self) -> None:
        spec = self.template["spec"]
        self.volumes = {volume["name"]: self._made(volume) for volume in spec["volumes"]}
        self.first = [Container(self, c) for c in spec.get("initContainers", ())]
        self.containers = [Container(self, c) for c in spec["containers"]]

    @property
    def user(self) -> int:
        """As which its processes run."""
        return int(self.template["spec"]["securityContext"]["runAsUser"])

    @property
    def group(self) -> int:
        """As which they run, and which its volumes belong to."""
        return int(self.template["spec"]["securityContext"]["runAsGroup"])

    @property
    def ready(self) -> bool:
        """Whether services may send something here."""
        return self.ending is None and all(container.ready for container in self.containers)

    def container(self, name: str) -> Container:
        """Return one of its containers."""
        (found,) = (container for container in self.containers if container.name == name)
        return found

    def look(self, now: float, pool: ThreadPoolExecutor) -> None:
        """Bring it a step on."""
        for container in self.first:
            if container.code != 0:
                container.look(now, pool)
                return
        for container in self.containers:
            container.look(now, pool)

    def end(self) -> None:
        """End it as a kubelet does: hooks, SIGTERM, and after its grace SIGKILL; does not wait."""
        self.ending = threading.Thread(target=self._end, daemon=True)
        self.ending.start()

    def _end(self) -> None:
        ends = [
            threading.Thread(target=self._end_container, args=(c,)) for c in (*self.first, *self.containers)
        ]
        for thread in ends:
            thread.start()
        for thread in ends:
            thread.join()

    def _end_container(self, container: Container) -> None:
        grace = time.monotonic() + self.template["spec"]["terminationGracePeriodSeconds"]
        if container.process is None:
            return
        if (hook := container.spec.get("lifecycle", {}).get("preStop")) is not None:
            container.enter(hook["exec"]["command"])
        container.kill(signal.SIGTERM)
        try:
            container.code = container.process.wait(grace - time.monotonic())
        except subprocess.TimeoutExpired:
            container.killed_for.append("grace")
            container.kill()
            container.code = container.process.wait()
        container.process = None

    def environment(self, spec: Manifest) -> dict[str, str]:
        """Return what a container finds in its environment."""
        found = dict(IMAGE_ENVIRONMENT)
        for variable in spec["env"]:
            value = variable["value"] if "value" in variable else self._value(spec, variable["valueFrom"])
            if value is not None:
                found[variable["name"]] = value
        return found

    def _value(self, spec: Manifest, source: Manifest) -> str | None:
        if "fieldRef" in source:
            facts = {"metadata.name": self.name, "status.podIP": self.host.address}
            return facts[source["fieldRef"]["fieldPath"]]
        if "resourceFieldRef" in source:
            _, _, resource = source["resourceFieldRef"]["resource"].partition(".")
            text = spec["resources"]["limits"][resource]
            return str(int(float(text[:-2]) * UNITS[text[-2:]]))
        ref = source["secretKeyRef"]
        secret = self.node.files("Secret", ref["name"])
        return None if ref["key"] not in secret and ref.get("optional") else secret[ref["key"]].decode()

    def as_user(self) -> list[str]:
        """Return what stands before a command that its user runs; nothing outlives this program."""
        ids = [f"--reuid={self.user}", f"--regid={self.group}", f"--groups={self.group}"]
        return [
            "setpriv",
            *ids,
            "--no-new-privs",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--pdeathsig=KILL",
        ]

    def script(self, spec: Manifest, words: Sequence[str], environment: Mapping[str, str]) -> str:
        """Return the shell script that makes a container's file system and becomes its command."""
        scratch = self.folder / f"root-{spec['name']}"
        scratch.mkdir(exist_ok=True)
        mounts = sorted(spec["volumeMounts"], key=lambda mount: str(mount["mountPath"]))
        kept = [path for path in IMAGE if any(within(path, m["mountPath"]) for m in mounts)]
        lines = [f"cd {shlex.quote(str(scratch))}", "mount --make-rprivate /", "mount -t tmpfs tmpfs ."]
        # its file systems are private: the folder above is entered anew, now that something lies over it
        lines += [f"cd {shlex.quote(str(scratch))}", "mkdir up work root kept"]
        lines += ["mount -t overlay image -o lowerdir=/,upperdir=up,workdir=work root"]
        lines += ["mount -t proc proc root/proc", "mount --rbind /dev root/dev"]
        shut = {up for path in IMAGE for up in path.parents if not up.stat().st_mode & stat.S_IXOTH}
        lines += [f"chmod a+x root{path}" for path in shut]
        lines += [f"cp -r {shlex.quote(str(self.node.layer))}/. root/"]
        for number, path in enumerate(kept):
            lines += [f"mkdir kept/{number}", f"mount --bind root{path} kept/{number}"]
        for mount in mounts:
            lines += self._mounted(mount)
        for number, path in enumerate(kept):
            lines += [f"mkdir -p root{path}", f"mount --bind kept/{number} root{path}"]
        lines += ["mount -o remount,ro root"]
        command = [*self.as_user(), *_assigned(environment), *words]
        lines += [f"exec chroot root {shlex.join(command)}"]
        return "\n".join(lines)

    def _mounted(self, mount: Manifest) -> list[str]:
        source = self.volumes[mount["name"]]
        target = shlex.quote(f"root{mount['mountPath']}")
        if "subPath" in mount:
            source /= mount["subPath"]
        # below a volume that is mounted, the place is made in that volume, as a kubelet does
        place = f"mkdir -p {target}" if source.is_dir() else f"test -e {target} || : > {target}"
        lines = [place, f"mount --bind {shlex.quote(str(source))} {target}"]
        return [*lines, f"mount -o remount,bind,ro {target}"] if mount.get("readOnly") else lines

    def _made(self, volume: Manifest) -> Path:
        """Return the folder of a volume, made if it is the pod's own."""
        if "persistentVolumeClaim" in volume:
            return self._owned(self.node.claims / volume["persistentVolumeClaim"]["claimName"])
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        path = self.folder / "volumes" / volume["name"]
        if "emptyDir" in volume:
            return self._owned(path)
        kind, key = ("Secret", "secretName") if "secret" in volume else ("ConfigMap", "name")
        source = volume["secret" if kind == "Secret" else "configMap"]
        path.mkdir(parents=True)
        chosen = {item["key"] for item in source.get("items", ())}
        for name, content in self.node.files(kind, source[key]).items():
            if chosen and name not in chosen:
                continue
            (path / name).write_bytes(content)
            (path / name).chmod(source.get("defaultMode", 0o644) | stat.S_IRGRP)
            os.chown(path / name, 0, self.group)
        return path

    def _owned(self, path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, 0, self.group)
        path.chmod(0o2775)
        return path


def within(path: Path, folder: str) -> bool:
    """Whether a path lies below a folder."""
    return Path(folder) in path.parents


# the node


class Node:
    """A node with a kubelet and what rolls Deployments, in a thread of its own; from `rehearsal`."""

    def __init__(self, folder: Path, hosts: Sequence[Host], layer: Mapping[str, str]) -> None:
        self.folder = folder
        self.claims = folder / "claims"
        self.own, *self.free = hosts
        for host in self.free:  # libraries find their own address by the way to the rest of the world
            host.space.run("ip", "route", "add", "default", "via", self.own.address)
        self.pods: list[Pod] = []
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.ended: list[Pod] = []
        self.layer = folder / "layer"
        self.lock = threading.RLock()
        self._layer = dict(layer)
        self._stop = threading.Event()
        self._addresses: dict[str, str] = {}
        self._holders: dict[str, Host] = {}
        self._pool = ThreadPoolExecutor(8, initializer=self._enter)
        self._client = ThreadPoolExecutor(1, initializer=self._enter)
        self._thread = threading.Thread(target=self._run, daemon=True, name="kubelet")
        self.fault: BaseException | None = None

    def _enter(self) -> None:
        """Let all connections of this thread begin at the node."""
        with Path(f"/proc/{self.own.space.holder}/ns/net").open() as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "the network cannot be entered")

    def ask(self, function: Callable[[], T]) -> T:
        """Return what a function returns that is called at the node."""
        return self._client.submit(function).result()

    def files(self, kind: str, name: str) -> dict[str, bytes]:
        """Return the files of a secret or a config map."""
        found = self.objects[kind, name]
        plain = {key: value.encode() for key, value in found.get("stringData", {}).items()}
        if kind == "Secret":
            return plain | {key: b64decode(value) for key, value in found.get("data", {}).items()}
        return {key: value.encode() for key, value in found.get("data", {}).items()}

    def add(self, name: str, data: Mapping[str, str]) -> None:
        """Add a secret that is not of the chart."""
        with self.lock:
            self.objects["Secret", name] = {"stringData": dict(data)}

    def apply(self, rendered: Rendered) -> None:
        """Take what helm rendered. Certificates that are there are kept, as helm does when it can look."""
        with self.lock:
            wanted = {(m["kind"], m["metadata"]["name"]): m for m in rendered.all}
            for key, manifest in wanted.items():
                if manifest.get("type") != "kubernetes.io/tls" or key not in self.objects:
                    self.objects[key] = manifest
            services = [name for kind, name in self.objects if kind == "Service"]
            for number, name in enumerate(services):
                self._addresses.setdefault(name, f"10.77.0.{100 + number}")
            self._write_layer()

    def _write_layer(self) -> None:
        """Write what lies over the image: names of services, and what the test adds."""
        lines = ["127.0.0.1 localhost"]
        for name, address in self._addresses.items():
            lines.append(f"{address} {name} {name}.{NAMESPACE} {name}.{NAMESPACE}.svc")
        for path, text in {**self._layer, "/etc/hosts": "\n".join(lines) + "\n"}.items():
            file = self.layer / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def address(self, service: str, port: str) -> str:
        """Return where a service is reached from the node: a pod behind it, at the port that it leads to."""
        spec = self.objects["Service", service]["spec"]
        target = next(p["targetPort"] for p in spec["ports"] if p["name"] == port)
        pod = next(pod for pod in self.pods if pod.ready and selected(spec["selector"], pod))
        numbers = {p["name"]: p["containerPort"] for c in pod.containers for p in c.spec.get("ports", ())}
        return f"{pod.host.address}:{numbers[target]}"

    def of(self, component: str) -> list[Pod]:
        """Return the pods of a component that shall stay."""
        return [pod for pod in self.pods if pod.component == component and pod.ending is None]

    def settled(self) -> bool:
        """Whether all pods are as their Deployments say now, so many as they say, and ready."""
        with self.lock:
            wanted = [m["spec"] for (kind, _), m in self.objects.items() if kind == "Deployment"]
            return len(self.pods) == sum(spec["replicas"] for spec in wanted) and all(
                sum(pod.ready and pod.template == spec["template"] for pod in self.pods) == spec["replicas"]
                for spec in wanted
            )

    def until(self, reached: Callable[[], Any], what: str, seconds: float = 300.0) -> Any:
        """Wait for something; return it."""
        end = time.monotonic() + seconds
        while not (found := reached()):
            if self.fault is not None:
                raise self.fault
            assert time.monotonic() < end, f"{what}: not within {seconds} s\n{self.story()}"
            time.sleep(0.05)
        return found

    def story(self) -> str:
        """Return how all containers are, and what they wrote last."""
        told = []
        for pod in [*self.pods, *self.ended]:
            for container in (*pod.first, *pod.containers):
                about = f"{pod.name}/{container.name}: ready {container.ready}, ended with {container.code}, "
                about += f"{container.restarts} restarts, killed for {container.killed_for}"
                log = container.log.read_text(errors="replace")[-1500:] if container.log.exists() else ""
                told.append(f"--- {about}\n{log}")
        return "\n".join(told)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End all at once."""
        self._stop.set()
        self._thread.join()
        for pod in self.pods:
            for container in (*pod.first, *pod.containers):
                container.kill()
                if container.process is not None:
                    with suppress(subprocess.TimeoutExpired):
                        container.process.wait(10)
        for pool in (self._pool, self._client):
            pool.shutdown()

    def _run(self) -> None:
        try:
            while not self._stop.wait(TICK_SECONDS):
                with self.lock:
                    self._tick(time.monotonic())
        except BaseException as error:  # noqa: BLE001  the test raises it
            self.fault = error

    def _tick(self, now: float) -> None:
        for pod in list(self.pods):
            if pod.ending is None:
                pod.look(now, self._pool)
            elif not pod.ending.is_alive():
                self.pods.remove(pod)
                self.ended.append(pod)
                self._release(pod.host)
                self.free.append(pod.host)
        for (kind, _), manifest in self.objects.items():
            if kind == "Deployment":
                self._roll(manifest)
            elif kind == "Service":
                self._lead(manifest)

    def _roll(self, deployment: Manifest) -> None:
        """Bring the pods of a Deployment a step nearer to what is wanted."""
        spec = deployment["spec"]
        component = deployment["metadata"]["labels"]["app.kubernetes.io/component"]
        pods = [pod for pod in self.pods if pod.component == component]
        old = [pod for pod in pods if pod.template != spec["template"] and pod.ending is None]
        new = [pod for pod in pods if pod.template == spec["template"] and pod.ending is None]
        replicas = spec["replicas"]
        if spec.get("strategy", {}).get("type") == "Recreate":
            for pod in old:
                pod.end()
            if len(pods) == len(new):
                self._adjust(component, spec["template"], new, replicas)
            return
        surge, away = limits(spec["strategy"]["rollingUpdate"], replicas)
        kept = replicas - away
        ready = sum(pod.ready for pod in (*old, *new))
        for pod in old:
            if not pod.ready or ready > kept:
                ready -= pod.ready
                pod.end()
                old = [other for other in old if other is not pod]
        self._adjust(component, spec["template"], new, min(replicas, replicas + surge - len(old)))

    def _adjust(self, component: str, template: Manifest, pods: Sequence[Pod], count: int) -> None:
        for _ in range(count - len(pods)):
            host = self.free.pop(0)
            name = f"{component}-{hashlib.sha256(json.dumps(template).encode()).hexdigest()[:6]}-{secrets.token_hex(3)}"
            folder = self.folder / "pods" / name
            folder.mkdir(parents=True)
            self.pods.append(Pod(name, component, template, host, self, folder))
        for pod in pods[max(count, 0) :]:
            pod.end()

    def _lead(self, service: Manifest) -> None:
        """Move a service's address to a pod that is ready."""
        address = self._addresses[service["metadata"]["name"]]
        pods = [pod for pod in self.pods if pod.ready and selected(service["spec"]["selector"], pod)]
        holder = self._holders.get(address)
        if not pods or holder in [pod.host for pod in pods]:
            return
        if holder is not None:
            self._drop(address, holder)
        pods[0].host.space.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self._holders[address] = pods[0].host
        for host in (self.own, *self.free, *(pod.host for pod in self.pods)):
            host.space.run("ip", "neighbour", "flush", "dev", "eth0")

    def _release(self, host: Host) -> None:
        for address, holder in list(self._holders.items()):
            if holder is host:
                self._drop(address, host)

    def _drop(self, address: str, host: Host) -> None:
        host.space.run("ip", "address", "delete", f"{address}/24", "dev", "eth0")
        del self._holders[address]


def selected(selector: Mapping[str, str], pod: Pod) -> bool:
    """Whether a service's selector means a pod."""
    labels: Mapping[str, str] = pod.template["metadata"]["labels"]
    return selector.items() <= labels.items()


def limits(rolling: Mapping[str, Any], replicas: int) -> tuple[int, int]:
    """Return how many pods more, and how many fewer, there may be while a Deployment is rolled."""

    def number(given: int | str, *, up: bool) -> int:
        if isinstance(given, int):
            return given
        exact = int(given.rstrip("%")) * replicas
        return -(-exact // 100) if up else exact // 100

    surge, away = number(rolling["maxSurge"], up=True), number(rolling["maxUnavailable"], up=False)
    return surge, away if surge or away else 1


@contextmanager
def rehearsal(folder: Path, *, pods: int, modules: Mapping[str, str] | None = None) -> Iterator[Node]:
    """Give a node.

    Parameters
    ----------
    folder : Path
        For its claims, logs and pods.
    pods : int
        Most at one time, with those that are ending.
    modules : mapping, optional
        Files in the image's folder of Python packages, by their names there.
    """
    packages = sysconfig.get_path("purelib")
    layer = {f"{packages}/{name}": text for name, text in (modules or {}).items()}
    layer[f"{packages}/000-house.pth"] = f"{HOUSE / 'src'}\n"  # this repository's, whatever else is installed
    with network(pods + 1) as hosts:
        node = Node(folder, hosts, layer)
        node.start()
        try:
            yield node
        finally:
            node.close()
