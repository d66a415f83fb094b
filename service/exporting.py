"""``python -m binworks.service.exporting --home DIR``: make the files that were asked for, one at a time.

The API starts it when something waits, and it ends when nothing has waited for a while: so the memory that a large
tensor takes is never the API's. It may be killed at any moment. A file is seen only when it is whole and its row says
so; what was left half done is begun again by the next.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import logging
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from sqlalchemy.exc import OperationalError

from binworks.service import layout, lease, logs
from binworks.service.database import Database
from binworks.service.exports import Claim, ClaimLostError, Exports, attempts, code_digest
from binworks.service.pins import Pins
from binworks.service.settings import Settings
from binworks.service.store import Store
from binworks.service.stored import StoredSource
from binworks.tensors.errors import BinworksError, ConflictError, RequestError, TransientError
from binworks.tensors.export import export
from binworks.tensors.fitbuild import fit_input
from binworks.tensors.fitinput import Effect, FitChannel, FitInput

IDLE_SECONDS = 30.0
POLL_SECONDS = 0.3
WATCH_SECONDS = 1.0
BEAT_SECONDS = 5.0
PIN_SECONDS = 60.0
LONGEST_SECONDS = 1800.0
"""What takes longer is given up: others wait."""
FINISH_PAUSES = (0.5, 2.0, 5.0, 10.0)
"""Seconds between tries to say that a file is there: it took longer to make."""
SCRATCH = "export-"
DAY = 86_400.0
READ, WRITTEN = 0.3, 0.97
"""Progress when all sums are read, and when the file is written."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger("binworks.service.exporting")


class Work:
    """The export that is made now, as the thread that watches sees it.

    Parameters
    ----------
    claim : Claim
        Which.
    """

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.lost = False
        self.begun = time.monotonic()
        self._progress = 0.0

    @property
    def progress(self) -> float:
        """Part of the work that is done."""
        return self._progress

    def advance(self, progress: float) -> None:
        """Note how far it is.

        Raises
        ------
        ClaimLostError
            If it does not belong to this process any more.
        """
        if self.lost:
            raise ClaimLostError(f"Export {self.claim.id} was deleted, or another makes it.")
        self._progress = max(self._progress, min(progress, 1.0))


