"""Build the image with podman, and run it as a cluster would: no root, nothing to write to, no network.

    python tests/kubernetes/image.py --out image-proof
    python tests/kubernetes/image.py --out image-proof --base python:3.13-slim@sha256:...

Root is needed. Without a base that podman can pull, one is made by debootstrap. The dependencies get the versions that
are installed beside this program, so that results can be compared bit by bit. The image is saved to ``image.tar``
together with the one that holds the namespaces of a Kubernetes pod.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NAME = "localhost/binworks"
BUILT = f"{NAME}:built"
PAUSE = "localhost/pause:1"
SUITE, PACKAGES = "bookworm", "python3,python3-venv,ca-certificates"
MIRROR = "http://deb.debian.org/debian"
SETTINGS_OF_PIP = ("/etc/pip.conf", "/etc/ssl/certs")
"""How this machine reaches packages; the build sees them, the image does not have them."""
LOCKED = (
    "--network=none",
    "--read-only",
    "--user=1000",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")
ROOMS = ("tensors", "corrections", "processors", "service", "api", "client", "deploy", "samples")


@dataclass(frozen=True)
class Built:
    """An image.

    Parameters
    ----------
    archive : Path
        With the image and that of the pods' namespaces.
    seconds : float
        That building took.
    podman : tuple of str
        How the engine with the image is called.
    """

    archive: Path
    seconds: float
    podman: tuple[str, ...]


def revision() -> str:
    """Return a digest of the code: all of the rooms."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def run(*command: object, **options: Any) -> str:
    """Run a command, let it talk on standard error, and return what it prints."""
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, **options).stdout.strip()


def engine(out: Path) -> tuple[str, ...]:
    """Return podman with folders of its own; nothing of the machine's other containers is touched."""
    program = shutil.which("podman")
    if program is None:
        sys.exit("No podman here.")
    folders = ("--root", str(out / "containers"), "--runroot", str(out / "running"))
    return (program, *folders, "--cgroup-manager=cgroupfs", "--runtime=runc")


def own_base(podman: Sequence[str], out: Path) -> str:
    """Return a base image with Debian's Python, made once."""
    tree, name = out / "base", "localhost/python-base"
    if not (tree / "usr/bin/python3").exists():
        shutil.rmtree(tree, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree, MIRROR)
    known = subprocess.run([*podman, "image", "exists", f"{name}:{SUITE}"], capture_output=True)
    if known.returncode:
        with subprocess.Popen(
            ["tar", "--directory", str(tree), "--create", "."], stdout=subprocess.PIPE
        ) as tar:
            run(*podman, "import", "-", f"{name}:{SUITE}", stdin=tar.stdout)
    return f"{name}@{run(*podman, 'image', 'inspect', '--format', '{{.Digest}}', f'{name}:{SUITE}')}"


def distribution(out: Path) -> Path:
    """Return a folder with our wheel and the versions of all other packages."""
    dist = out / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", dist, ROOT)
    listed = run(sys.executable, "-m", "pip", "freeze", "--exclude-editable")
    pinned = [line for line in listed.splitlines() if "==" in line]
    (dist / "constraints.txt").write_text("\n".join(pinned) + "\n")
    return dist


def build(out: Path, base: str | None = None) -> Built:
    """Build the image into an archive."""
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    podman = engine(out)
    name, _, digest = (base or own_base(podman, out)).partition("@")
    began = time.monotonic()
    volumes = [f"--volume={place}:{place}:ro" for place in SETTINGS_OF_PIP if Path(place).exists()]
    arguments = {"PYTHON_IMAGE": name, "PYTHON_DIGEST": digest, "VERSION": "0", "REVISION": revision()}
    run(
        *(*podman, "build", "--format=docker", "--isolation=chroot", *volumes),
        *(f"--build-arg={key}={value}" for key, value in arguments.items()),
        *("--tag", BUILT, "--file", ROOT / "deploy/Containerfile", distribution(out)),
    )
    took = time.monotonic() - began
    idle = run(*podman, "create", "--health-interval=disable", BUILT)
    change = 'CMD ["sleep", "infinity"]'
    run(*podman, "commit", "--quiet", "--format=docker", "--change", change, idle, PAUSE)
    run(*podman, "rm", idle)
    archive = out / "image.tar"
    archive.unlink(missing_ok=True)
    run(*podman, "save", "--quiet", "--multi-image-archive", "--output", archive, BUILT, PAUSE)
    return Built(archive, took, podman)


