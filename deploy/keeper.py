"""A process that is kept alive: started again when it ends, later and later if it ends at once."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 30.0
HEALTHY_SECONDS = 10.0
GRACE_SECONDS = 10.0

log = logging.getLogger(__name__)


class Supervisor(threading.Thread):
    """Keeps one process alive, in a process group of its own, until it is stopped; its output is this process's.

    The thread is the parent of each process, which dies with it: the kernel's parent-death signal goes by thread.

    Parameters
    ----------
    name : str
        For messages.
    command : sequence of str
        What to run.
    environment : mapping
        The whole of it.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(name=f"keeper of {name}", daemon=True)
        self.process_name = name
        self.command = tuple(command)
        self.environment = dict(environment)
        self.restarts = 0
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process's number, while it lives."""
        return self._process.pid if self._process is not None and self.alive else None

    def run(self) -> None:
        """Start the process again and again."""
        pause = FIRST_PAUSE
        while True:
            begun = time.monotonic()
            with self._lock:
                if self._stopping.is_set():
                    return
                try:
                    self._process = self._start()
                except OSError as error:  # no memory, no disk: as if it had ended at once
                    self._process = None
                    log.warning("%s cannot be started: %s", self.process_name, error)
            if self._process is not None:
                self.exit_code = self._process.wait()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - begun
            pause = FIRST_PAUSE if lived > HEALTHY_SECONDS else min(2 * pause, LONGEST_PAUSE)
            self.restarts += 1
            self._stopping.wait(pause)

    def _start(self) -> subprocess.Popen[bytes]:
        child = [sys.executable, "-m", "binworks.deploy.child", str(os.getpid()), *self.command]
        with self._output() as output:
            return subprocess.Popen(  # noqa: S603  the command is ours
                child,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    @contextmanager
    def _output(self) -> Iterator[IO[bytes] | None]:
        yield None

    def retire(self) -> None:
        """Do not start the process again; it goes on until it ends by itself."""
        self._stopping.set()

    def begin_stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask the process to end, and do not start it again."""
        self.retire()
        with self._lock:
            self._signal(how)

    def stop(self, grace: float = GRACE_SECONDS, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process, by force if it takes longer than ``grace`` seconds; returns when it has ended."""
        self.begin_stop(how)
        self.join(grace)
        if self.is_alive():
            self._signal(signal.SIGKILL)
            self.join()

    def reap_strangers(self) -> None:
        """Bury dead processes that were left to this one, as is the duty of the first process of a container."""
        with self._lock:  # none is started meanwhile
            own = self._process.pid if self._process is not None else None
            with suppress(ChildProcessError):
                while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                    if dead.si_pid == own:  # its end is waited for by the thread
                        return
                    os.waitpid(dead.si_pid, 0)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class Keeper(Supervisor):
    """A `Supervisor` whose process writes into a file.

    Parameters
    ----------
    name : str
        For messages and the log file's name.
    command : sequence of str
        What to run.
    folder : Path
        Its output is appended to ``<folder>/<name>.out``.
    environment : mapping
        Added to what it inherits.
    inherited : mapping
        Of the environment; default: all of this process's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        inherited: Mapping[str, str] | None = None,
    ) -> None:
        before = os.environ if inherited is None else inherited
        super().__init__(name, command, {**before, **(environment or {})})
        self.output = folder / f"{name}.out"

    @contextmanager
    def _output(self) -> Iterator[IO[bytes]]:
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            yield output


def stop_all(keepers: Sequence[Supervisor], how: signal.Signals = signal.SIGTERM) -> None:
    """End processes, all at the same time."""
    for keeper in keepers:
        keeper.begin_stop(how)
    for keeper in keepers:
        keeper.stop(how=how)
