"""A personal HTCondor pool: Debian 13 in a folder, run in namespaces of its own, which nothing outlives.

Debian 12 has no HTCondor, so the pool's programs, its Python and binworks live in a root of Debian 13. To make one
takes some minutes and the network; ``BINWORKS_CONDOR_ROOT`` names a folder to keep it in. It is not written to
afterwards: a pool sees it through an overlay. Network, mounts and processes of a pool are in namespaces that end
with their first process, a shell, and that one ends with ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT_VARIABLE = "BINWORKS_CONDOR_ROOT"
RELEASE = "trixie"
USER, UID = "ana", "1000"
"""Root cannot submit."""
VENV = "/opt/binworks"
PYTHON = f"{VENV}/bin/python"
SOURCE = "/srv/source"
HOME = f"/home/{USER}"
SCRATCH = f"{HOME}/tests"
"""Not in /tmp: HTCondor gives each job one of its own."""
READY = "opt/ready"
MASTER = "condor_master"
MAKE_SECONDS, START_SECONDS, STOP_SECONDS = 1800.0, 60.0, 30.0
EXTRAS = "batch,samples"
TOOLS = ("hypothesis", "psutil", "pytest", "pytest-timeout")

CONFIGURATION = """\
NUM_CPUS = 8
MEMORY = 8000
START = TRUE
PREEMPT = FALSE
SUSPEND = FALSE
"""

MAKE = f"""
debootstrap --variant=minbase {RELEASE} "$root"
printf '#!/bin/sh\\nexit 101\\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"
export DEBIAN_FRONTEND=noninteractive
chroot "$root" apt-get update
chroot "$root" apt-get install --yes --no-install-recommends ca-certificates minicondor procps python3 python3-venv
cat /etc/ssl/certs/ca-certificates.crt >"$root/etc/ssl/certs/ca-certificates.crt"
chroot "$root" useradd --create-home --uid {UID} {USER}
chroot "$root" python3 -m venv {VENV}
mkdir -p "$root/srv/wheels"
cp "$wheel" "$root/srv/wheels/"
chroot "$root" {PYTHON} -m pip install --quiet "/srv/wheels/${{wheel##*/}}[{EXTRAS}]" {" ".join(TOOLS)}
touch "$root/{READY}"
"""

HOLD = f"""
ip link set lo up
hostname pool
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" "$work/root"
mount -t proc proc "$work/root/proc"
mount --rbind /dev "$work/root/dev"
: >"$work/root/etc/resolv.conf"
echo "127.0.0.1 localhost pool" >"$work/root/etc/hosts"
cp "$work/pool.conf" "$work/root/etc/condor/config.d/99-pool"
mkdir -p "$work/root/srv/wheels" "$work/root{SOURCE}"
cp "$wheel" "$work/root/srv/wheels/"
cp -r "$source/pyproject.toml" "$source/tests" "$work/root{SOURCE}/"
chroot "$work/root" {PYTHON} -m pip install --quiet --no-index --no-deps --force-reinstall "/srv/wheels/${{wheel##*/}}"
chroot "$work/root" {PYTHON} -m pip check
chroot "$work/root" condor_master -f &
wait "$!"
"""


def why_not(root: Path | None) -> str | None:
    """Return why no pool can be run here."""
    if os.geteuid() != 0:
        return "a pool in a root of its own needs root"
    needed = ["ip", "nsenter", "setpriv", "unshare"] + ([] if ready(root) else ["debootstrap"])
    missing = [program for program in needed if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def ready(root: Path | None) -> bool:
    """Return whether this is a root that was made to the end."""
    return root is not None and (root / READY).exists()


def make_root(root: Path, wheel: Path) -> None:
    """Install Debian, HTCondor and all that binworks needs into a folder."""
    if root.exists():
        shutil.rmtree(root)  # what was left half made
    root.mkdir(parents=True)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-euc", MAKE]
    places = {**os.environ, "root": str(root), "wheel": str(wheel)}
    subprocess.run(command, env=places, check=True, timeout=MAKE_SECONDS, stdout=subprocess.DEVNULL)


class Pool:
    """A pool that runs.

    Parameters
    ----------
    master : psutil.Process
        HTCondor's first process.
    """

    def __init__(self, master: psutil.Process) -> None:
        self.master = master

    def path(self, inner: str) -> Path:
        """Return where we see a file of the pool."""
        return Path(f"/proc/{self.master.pid}/root{inner}")

    def command(
        self, *words: str, user: str = USER, environment: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the command that runs another one inside."""
        places = ["--net", "--mount", "--pid", "--uts", "--root"]
        person = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        variables = {
            "HOME": "/root" if user == "root" else HOME,
            "PATH": f"{VENV}/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "USER": user,
            "LANG": "C.UTF-8",
            **(environment or {}),
        }
        given = [f"{name}={value}" for name, value in variables.items()]
        enter = ["nsenter", "--target", str(self.master.pid), *places]
        return [*enter, *person, "env", "-i", "-C", variables["HOME"], *given, *words]

    def run(self, *words: str, user: str = USER, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command inside and return how it went."""
        command = self.command(*words, user=user)
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)

    def wait(self) -> None:
        """Wait until a machine of the pool takes jobs."""
        end = time.monotonic() + START_SECONDS
        while "slot" not in (said := self.run("condor_status", "-af", "Name")).stdout:
            assert time.monotonic() < end, said.stderr
            time.sleep(0.5)
        while (said := self.run("condor_q")).returncode != 0:
            assert time.monotonic() < end, said.stderr
            time.sleep(0.5)


@contextmanager
def running(root: Path, wheel: Path, source: Path) -> Iterator[Pool]:
    """Give a pool; nothing of it is left afterwards, however that comes.

    Parameters
    ----------
    root : Path
        As `make_root` makes it; is not changed.
    wheel : Path
        Of this binworks.
    source : Path
        Folder of the repository: the tests are copied from it.
    """
    with tempfile.TemporaryDirectory(prefix="binworks-condor-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        for name in ("upper", "work", "root"):
            (work / name).mkdir()
        (work / "pool.conf").write_text(CONFIGURATION)
        process = _hold({"root": root, "wheel": wheel, "source": source, "work": work})
        try:
            pool = Pool(_master(process, work / "log"))
            pool.wait()
            yield pool
            pool.master.send_signal(signal.SIGQUIT)
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


def _hold(places: Mapping[str, Path]) -> subprocess.Popen[bytes]:
    """Start the process that holds the namespaces: they, their mounts and all in them end with it, and it with us.

    The kernel forgets to end a process with its parent when that changes its user, as HTCondor's do; so a shell stays.
    """
    namespaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "bash", "-euc", HOLD]
    with (places["work"] / "log").open("wb") as log:
        environment = {**os.environ, **{name: str(path) for name, path in places.items()}}
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _master(process: subprocess.Popen[bytes], log: Path) -> psutil.Process:
    """Wait until HTCondor's first process runs, and return it."""
    end = time.monotonic() + START_SECONDS
    while True:
        for child in psutil.Process(process.pid).children(recursive=True):
            if child.name() == MASTER:
                return child
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
