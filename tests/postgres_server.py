"""A real PostgreSQL server on a Unix socket in a folder of its own; for tests only."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from sqlalchemy import create_engine

USER = "binworks"
PASSWORD = "correct-horse-battery"
START_SECONDS = 30.0


def binaries() -> Path | None:
    """Return the folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    named = shutil.which("initdb")
    found = found or ([Path(named).resolve()] if named else [])
    return found[-1].parent if found else None


def why_not() -> str | None:
    """Return why no server can be started here."""
    if binaries() is None:
        return "not installed: PostgreSQL (apt-get install postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "not installed: psycopg (pip install 'binworks[postgres]')"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv (apt-get install util-linux)"
    return None


class Server:
    """A server that can be killed and started again; it asks for a password."""

    def __init__(self, folder: Path) -> None:
        found = binaries()
        assert found is not None
        self.binaries = found
        self.folder = folder
        self.sockets = folder / "s"
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self._prefix = as_nobody if os.geteuid() == 0 else []
        for path in (self.sockets, self._data):
            path.mkdir(mode=0o700)
            if self._prefix:
                nobody = pwd.getpwnam("nobody")
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._initialise()

    def _initialise(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(PASSWORD + "\n")
        secret.chmod(0o644)
        options = ["-D", self._data, "-U", USER, "-A", "scram-sha-256", "--pwfile", secret]
        options += ["-E", "UTF8", "--locale=C", "--no-sync"]
        command = [*self._prefix, self.binaries / "initdb", *options]
        made = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        assert made.returncode == 0, made.stderr

    def url(self, name: str = "postgres") -> str:
        """Return the address of a database, with the password."""
        return f"postgresql://{USER}:{PASSWORD}@/{name}?host={self.sockets}"

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        self._count += 1
        name = f"jobs{self._count}"
        self._execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _execute(self, statement: str) -> None:
        address = self.url().replace("postgresql:", "postgresql+psycopg:")
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    def start(self) -> None:
        """Start the server; returns when it answers."""
        # -F: what is killed here is the server, never the machine, so nothing need reach the disk
        options = ["-D", self._data, "-k", self.sockets, "-h", "", "-F", "-c", "shared_buffers=16MB"]
        with (self.folder / "log").open("ab") as log:
            command = [*self._prefix, self.binaries / "postgres", *options]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        end = time.monotonic() + START_SECONDS
        while True:
            with suppress(Exception):
                return self._execute("SELECT 1")
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill all processes of the server, as a crash of the machine would."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            first.send_signal(signal.SIGSTOP)  # it must not start others meanwhile
            family = [*first.children(recursive=True), first]
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family[:-1], timeout=10)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Kill the server and start it again."""
        self.kill()
        self.start()

    def log(self) -> str:
        """Return what the server said."""
        return (self.folder / "log").read_text()


@contextmanager
def serving() -> Iterator[Server]:
    """Give a running server; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="binworks-pg-") as folder:
        Path(folder).chmod(0o755)  # the server has a user of its own
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.kill()
