"""Certificates for mutual TLS between the Dask parts: where they lie, and how they are made, renewed and shown.

::

    <folder>/ca/ca.crt, ca.key               the private authority; no process of the service needs it
    <folder>/<role>/ca.crt, tls.crt, tls.key  what a process of this role needs, and nothing else

A role's folder has the names that cert-manager and Kubernetes use, so that it can be a mounted secret. Dask asks of a
peer that its certificate is signed by the authority, not which role it has.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from binworks.tensors.errors import RequestError

if TYPE_CHECKING:
    from binworks.deploy.authority import Facts, Pair

Role = Literal["scheduler", "worker", "client"]
ROLES: tuple[Role, ...] = get_args(Role)
AUTHORITY = "ca"
CA_CERTIFICATE, CA_KEY, CERTIFICATE, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"
DAYS, AUTHORITY_DAYS, RENEW_DAYS = 365, 3650, 30

ENVIRONMENT: Mapping[str, str] = {
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
    "DASK_DISTRIBUTED__COMM__TLS__MIN_VERSION": "1.3",
}
"""For every Dask process whose connections are TLS: it refuses to listen or connect without."""


@dataclass(frozen=True)
class Shown:
    """How a certificate is.

    Parameters
    ----------
    name : str
        ``ca`` or a role.
    expires : datetime
        In UTC.
    fingerprint : str
        SHA-256, in hexadecimal.
    fault : str or None
        Why it cannot be used, whatever the time.
    """

    name: str
    expires: datetime
    fingerprint: str
    fault: str | None = None


class Certificates:
    """The certificates in a folder; a role that is not used here may be missing.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ca(self, role: Role) -> Path:
        """Return the file of the authority's certificate."""
        return self.folder / role / CA_CERTIFICATE

    def cert(self, role: Role) -> Path:
        """Return the file of a role's certificate."""
        return self.folder / role / CERTIFICATE

    def key(self, role: Role) -> Path:
        """Return the file of a role's private key."""
        return self.folder / role / KEY

    def flags(self, role: Role) -> list[str]:
        """Return the options with which ``dask scheduler``, ``dask worker`` and our worker host take a role."""
        files = {"--tls-ca-file": self.ca(role), "--tls-cert": self.cert(role), "--tls-key": self.key(role)}
        return [word for option, path in files.items() for word in (option, str(path.absolute()))]

    def roles(self) -> tuple[Role, ...]:
        """Return the roles that are here."""
        return tuple(role for role in ROLES if self.cert(role).exists())

    def expires(self) -> dict[str, datetime]:
        """Return when each certificate here expires, in UTC; by role, and ``ca``. No private key is read.

        Raises
        ------
        RequestError
            Code ``no-certificates`` if there is none, ``bad-certificate`` if one cannot be read.
        """
        files = self._files()
        return {name: _facts(path).expires for name, path in files.items()}

    def shown(self) -> list[Shown]:
        """Return how each certificate here is, the authority's first.

        Raises
        ------
        RequestError
            As `expires`; also for a private key that cannot be read.
        """
        found = {name: _facts(path) for name, path in self._files().items()}
        faults: dict[str, str | None] = {role: self._fault(role) for role in self.roles()}
        return [
            Shown(name, facts.expires, facts.fingerprint, faults.get(name)) for name, facts in found.items()
        ]

    def _files(self) -> dict[str, Path]:
        roles = self.roles()
        if not roles:
            raise RequestError(
                "There are no certificates here.",
                code="no-certificates",
                where=str(self.folder),
                hint="Make them with `binworks tls init`.",
            )
        # a role's copy of the authority's will do: the authority itself may be kept elsewhere
        return {AUTHORITY: self.ca(roles[0]), **{role: self.cert(role) for role in roles}}

    def _fault(self, role: Role) -> str | None:
        from binworks.deploy.authority import Pair, fault

        with _readable(self.folder / role):
            pair = Pair(self.cert(role).read_bytes(), self.key(role).read_bytes())
            return fault(self.ca(role).read_bytes(), pair)

    @classmethod
    def make(
        cls, folder: Path, days: int = DAYS, *, replace: bool = False, now: datetime | None = None
    ) -> Certificates:
        """Make an authority and a certificate of each role; the folder appears with all of them or not at all.

        Parameters
        ----------
        folder : Path
            It must not exist, or be empty.
        days : int
            For which the roles' certificates hold; the authority holds for ten years.
        replace : bool
            Make it anew if it exists. Nothing that was made with the old authority can then speak to what is
            started later.
        now : datetime, optional
            With a time zone; default: the clock's.

        Raises
        ------
        RequestError
            Code ``certificates-exist``, or ``certificates-not-writable``.
        """
        from binworks.deploy.authority import make_authority, make_role

        if not replace and folder.is_dir() and any(folder.iterdir()):
            raise _exists(folder)
        now = now or datetime.now(UTC)
        with _drafted(folder) as draft:
            authority = make_authority(now, max(days, AUTHORITY_DAYS))
            _write(draft / AUTHORITY, {CA_CERTIFICATE: authority.certificate, CA_KEY: authority.key})
            for role in ROLES:
                _write_role(draft, role, authority, make_role(authority, role, now, days))
            if replace and folder.is_dir():
                _move_away(folder)
            try:
                draft.rename(folder)
            except OSError:
                if folder.is_dir() and any(folder.iterdir()):
                    raise _exists(folder) from None
                raise
        return cls(folder)

    @classmethod
    def ensure(cls, folder: Path) -> Certificates:
        """Return the certificates of all roles: made if there are none, renewed if they expire within 30 days.

        What has no key of its authority beside it is somebody else's to renew.

        Raises
        ------
        RequestError
            As `make` and `renew`; code ``bad-certificate`` if they are of no use and cannot be renewed.
        """
        found = cls(folder)
        try:
            if not found.roles():
                return cls.make(folder)
        except RequestError as error:
            if error.code != "certificates-exist":  # somebody else made them just now
                raise
        soon = datetime.now(UTC) + timedelta(days=RENEW_DAYS)
        if (folder / AUTHORITY / CA_KEY).exists() and min(found.expires().values()) < soon:
            found.renew()
        found.check()
        return found

    def check(self, now: datetime | None = None) -> None:
        """Refuse what no part could use.

        Parameters
        ----------
        now : datetime, optional
            With a time zone; default: the clock's.

        Raises
        ------
        RequestError
            Code ``bad-certificate``: a role is missing, one has expired, or something does not fit together.
        """
        moment = now or datetime.now(UTC)
        missing = sorted(set(ROLES) - set(self.roles()))
        faults = [f"there is none of the {role}" for role in missing]
        for shown in self.shown():
            late = "it has expired" if shown.expires < moment else None
            if fault := shown.fault or late:
                faults.append(f"{shown.name}: {fault}")
        if faults:
            raise RequestError(
                f"The certificates cannot be used: {'; '.join(faults)}.",
                code="bad-certificate",
                where=str(self.folder),
                hint="Renew them where the authority is, or make new ones with `binworks tls init --replace`.",
            )

    def renew(self, days: int = DAYS, *, now: datetime | None = None) -> None:
        """Make new keys and certificates of all roles, with the same authority.

        Old and new ones get on with each other. A process that runs keeps what it has.

        Parameters
        ----------
        days : int
            For which they hold.
        now : datetime, optional
            With a time zone; default: the clock's.

        Raises
        ------
        RequestError
            Code ``no-authority`` if its key is not here, ``bad-certificate`` if it cannot be read,
            ``certificates-not-writable``.
        """
        from binworks.deploy.authority import Pair, make_role

        home = self.folder / AUTHORITY
        if not (home / CA_KEY).exists():
            raise RequestError(
                "The key of the authority is not here.",
                code="no-authority",
                where=str(home),
                hint="Renew where it is kept, or make a new authority with `binworks tls init`.",
            )
        now = now or datetime.now(UTC)
        with _writable(self.folder), _locked(home):
            with _readable(home):
                authority = Pair((home / CA_CERTIFICATE).read_bytes(), (home / CA_KEY).read_bytes())
                made = {role: make_role(authority, role, now, days) for role in ROLES}
            for role, pair in made.items():
                _write_role(self.folder, role, authority, pair)
            _sweep(self.folder)