class Exporter:
    """Makes exports.

    Parameters
    ----------
    settings : Settings
        Of the service.
    """

    def __init__(self, settings: Settings) -> None:
        database = Database(settings.database_url)
        database.create_tables()
        self.settings = settings
        self.store = Store.open(settings.store_url)
        self.exports = Exports(database)
        self.pins = Pins(database)
        self.holder = lease.identity()
        self.code = code_digest()
        self.outdated = False
        self._work: Work | None = None
        self._left: Claim | None = None

    def run(self, idle: float, told: socket.socket, parent: int | None = None) -> None:
        """Make what waits, until nothing has waited for some time.

        Parameters
        ----------
        idle : float
            Seconds.
        told : socket
            Something can be read from it when the process is to end.
        parent : int, optional
            Process that this one does not outlive.
        """
        remove_leftovers(self.store, time.time())
        threading.Thread(target=self._watch, args=(told, parent), name="watch", daemon=True).start()
        last = time.monotonic()
        while time.monotonic() - last < idle and not self.outdated:
            claim = self._claim()
            if claim is None:
                time.sleep(POLL_SECONDS)
                continue
            self._work = Work(claim)
            try:
                self._make(self._work)
            finally:
                self._work = None
            last = time.monotonic()

    # one export

    def _claim(self) -> Claim | None:
        """Take the next; what the database did not let go of is given back before, and was no crash.

        What was asked for of newer code than this process has is left to the next one.
        """
        try:
            if self._left is not None:
                with suppress(ClaimLostError):
                    self.exports.release(self._left)
                self._left = None
            claim = self.exports.claim(self.holder)
            if claim is not None and claim.code != self.code and self.code != code_digest():
                self.outdated = True  # the next process has the code that is on the disk now
                self.exports.release(claim)
                return None
        except OperationalError as error:
            log.warning("the job database does not answer: %s", error)
            return None
        return claim

    def _make(self, work: Work) -> None:
        claim = work.claim
        about = {"job": claim.job}
        try:
            nbytes = self._write(work)
        except (ClaimLostError, OperationalError) as error:  # another, or this one again, makes it
            self._left = claim
            log.warning("export %s is given up: %s", claim.id, error, extra=about)
        except Exception as error:  # noqa: BLE001  whatever a format does: it is told, and the next one is made
            told = explained(error, claim, self.settings)
            log.warning("export %s failed: %s [%s]", claim.id, told, told.code, extra=about)
            try:
                self.exports.fail(claim, told, again=isinstance(told, TransientError))
            except (ClaimLostError, OperationalError):
                self._left = claim
        else:
            seconds = time.monotonic() - work.begun
            log.info(
                "export %s (%s) has %d bytes after %.1f s",
                claim.id,
                claim.format,
                nbytes,
                seconds,
                extra=about,
            )

    def _write(self, work: Work) -> int:
        claim = work.claim
        key = layout.export(claim.job, claim.id, claim.fence)
        self._check_code(claim)
        with self._scratch(claim) as folder:
            fit = counted(fit_input(claim.card, self._sources(work)), work.advance)
            path = export(fit, folder / "file", claim.format)
            work.advance(WRITTEN)
            self._check_code(claim)  # a format may have been imported only now
            nbytes, digest = path.stat().st_size, _digest(path)
            self.store.put_file(key, path)
        try:
            self._finish(claim, nbytes, digest)
        except ClaimLostError:
            self.store.remove(key)
            raise
        for left in attempts(self.store, claim.job, claim.id, claim.fence - 1):  # they were cut short
            self.store.remove(left)
        return nbytes

    def _check_code(self, claim: Claim) -> None:
        """Refuse to write with one version under the name of another.

        Raises
        ------
        ConflictError
            Code ``code-differs``.
        """
        if {self.code, code_digest()} != {claim.code}:
            raise ConflictError(
                "The service was updated after the export was asked for.",
                code="code-differs",
                where=claim.id,
                hint="Ask for it again; if that does not help, the service is to be restarted.",
            )

    def _finish(self, claim: Claim, nbytes: int, digest: str) -> None:
        for pause in FINISH_PAUSES:
            try:
                return self.exports.finish(claim, nbytes, digest)
            except OperationalError as error:
                log.warning("export %s is ready, and the job database does not answer: %s", claim.id, error)
                time.sleep(pause)
        return self.exports.finish(claim, nbytes, digest)

    def _sources(self, work: Work) -> dict[str | None, StoredSource]:
        claim, steps = work.claim, 0
        total = 1

        def told() -> None:
            nonlocal steps
            steps += 1
            work.advance(READ * steps / max(total, steps))

        found: dict[str | None, StoredSource] = {None: self._source(claim.job, claim.n, told)}
        for job, n in claim.sources.items():
            found[job] = self._source(job, n, told)
        found[claim.job] = found[None]
        total = sum(
            len(entry["histograms"]) for source in found.values() for entry in source.datasets.values()
        )
        return found

    def _source(self, job: str, n: int, told: Callable[[], None]) -> StoredSource:
        self.pins.pin(job, n)
        return StoredSource(self.store, job, n, told)

    @contextmanager
    def _scratch(self, claim: Claim) -> Iterator[Path]:
        """Give an empty folder near the store; what earlier attempts left is removed."""
        folder = self.store.scratch(f"{SCRATCH}{claim.id}-{claim.fence}")
        for left in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*"):
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # beside it

    def _watch(self, told: socket.socket, parent: int | None) -> None:
        """Give signs of life, keep what is to be read, and end in order when told to, or when the parent is gone."""
        beaten = pinned = float("-inf")
        while True:
            ready, _, _ = select.select([told], [], [], WATCH_SECONDS)
            if ready or parent not in (None, os.getppid()):
                self._end()
            now = time.monotonic()
            with suppress(OperationalError, BinworksError):
                self._limit(now)
                if now - beaten > BEAT_SECONDS:
                    beaten = now
                    self._beat()
                if now - pinned > PIN_SECONDS:
                    pinned = now
                    self._pin()

    def _beat(self) -> None:
        work = self._work
        if work is not None:
            try:
                self.exports.beat(work.claim, work.progress)
            except ClaimLostError:
                work.lost = True

    def _limit(self, now: float) -> None:
        """Give up what takes too long, and end: no library can be stopped otherwise."""
        work = self._work
        if work is None or now - work.begun < LONGEST_SECONDS:
            return
        message = f"The file was not ready after {LONGEST_SECONDS:.0f} s."
        hint = "Ask for fewer channels, bins or systematics."
        error = RequestError(message, code="export-too-long", where=work.claim.format, hint=hint)
        log.warning("export %s is given up: %s", work.claim.id, message, extra={"job": work.claim.job})
        with suppress(ClaimLostError):  # it was deleted, and a library is still at it
            self.exports.fail(work.claim, error, again=False)
        self._end()

    def _pin(self) -> None:
        for job, n in self.exports.unfinished():
            with suppress(BinworksError):  # its own export will tell
                self.pins.pin(job, n)

    def _end(self) -> None:
        work = self._work
        if work is not None:
            with suppress(ClaimLostError, OperationalError):
                self.exports.release(work.claim)
            folder = self.store.scratch(f"{SCRATCH}{work.claim.id}-{work.claim.fence}")
            shutil.rmtree(folder, ignore_errors=True)
        logging.shutdown()
        os._exit(0)