class Trial:
    """The image, run in the strictest way; what does not hold is kept."""

    def __init__(self, built: Built, out: Path) -> None:
        self.podman, self.out = built.podman, out
        self.failed: list[str] = []

    def check(self, what: str, holds: bool, why: object = "") -> None:
        """Tell whether something holds that must."""
        print(f"{'ok' if holds else 'NO':>3}  {what} {'' if holds else why}", flush=True)
        if not holds:
            self.failed.append(what)

    def run(self, *words: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        once = ("run", "--rm", *LOCKED, *LIMITS, "--health-interval=disable", *options)
        return subprocess.run([*self.podman, *once, BUILT, *words], capture_output=True, text=True)

    def shell(self, script: str) -> str:
        """Return what a script prints inside."""
        return self.run("sh", "-c", script).stdout.strip()

    def all(self) -> None:
        """Try everything."""
        told = self.run()
        self.check("it tells how it is used", "Usage: binworks" in told.stdout, told.stderr)
        self.check("it is not root", self.shell("id -u") == "1000")
        self.check("it runs as any user", "Usage" in self.run(options=["--user=12345:0"]).stdout)
        apart = " ".join(
            f"-path {top} -prune -o" for top in ("/proc", "/sys", "/dev", "/tmp", "/run", "/var/tmp")
        )
        found = self.shell(f"find / {apart} ! -type l -writable -print 2>/dev/null")
        self.check("it can write nowhere but below /tmp", not found, found)
        tools = self.shell("command -v gcc cc make git; python -m pip --version 2>/dev/null")
        self.check("it has no compiler, and no installer for our packages", not tools, tools)
        left = self.shell(
            "find /dist /etc/pip.conf -size +0 2>/dev/null; env | grep -i -e token -e secret -e pip_"
        )
        self.check("nothing of the build is left", not left, left)
        host = self.run("python", "-m", "binworks.deploy.worker", "--help")
        self.check("the worker host is there", host.returncode == 0, host.stderr)
        self.worker()
        self.api()

    def worker(self) -> None:
        """A worker without a scheduler gives up after a while; the health check lets it be."""
        name = self.start(
            "python", "-m", "binworks.deploy.worker", "tcp://127.0.0.1:8786", "--death-timeout", "600"
        )
        time.sleep(10)
        self.check("a waiting worker host is healthy", self.healthy(name), self.logs(name))
        code = self.stop(name)
        self.check("a worker host that is stopped ends in order", code == 0, f"{code} {self.logs(name)}")
        run(*self.podman, "rm", "--force", name)

    def api(self) -> None:
        """The API serves, is healthy once it does, and ill if it hangs."""
        home = self.out / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "settings.json").write_text(json.dumps({"home": "/home/service", "host": "0.0.0.0"}))
        os.chown(home, 1000, 1000)
        command = ("python", "-m", "binworks.api", "--home", "/home/service")
        name = self.start(*command, options=[f"--volume={home}:/home/service"])
        end = time.monotonic() + 60
        while not (well := self.healthy(name)) and time.monotonic() < end:
            time.sleep(1)
        self.check("the API is healthy", well, self.logs(name))
        process = run(*self.podman, "inspect", "--format", "{{.State.Pid}}", name)
        run("kill", "-STOP", process)
        self.check("an API that hangs is not", not self.healthy(name))
        run("kill", "-CONT", process)
        code = self.stop(name)
        self.check("the API ends in order", code == 0, f"{code} {self.logs(name)}")
        run(*self.podman, "rm", "--force", name)

    def start(self, *words: str, options: Sequence[str] = ()) -> str:
        """Start a container and return its name."""
        name = f"binworks-{uuid.uuid4().hex[:8]}"
        always = ("run", "--detach", "--name", name, *LOCKED, *LIMITS, "--health-interval=disable")
        run(*self.podman, *always, *options, BUILT, *words)
        return name

    def healthy(self, name: str) -> bool:
        """Return what the image's health check says."""
        done = subprocess.run([*self.podman, "healthcheck", "run", name], capture_output=True)
        return done.returncode == 0

    def stop(self, name: str) -> int:
        """Stop a container as an engine does, and return its exit code."""
        run(*self.podman, "stop", "--time=30", name)
        return int(run(*self.podman, "inspect", "--format", "{{.State.ExitCode}}", name))

    def logs(self, name: str) -> str:
        """Return the end of what it said."""
        done = subprocess.run([*self.podman, "logs", "--tail=5", name], capture_output=True, text=True)
        return done.stdout + done.stderr


def main() -> int:
    """Build the image and try it."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=Path("image-proof"), help="folder for all that is made")
    made.add_argument("--base", help="image@sha256:... with Python; default: made by debootstrap")
    given = made.parse_args()
    if os.geteuid() != 0:
        sys.exit("The image is tried with containers of its own, which needs root.")
    built = build(given.out, given.base)
    size = run(*built.podman, "image", "inspect", "--format", "{{.Size}}", BUILT)
    print(f"built in {built.seconds:.0f} s, {int(size) / 1e9:.2f} GB, {built.archive}", flush=True)
    trial = Trial(built, given.out.absolute())
    trial.all()
    print(f"failed: {trial.failed}" if trial.failed else "all holds")
    return 1 if trial.failed else 0


if __name__ == "__main__":
    sys.exit(main())
