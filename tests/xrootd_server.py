"""A real XRootD server on loopback of a network namespace of its own; for tests only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PORT = 21094
START_SECONDS = 20.0


def why_not() -> str | None:
    """Return why no server can be started here."""
    missing = [tool for tool in ("xrootd", "unshare", "nsenter", "ip") if shutil.which(tool) is None]
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
    """A server that can be stopped, killed and started again; it serves the files of `data`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "files" / "data"
        self.data.mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        holder = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 100000"]
        self._holder = subprocess.Popen(holder, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        self._enter = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"root://127.0.0.1:{PORT}//data/{name}"

    def start(self) -> None:
        """Start the server; returns when it answers."""
        config = self.folder / "x.cfg"
        paths = f"all.adminpath {self.folder}/admin\nall.pidpath {self.folder}/admin\n"
        config.write_text(f"all.export /data\noss.localroot {self.folder}/files\nxrd.port {PORT}\n{paths}")
        shutil.chown(self.folder, "xrootd", "xrootd")
        command = ["xrootd", "-R", "xrootd", "-c", str(config), "-l", str(self.folder / "log")]
        self._process = subprocess.Popen([*self._enter, *command], stdout=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        probe = [*self._enter, sys.executable, "-c", _PROBE]
        while subprocess.run(probe, capture_output=True).returncode:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.1)

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
        assert self._holder.stdout is not None
        self._holder.stdout.close()


_PROBE = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 1).close()"


@contextmanager
def serving() -> Iterator[Server]:
    """Give a running server; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="binworks-xrootd-") as folder:
        Path(folder).chmod(0o755)  # the server has a user of its own
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.close()