def remove_leftovers(store: Store, now: float) -> None:
    """Remove what processes that were killed left where files are made, if it is older than a day."""
    sample = store.scratch(f"{SCRATCH}x")
    for folder in sample.parent.glob(f"{sample.name.removesuffix('x')}*"):
        with suppress(FileNotFoundError):  # another removes it, too
            facts = folder.lstat()
            if facts.st_uid == os.getuid() and now - facts.st_mtime > DAY:
                shutil.rmtree(folder, ignore_errors=True)


def counted(fit: FitInput, advance: Callable[[float], None]) -> FitInput:
    """Return a fit input that tells how far its effects were asked for."""
    total = max(1, len(fit.parameters) * sum(len(channel.processes) for channel in fit.channels))
    done = 0

    def count(channel: FitChannel) -> Callable[[int], Iterator[Effect]]:
        def effects(process: int) -> Iterator[Effect]:
            nonlocal done
            for effect in channel.effects(process):
                done += len(effect.parameters)
                advance(READ + (WRITTEN - READ) * min(done / total, 1.0))
                yield effect

        return effects

    channels = tuple(replace(channel, effects=count(channel)) for channel in fit.channels)
    return replace(fit, channels=channels)


def explained(error: BaseException, claim: Claim, settings: Settings) -> BinworksError:
    """Return what a user is told of an error; one that may pass is a `TransientError`."""
    if _is_no_space(error):
        return TransientError(
            "There is no space left for the file.",
            code="disk-full",
            where="store",
            hint="Free some, then ask again.",
        )
    if isinstance(error, MemoryError):
        return RequestError(
            f"The file needs more memory than the {settings.export_memory:,} bytes that it may take.",
            code="export-too-large",
            where=claim.format,
            hint="Ask for fewer channels, bins or systematics; or raise the setting export_memory.",
        )
    if isinstance(error, BinworksError):
        return error
    incident = f"incident {secrets.token_hex(6)}"
    log.error("%s: export %s", incident, claim.id, exc_info=error, extra={"job": claim.job})
    hint = "The service's log exporting.log says more under this name."
    return BinworksError("The service made a mistake.", where=incident, hint=hint)


def _is_no_space(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and (error.errno in _NO_SPACE or "No space left" in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _limit_memory(nbytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = nbytes if hard == resource.RLIM_INFINITY else min(nbytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _stop_signals() -> socket.socket:
    """Return what tells of a signal to end at once, also while a library is at work for long."""
    told, tell = socket.socketpair()
    tell.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(tell.detach())
    return told


def main(arguments: list[str] | None = None) -> None:
    """Read the home's settings and make what waits."""
    about = "Make the files for fits that were asked for, one at a time."
    parser = argparse.ArgumentParser(prog="python -m binworks.service.exporting", description=about)
    parser.add_argument("--home", type=Path, required=True, help="folder that `binworks up` made")
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="seconds without work, then it ends")
    parser.add_argument("--parent", type=int, help="process that it does not outlive")
    given = parser.parse_args(arguments)
    told = _stop_signals()
    settings = Settings.load(given.home)
    logs.begin(settings, "exporting.log")
    _limit_memory(settings.export_memory)
    Exporter(settings).run(given.idle, told, given.parent)


if __name__ == "__main__":
    main()
