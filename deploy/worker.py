"""``python -m binworks.deploy.worker SCHEDULER``: the worker host, one program wherever workers run.

It is the first process of a worker pod, the command of a batch job, and what the local back end keeps. It keeps Dask's
workers alive (they end whenever their scheduler does), gives them a small environment, and lets them finish before
they go: Dask's own program drops what it is at when a signal comes.
"""

from __future__ import annotations

import argparse
import fnmatch
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from binworks.deploy.keeper import Supervisor
from binworks.deploy.scratch import private_folder
from binworks.deploy.tls import ENVIRONMENT as ENCRYPTED
from binworks.tensors.errors import TransientError

ALLOWED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *("BINWORKS_KERNEL_CACHE", "BINWORKS_CREDENTIALS", "DASK_DISTRIBUTED__*", "XDG_CACHE_HOME"),
    *("XRD_*", "XrdSecGSICADIR", "X509_CERT_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_*", "MALLOC_*"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)
"""What workers find of this process's environment: no secret, and nothing that leads to other code."""

FIXED = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}

DRAIN = "BINWORKS_DRAIN"
"""Variable that names the file for which workers look; what they are at they write into files beside it."""
STARTING, JOINED = "starting", "joined"

HEEDED = (signal.SIGTERM, signal.SIGINT)

LOOK_SECONDS = 0.2
SETTLE_SECONDS = 1.0
"""A worker that is just joining says so within this time."""
END_SECONDS = 2.0
"""Between asking the workers to end, without saving anything, and ending them."""
HOST_BYTES = 200_000_000
"""What this process and Dask's nannies need of the memory that all share."""

EXAMPLES = """\
examples:
  python -m binworks.deploy.worker tcp://10.1.2.3:8786 --preload binworks.service.preload
  python -m binworks.deploy.worker tls://10.1.2.3:8786 --nworkers 8 --memory 16GB --death-timeout 600 \\
      --tls-ca-file ca.pem --tls-cert worker.pem --tls-key worker-key.pem --keep X509_USER_PROXY

SIGTERM drains: no new units, those under way are finished, exit code 0; after --grace seconds the rest is
lost, exit code 1. SIGINT ends all at once.
"""

log = logging.getLogger("binworks.deploy.worker")  # not `__main__`, as which it runs


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m binworks.deploy.worker",
        description="Keep Dask workers alive, and drain them before they go.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("scheduler", help="address of the scheduler: tcp://host:port or tls://host:port")
    _add_worker_options(made)
    made.add_argument(
        "--death-timeout", type=float, metavar="SECONDS", help="exit if no scheduler answers for so long"
    )
    made.add_argument(
        "--grace", type=float, default=600.0, metavar="SECONDS", help="longest drain (default: %(default)g)"
    )
    made.add_argument("--ready-file", type=Path, metavar="FILE", help="is there while a worker has joined")
    made.add_argument(
        "--lifetime", type=float, metavar="SECONDS", help="drain and exit with 0 so long after joining"
    )
    made.add_argument(
        "--stagger", type=float, default=0.0, metavar="SECONDS", help="a lifetime differs by up to so much"
    )
    made.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAME",
        help="variable for the workers; AWS_* is all of a kind",
    )
    return made


def _add_worker_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--name", help="of the worker; with several, numbers are added")
    made.add_argument("--nworkers", type=int, default=1, metavar="N", help="workers (default: %(default)d)")
    made.add_argument(
        "--nthreads", type=int, default=1, metavar="N", help="of a worker (default: %(default)d)"
    )
    made.add_argument("--memory-limit", metavar="BYTES", help="of each worker, e.g. 2GB; default: its share")
    made.add_argument(
        "--memory",
        type=_bytes,
        metavar="BYTES",
        help="of all workers together, e.g. 16GB; then --memory-limit is not looked at",
    )
    made.add_argument("--local-directory", type=Path, metavar="DIR", help="where scratch files go")
    made.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="imported before a worker takes units",
    )
    made.add_argument("--host", help="address of this machine that scheduler and workers reach")
    made.add_argument("--interface", help="network interface that has that address, e.g. eth0")
    made.add_argument(
        "--ports", metavar="FIRST:LAST", help="on which workers and their nannies listen; default: any"
    )
    made.add_argument("--tls-ca-file", metavar="PEM")
    made.add_argument("--tls-cert", metavar="PEM")
    made.add_argument("--tls-key", metavar="PEM")


