"""A Kubernetes of one node, from its own programs, in the namespaces that `prove.py` has entered.

etcd, API server, controller manager, scheduler, containerd, kubelet and kube-proxy run as they do on a real node, with
a network, a DNS and folders of their own. Three things are simpler: all parts use one administrator's token, volumes
are folders that are made by hand, and dnsmasq serves the names of services, from what the API server lists. Pods have
a routed link each (CNI `ptp`); nothing enforces NetworkPolicy.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from binworks.tensors.errors import BinworksError

PROGRAMS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    *("containerd", "ctr", "runc", "dnsmasq", "iptables", "conntrack", "kubectl", "helm"),
)
ADDRESS = "10.97.0.1"
API = f"https://{ADDRESS}:6443"
PODS, SERVICES = "10.244.0.0/24", "10.96.0.0/16"
PLUGINS = ("/usr/lib/cni", "/usr/libexec/cni")
KERNEL = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What a kubelet sets for the whole machine. It finds it set: files are laid over these in our namespace."""
CONTROLLERS = Path("/sys/fs/cgroup")
START_SECONDS = 120.0


def find(folder: Path | None) -> dict[str, Path]:
    """Return the programs by name, from a folder or the path.

    Raises
    ------
    FileNotFoundError
        Which are missing.
    """
    places = ":".join(filter(None, [str(folder or ""), os.environ["PATH"], "/usr/sbin", "/sbin"]))
    found = {name: shutil.which(name, path=places) for name in PROGRAMS}
    missing = [name for name, place in found.items() if place is None]
    if missing:
        message = f"not here: {', '.join(missing)}; tests/kubernetes/build.sh makes Kubernetes' own"
        raise FileNotFoundError(message)
    return {name: Path(place) for name, place in found.items() if place is not None}


def make_cgroup(name: str) -> None:
    """Make a group for all pods below every controller (version 1) or the one hierarchy (version 2)."""
    for controller in sorted(CONTROLLERS.iterdir()):
        if not controller.is_dir() or controller.is_symlink() or controller.name == "unified":
            continue
        group = controller / name
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # empty at first, and nothing runs in an empty set
            if (controller / file).exists():
                (group / file).write_text((controller / file).read_text())


def remove_cgroup(name: str) -> list[str]:
    """Remove the group with all below it; return what is left because something still runs in it."""
    left = []
    for group in CONTROLLERS.glob(f"*/{name}"):
        for folder, _, _ in os.walk(group, topdown=False):
            for _ in range(50):
                try:
                    Path(folder).rmdir()
                except FileNotFoundError:
                    break
                except OSError:  # its last process is just ending
                    time.sleep(0.1)
                else:
                    break
            else:
                left.append(folder)
    return left