def _write_role(folder: Path, role: Role, authority: Pair, pair: Pair) -> None:
    """Write a role's files beside the old ones, then let its name lead to the new ones, in one step."""
    made = folder / f".{role}-{secrets.token_hex(4)}"
    _write(made, {CA_CERTIFICATE: authority.certificate, CERTIFICATE: pair.certificate, KEY: pair.key})
    link, new = folder / role, folder / f"{made.name}.link"
    if link.is_dir() and not link.is_symlink():  # somebody copied the folder, and its links became folders
        _move_away(link)
    new.symlink_to(made.name)
    new.replace(link)


def _sweep(folder: Path) -> None:
    """Remove what no role's name leads to any more."""
    used = {(folder / role).resolve().name for role in ROLES}
    for role in ROLES:
        for path in folder.glob(f".{role}-*"):
            if path.is_symlink():
                path.unlink()
            elif path.name not in used:
                shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(mode=0o700)
    for name, content in files.items():
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)


def _move_away(folder: Path) -> None:
    away = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.old")
    folder.rename(away)
    shutil.rmtree(away)


def _facts(certificate: Path) -> Facts:
    from binworks.deploy.authority import facts

    with _readable(certificate):
        return facts(certificate.read_bytes())


@contextmanager
def _drafted(folder: Path) -> Iterator[Path]:
    """Give a folder that becomes this one, or nothing."""
    with _writable(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    try:
        yield path
    except (OSError, ValueError) as error:
        raise RequestError(
            f"The certificate cannot be used: {error}.", code="bad-certificate", where=str(path)
        ) from None


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _not_writable(folder, error) from None


def _not_writable(folder: Path, error: OSError) -> RequestError:
    return RequestError(
        f"Certificates cannot be written here: {error.strerror or error}.",
        code="certificates-not-writable",
        where=str(folder),
    )


def _exists(folder: Path) -> RequestError:
    return RequestError(
        "There is something here already.",
        code="certificates-exist",
        where=str(folder),
        hint="`binworks tls renew` makes new certificates with the same authority; `init --replace` makes a new one.",
    )