def _bytes(text: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError  # most hosts start without

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise argparse.ArgumentTypeError(f"not a number of bytes, as 16GB: {text!r}") from None


def command(options: argparse.Namespace, scratch: Path) -> list[str]:
    """Return the command that runs Dask's workers; their files go to a folder that nobody else can enter."""
    said = [sys.executable, "-m", "binworks.deploy.dask", "worker", options.scheduler, "--nanny"]
    # a worker serves its figures even without a dashboard, and to everybody unless it is told not to
    said += ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    said += ["--nworkers", str(options.nworkers), "--nthreads", str(options.nthreads)]
    limit = options.memory_limit
    if options.memory:
        limit = max(options.memory - HOST_BYTES, options.memory // 2) // options.nworkers
    given = {
        "--memory-limit": limit,
        "--name": options.name,
        "--local-directory": scratch,
        "--host": options.host,
        "--interface": options.interface,
        "--worker-port": options.ports,
        "--nanny-port": options.ports,  # Dask divides a range that is given for both
        "--tls-ca-file": options.tls_ca_file,
        "--tls-cert": options.tls_cert,
        "--tls-key": options.tls_key,
    }
    for option, value in given.items():
        said += [] if value is None else [option, str(value)]
    for module in (*options.preload, "binworks.deploy.drain"):
        said += ["--preload", module]
    return said


def scrubbed(environment: Mapping[str, str], keep: Sequence[str]) -> dict[str, str]:
    """Return what workers may see of an environment.

    Parameters
    ----------
    environment : mapping
        Of this process.
    keep : sequence of str
        Names to pass on, too; ``*`` stands for any characters.
    """
    kept = {name: value for name, value in environment.items() if passes(name, keep)}
    return {**kept, **FIXED}


def passes(name: str, keep: Sequence[str] = ()) -> bool:
    """Return whether workers see a variable of the environment."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in (*ALLOWED, *keep))


class Host:
    """Keeps the workers until it is told to let them go.

    Parameters
    ----------
    options : argparse.Namespace
        As `parser` makes them.
    folder : Path
        Private to this host: here it speaks with its workers, and they keep their files.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.drain_file = folder / "drain"
        encrypted = ENCRYPTED if options.tls_cert else {}
        environment = {**os.environ, **encrypted, DRAIN: str(self.drain_file)}
        self.workers = Supervisor("dask worker", command(options, folder), environment)
        self.signals: SimpleQueue[int] = SimpleQueue()

    def run(self) -> int:
        """Do all; return the exit code.

        Raises
        ------
        TransientError
            Code ``no-scheduler``.
        """
        for number in HEEDED:
            signal.signal(number, self._take)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)  # before the workers, who would be deaf otherwise
        self.workers.start()
        try:
            heard = self.serve()
            return 128 + heard if heard == signal.SIGINT else self.drain()
        finally:
            # without a worker there is nothing to clear up, and Dask would tell a long story
            self.workers.stop(END_SECONDS, signal.SIGTERM if self.states() else signal.SIGKILL)
            self._show_ready(False)

    def _take(self, number: int, _frame: object) -> None:
        self.signals.put(number)

    def serve(self) -> int | None:
        """Keep the workers until a signal comes, which is returned, or their life is over.

        Raises
        ------
        TransientError
            Code ``no-scheduler``: none answered for too long.
        """
        seen, end = time.monotonic(), None
        while end is None or time.monotonic() < end:
            if (number := self._heard()) is not None:
                return number
            ready = JOINED in self.states()
            self._show_ready(ready)
            if ready:
                seen = time.monotonic()
                end = end or seen + self._lifetime()
            elif self.options.death_timeout and time.monotonic() - seen > self.options.death_timeout:
                raise TransientError(
                    f"No scheduler answered at {self.options.scheduler} for {self.options.death_timeout:g} s.",
                    code="no-scheduler",
                    hint="What the workers said above may tell why.",
                )
        log.info("the lifetime is over")
        return None

    def _lifetime(self) -> float:
        if self.options.lifetime is None:
            return float("inf")
        seconds: float = self.options.lifetime
        spread: float = self.options.stagger * (2 * random.random() - 1)  # noqa: S311  no secret
        return max(0.0, seconds + spread)

    def drain(self) -> int:
        """Let the workers finish; return the exit code.

        Who asks for a drain need not know of another one: a second SIGTERM changes nothing.
        """
        log.info("draining")
        self._show_ready(False)
        begin = time.monotonic()
        self.workers.retire()
        self.drain_file.touch()
        while self.workers.is_alive() and self._busy(time.monotonic() - begin):
            if time.monotonic() - begin > self.options.grace:
                log.error("not drained within %g s: what is under way is lost", self.options.grace)
                return 1
            if self._heard() == signal.SIGINT:
                return 128 + signal.SIGINT
        log.info("drained in %.1f s", time.monotonic() - begin)
        return 0

    def _show_ready(self, ready: bool) -> None:
        path = self.options.ready_file
        if path is not None and path.exists() != ready:
            if ready:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    def _busy(self, seconds: float) -> bool:
        """Return whether there is a worker that takes leave, or may do so soon."""
        states = self.states()
        return JOINED in states or (bool(states) and seconds < SETTLE_SECONDS)

    def states(self) -> list[str]:
        """Return what each worker process that lives has said."""
        found = []
        for path in self.drain_file.parent.glob("[0-9]*"):
            with suppress(OSError, ValueError):  # it has ended
                os.kill(int(path.name), 0)
                found.append(path.read_text())
        return found

    def _heard(self) -> int | None:
        """Return the next signal, after waiting for it a little."""
        self.workers.reap_strangers()
        with suppress(Empty):
            return self.signals.get(timeout=LOOK_SECONDS)
        return None


def main() -> None:
    """Be a worker host."""
    # what comes before there is a handler waits: the kernel would not even give it to a container's first process
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    options = parser().parse_args()
    clean = scrubbed(os.environ, options.keep)
    if clean != dict(os.environ):  # also this process keeps nothing: the workers' user can look into it
        again = [sys.executable, "-m", "binworks.deploy.worker", *sys.argv[1:]]
        os.execve(again[0], again, clean)  # noqa: S606  no shell is wanted
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s - worker host - %(message)s"
    )
    with private_folder(options.local_directory, "binworks-worker-") as folder:
        try:
            code = Host(options, folder).run()
        except TransientError as error:
            log.error("%s", error)  # noqa: TRY400  a traceback would not help
            code = 1
    raise SystemExit(code)


if __name__ == "__main__":
    main()
