"""Real XRootD servers on the loopback of a network namespace of their own; for tests only."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOST, PORT = "127.0.0.1", 21094
HOLD = "ip link set lo up && echo up && exec sleep infinity"
START_SECONDS = 20.0
CLONE_NEWNET = 0x40000000


def why_not() -> str | None:
    """Return why no server can be started here."""
    tools = ("xrootd", "unshare", "nsenter", "setpriv", "ip")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install xrootd-server util-linux iproute2)"
    if os.geteuid() != 0:
        return "only root can make a network namespace, and the server listens on all interfaces"
    probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    return probe.stderr.strip() or None


def environment(limits: dict[str, int]) -> dict[str, str]:
    """Return this process's environment with these limits of XRootD's and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XRD_")}
    return {**kept, **{f"XRD_{name.upper()}": str(value) for name, value in limits.items()}}


class Reader:
    """A process that reads what it is asked for."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, path: str, start: int, stop: int) -> None:
        """Ask for a range."""
        assert self._process.stdin is not None
        print(json.dumps({"path": path, "start": start, "stop": stop}), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Return the answer to the first question that has none yet."""
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def read(self, path: str, start: int, stop: int) -> dict[str, Any]:
        """Return the answer to a question."""
        self.ask(path, start, stop)
        return self.answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class Server:
    """A server that can be stopped, killed and started again; it serves the files of `data`.

    Parameters
    ----------
    folder : Path
        Of its own.
    host, port : str, int
        In its addresses.
    beside : Server, optional
        In whose namespace it runs; default: one of its own.
    settings : sequence of str
        Lines of its configuration, beside the usual.
    environment : mapping
        Added to its environment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = HOST,
        port: int = PORT,
        beside: Server | None = None,
        settings: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.host, self.port, self.settings = folder, host, port, tuple(settings)
        self.environment = {**os.environ, **(environment or {})}
        self.data = folder / "files" / "data"
        self.data.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        self.space: Path
        if beside is not None:
            self.space = beside.space
            return
        dies_with_us = [sys.executable, "-m", "binworks.deploy.child", str(os.getpid())]
        holder = [*dies_with_us, "unshare", "--net", "sh", "-c", HOLD]
        self._holder = subprocess.Popen(holder, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        self.space = Path(f"/proc/{self._holder.pid}/ns/net")

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", f"--net={self.space}"]

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"root://{self.host}:{self.port}//data/{name}"

    def start(self) -> None:
        """Start the server; returns when it answers."""
        config = self.folder / "x.cfg"
        usual = ["all.export /data", f"oss.localroot {self.folder}/files", f"xrd.port {self.port}"]
        usual += [f"all.adminpath {self.folder}/admin", f"all.pidpath {self.folder}/admin"]
        config.write_text("\n".join([*usual, *self.settings, ""]))
        shutil.chown(self.folder, "xrootd", "xrootd")
        user = ["setpriv", "--reuid=xrootd", "--regid=xrootd", "--init-groups", "--pdeathsig=KILL"]
        command = [*user, "xrootd", "-c", str(config), "-l", str(self.folder / "log")]
        self._process = subprocess.Popen(
            [*self._enter, *command], stdout=subprocess.DEVNULL, env=self.environment
        )
        end = time.monotonic() + START_SECONDS
        code = f"import socket; socket.create_connection(('127.0.0.1', {self.port}), 1).close()"
        probe = [*self._enter, sys.executable, "-c", code]
        while subprocess.run(probe, capture_output=True).returncode:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread, and the threads and processes that it starts, be where the server is."""
        with Path("/proc/thread-self/ns/net").open() as outside, self.space.open() as space:
            _enter(space.fileno())
            try:
                yield
            finally:
                _enter(outside.fileno())

    def signal(self, what: signal.Signals) -> None:
        """Send the server a signal."""
        assert self._process is not None
        self._process.send_signal(what)
        if what == signal.SIGKILL:
            self._process.wait()

    @contextmanager
    def reader(self, **limits: int) -> Iterator[Reader]:
        """Give a process that reads beside the server; ``limits`` are XRootD's, for example ``requesttimeout=5``."""
        reader = Reader([*self._enter, sys.executable, str(HERE / "xrootd_reader.py")], environment(limits))
        try:
            yield reader
        finally:
            reader.close()

    def run(self, code: str, **limits: int) -> Any:
        """Run code beside the server; return the JSON document that it prints."""
        command = [*self._enter, sys.executable, "-c", code]
        done = subprocess.run(command, env=environment(limits), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def close(self) -> None:
        """End the processes."""
        for process in (self._process, self._holder):
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()
        if self._holder is not None:
            assert self._holder.stdout is not None
            self._holder.stdout.close()


def _enter(space: int) -> None:
    """Bring this thread into a network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(space, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def serving(**given: Any) -> Iterator[Server]:
    """Give a running server, made with what is given; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="binworks-xrootd-") as folder:
        Path(folder).chmod(0o755)  # the server has a user of its own
        server = Server(Path(folder), **given)
        try:
            server.start()
            yield server
        finally:
            server.close()