def run(*command: object, **options: Any) -> str:
    """Run a command to its end and return what it prints.

    Raises
    ------
    RuntimeError
        With what it said, if it fails.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode:
        message = f"{' '.join(words)[:300]}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        raise RuntimeError(message)
    return done.stdout


def wait(what: str, condition: Callable[[], object], seconds: float = START_SECONDS) -> float:
    """Return after how many seconds something holds.

    Raises
    ------
    TimeoutError
        It does not hold in time.
    """
    began = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - began
            last = ""
        except (RuntimeError, OSError, ValueError, BinworksError) as error:  # not there yet
            last = f": {error}"
        if time.monotonic() - began > seconds:
            message = f"{what} not within {seconds:.0f} s{last}"
            raise TimeoutError(message)
        time.sleep(0.25)


class Node:
    """One node and its control plane.

    Parameters
    ----------
    folder : Path
        For everything that is written: data, logs, sockets.
    programs : mapping
        As of `find`.
    cgroup : str
        Name of the group in which pods run, made by `make_cgroup`.
    """

    def __init__(self, folder: Path, programs: Mapping[str, Path], cgroup: str) -> None:
        self.folder, self.programs, self.cgroup = folder, programs, cgroup
        self.config = folder / "kubeconfig"
        self._token = secrets.token_hex(16)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ended = threading.Event()
        self._names: threading.Thread | None = None

    def kubectl(self, *words: object, **options: Any) -> str:
        """Run kubectl as administrator."""
        return run(self.programs["kubectl"], "--kubeconfig", self.config, *words, **options)

    def listed(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Return objects of a kind."""
        words = ["--namespace", namespace, "get", kind, "--selector", selector, "--output", "json"]
        items: list[dict[str, Any]] = json.loads(self.kubectl(*words))["items"]
        return items

    def helm(self, *words: object) -> str:
        """Run helm as administrator, in a home of its own."""
        homes = {f"HELM_{part}_HOME": str(self.folder / "helm") for part in ("CACHE", "CONFIG", "DATA")}
        environment = {**os.environ, **homes, "KUBECONFIG": str(self.config)}
        return run(self.programs["helm"], *words, env=environment)

    def import_images(self, archive: Path) -> None:
        """Give containerd the images of an archive, as a registry would."""
        self._ctr("images", "import", archive)

    def tag(self, image: str, other: str) -> None:
        """Give an image another name."""
        self._ctr("images", "tag", image, other)

    def _ctr(self, *words: object) -> str:
        socket = self.folder / "containerd.sock"
        return run(self.programs["ctr"], "--address", socket, "--namespace", "k8s.io", *words)

    @contextmanager
    def running(self, archive: Path, pause: str) -> Iterator[dict[str, float]]:
        """Start everything with the images of an archive; yields how long each step took, in seconds.

        ``pause`` is the image that holds a pod's namespaces. Everything is ended on the way out.
        """
        took: dict[str, float] = {}
        try:
            self._prepare()
            began = time.monotonic()
            self._start_control_plane()
            took["control_plane"] = time.monotonic() - began
            self._start_containerd(pause)
            began = time.monotonic()
            self.import_images(archive)
            took["import_image"] = time.monotonic() - began
            took["node_ready"] = self._start_node()
            self._names = threading.Thread(target=self._follow_services, daemon=True)
            self._names.start()
            yield took
        finally:
            self._end()

    def alive(self) -> list[str]:
        """Return the names of parts that have ended, which none should."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def _start(self, name: str, *options: object, **environment: str) -> None:
        command = [str(self.programs[name]), *(str(option) for option in options)]
        path = f"{self.programs[name].parent}:{self.programs['runc'].parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "PATH": path, **environment}
            )

    def _prepare(self) -> None:
        """Make the network of the node, and lay folders of our own over what is hard-wired."""
        for folder in ("log", "cni", "names", "containerd", "kubelet", "certificates", "run"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        run("mount", "--bind", self.folder / "log", "/var/log")
        for name, value in KERNEL.items():
            file = self.folder / "run" / name.replace("/", "-")
            file.write_text(f"{value}\n")
            run("mount", "--bind", file, f"/proc/sys/{name}")
        ip = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
        for words in (
            "link set lo up",
            "link add node type bridge",  # without ports: an address that pods can reach
            f"address add {ADDRESS}/24 dev node",
            "link set node up",
            "route add default dev node",
        ):
            run(ip, *words.split())
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        (self.folder / "resolv.conf").write_text(f"nameserver {ADDRESS}\n")
        (self.folder / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        self.config.write_text(json.dumps(self._kubeconfig()))
        self.config.chmod(0o600)

    def _kubeconfig(self) -> dict[str, Any]:
        cluster = {"server": API, "insecure-skip-tls-verify": True}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
            "current-context": "here",
        }

    def _start_control_plane(self) -> None:
        certificates = self.folder / "certificates"
        key = certificates / "accounts.key"
        run("openssl", "genrsa", "-out", key, "2048")
        etcd = "http://127.0.0.1:2379"
        # in memory: a disk that is slow to write would only be measured
        self._start(
            "etcd", "--data-dir", "/run/etcd", "--listen-client-urls", etcd, "--advertise-client-urls", etcd
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--advertise-address={ADDRESS}",
            f"--bind-address={ADDRESS}",
            f"--cert-dir={certificates}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        wait("API server", lambda: self.kubectl("get", "--raw", "/readyz") == "ok")
        common = (f"--kubeconfig={self.config}", "--leader-elect=false")
        account = f"--service-account-private-key-file={key}"
        ca = f"--root-ca-file={certificates / 'apiserver.crt'}"
        self._start(
            "kube-controller-manager", *common, account, ca, "--use-service-account-credentials=false"
        )
        self._start("kube-scheduler", *common)
        wait("service account", lambda: self.kubectl("get", "serviceaccount", "default"))

    def _start_containerd(self, pause: str) -> None:
        plugins = next(folder for folder in PLUGINS if Path(folder).is_dir())
        (self.folder / "cni/10-pods.conflist").write_text(json.dumps(self._network()))
        (self.folder / "containerd.toml").write_text(f"""\
version = 2
root = "{self.folder / "containerd"}"
state = "/run/containerd"
[grpc]
address = "{self.folder / "containerd.sock"}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{self.folder / "cni"}"
""")
        self._start("containerd", "--config", self.folder / "containerd.toml")
        wait("containerd", lambda: self._ctr("version"))

    def _network(self) -> dict[str, Any]:
        addresses = {
            "type": "host-local",
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/addresses",
        }
        return {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [{"type": "ptp", "ipMasq": True, "ipam": addresses}],
        }

    def _start_node(self) -> float:
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.cgroup}",
            "clusterDNS": [ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self.folder / "resolv.conf"),
            "failSwapOn": False,
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
            "enforceNodeAllocatable": ["pods"],
        }
        (self.folder / "kubelet.json").write_text(json.dumps(settings))
        self._start(
            "kubelet",
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={self.config}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--node-ip={ADDRESS}",
            "--hostname-override=node",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{self.folder / 'containerd.sock'}",
        )
        self._start(
            "kube-proxy",
            f"--kubeconfig={self.config}",
            f"--cluster-cidr={PODS}",
            "--hostname-override=node",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        )
        self._start(
            "dnsmasq",
            *(
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-hosts",
                "--no-resolv",
                "--log-facility=-",
            ),
            *("--user=root", "--bind-interfaces", f"--listen-address={ADDRESS}", "--pid-file"),
            *(f"--hostsdir={self.folder / 'names'}", "--local=/cluster.local/"),
        )
        ready = '{.items[0].status.conditions[?(@.type=="Ready")].status}'
        return wait("node", lambda: self.kubectl("get", "nodes", "--output", f"jsonpath={ready}") == "True")

    def _follow_services(self) -> None:
        """Give dnsmasq the names of services, as a cluster's DNS has them."""
        file, before = self.folder / "names/services", ""
        while not self._ended.wait(1.0):
            try:
                listed = json.loads(self.kubectl("get", "services", "--all-namespaces", "--output", "json"))
            except RuntimeError:  # the API server has just ended, or has not yet begun
                continue
            lines = [
                f"{address} {name}.{space}.svc.cluster.local\n"
                for item in listed["items"]
                for name, space in [(item["metadata"]["name"], item["metadata"]["namespace"])]
                if (address := item["spec"].get("clusterIP")) not in {None, "None"}
            ]
            if (now := "".join(lines)) != before:
                draft = self.folder / "services.new"
                draft.write_text(now)
                draft.rename(file)
                before = now

    def _end(self) -> None:
        self._ended.set()
        for process in reversed(self._running.values()):
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
