"""How the service runs: where things lie and how large they are. Nothing here changes what is computed.

`binworks up` writes the settings to ``<home>/settings.json``; every process of the service is then started
with its home alone and reads them from there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from binworks.deploy.files import write
from binworks.tensors.errors import RequestError

FILE_NAME = "settings.json"
DATABASE_VARIABLE = "BINWORKS_DATABASE"
FROM_ENVIRONMENT = "environment"
"""Instead of an address: it is in that variable, and a process without it must not take another database."""


class Settings(BaseModel):
    """Everything the processes of the service must know; an argument everywhere, never a global."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(description="Folder of the service: job database, store, logs, token.")
    database: str = Field(
        default="",
        description="Address of the job database, sqlite:// or postgresql://; default: SQLite in the home. The "
        "environment variable `BINWORKS_DATABASE` wins: the address may hold a password. `environment`: it must be "
        "there.",
    )
    store: str = Field(
        default="",
        description="Address of the store: file:///folder or s3://bucket/prefix; default: a folder in the home.",
    )
    catalogues: tuple[Path, ...] = Field(
        default=(), description="Files that list the data sets one can ask for by name."
    )
    corrections: tuple[Path, ...] = Field(
        default=(), description="Folders of correction sets, or folders that hold some."
    )
    data_roots: tuple[str, ...] = Field(
        default=(),
        description="Folders and root:// prefixes where jobs may read; those of the catalogues are added.",
    )
    replicas: tuple[tuple[str, ...], ...] = Field(
        default=(),
        description="Groups of prefixes (folders or root:// sites) that hold the same files; a file that cannot be "
        "read at one is looked for at the next.",
    )
    credentials: Path | None = Field(
        default=None,
        description="Folder on the workers with a file per job owner, an X.509 proxy (`<owner>.proxy`) or a bearer "
        "token (`<owner>.token`), for root:// files; default: the workers' account reads them.",
    )
    scheduler: str = Field(default="tcp://127.0.0.1:8786", description="Address of the Dask scheduler.")
    tls: Path | None = Field(
        default=None,
        description="Folder of certificates, as `binworks tls init` makes it; the scheduler's address is then tls://.",
    )
    dashboard: str | None = Field(
        default=None, description="Address at which the API reaches the Dask dashboard."
    )
    host: str = Field(default="127.0.0.1", description="Address on which the REST service listens.")
    port: int = Field(default=8080, ge=1, le=65535)
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Names under which the REST service may be asked, without ports; default: those of the loopback "
        "if it listens there, else any.",
    )
    max_body_bytes: int = Field(default=8_000_000, ge=1000, description="Largest body of a request.")
    rate_per_second: float = Field(
        default=5000.0,
        gt=0,
        description="Requests a second of one owner, in each API process; ten seconds' worth at once.",
    )
    rate_per_second_unknown: float = Field(
        default=50.0,
        gt=0,
        description="Requests a second from one address without a token that was good lately; likewise.",
    )
    oidc_issuer: str | None = Field(
        default=None, description="Address of an OpenID Connect issuer whose access tokens are accepted, too."
    )
    oidc_audience: str | None = Field(
        default=None, description="The audience that they must be for; needed with `oidc_issuer`."
    )
    oidc_owner_claim: str = Field(
        default="sub", description="Claim that names the owner; he is then called `oidc:` and its value."
    )
    oidc_owners: dict[str, str] = Field(
        default_factory=dict, description="Values of that claim that stand for owners of this service."
    )
    oidc_roles_claim: str = Field(
        default="roles", description="Claim that lists roles; dots lead into objects: `realm_access.roles`."
    )
    oidc_roles: dict[str, Literal["user", "fit", "admin"]] = Field(
        default_factory=dict, description="What the values of that claim stand for: user, fit or admin."
    )
    oidc_role: Literal["user", "fit"] | None = Field(
        default=None, description="Role of those who have none of these; none: they are not let in."
    )
    unit_events: int = Field(
        default=10_000_000, ge=1, description="Events of a unit of work, roughly: 30 s of a core."
    )
    unit_timeout: float = Field(
        default=3600.0, gt=0, description="Seconds after which a unit's attempt is given up."
    )
    index_timeout: float = Field(
        default=120.0, gt=0, description="Seconds after which opening a file is given up."
    )
    snapshot_seconds: float = Field(default=30.0, gt=0, description="Between two snapshots of a running job.")
    keep_snapshots_seconds: float = Field(
        default=3600.0,
        ge=0,
        description="A superseded snapshot stays so long; one that is read, an hour longer.",
    )
    keep_partials_days: float = Field(
        default=30.0,
        ge=0,
        description="Partials that no unfinished job needs stay so long after their last use, for later jobs.",
    )
    keep_exports_days: float = Field(
        default=7.0,
        ge=0,
        description="A file for a fit that nobody reads stays so long; it is made again on demand.",
    )
    max_exports: int = Field(
        default=20, ge=1, description="Files for fits that are waiting or being made for one owner."
    )
    export_memory: int = Field(
        default=4_000_000_000, ge=500_000_000, description="Bytes of memory that making such a file may take."
    )
    gc_seconds: float = Field(default=600.0, gt=0, description="Between two collections of garbage.")
    lease_seconds: float = Field(default=10.0, gt=0, description="A driver silent for this long is replaced.")
    retries: int = Field(
        default=4, ge=0, description="How often a unit is tried again after a passing failure."
    )
    backoff_seconds: float = Field(
        default=1.0, gt=0, description="Before the first new try; doubles each time."
    )
    log_to: Literal["files", "stderr"] = Field(
        default="files",
        description="Where log lines go: into `<home>/logs`, or to standard error for somebody else to keep.",
    )
    max_active_jobs: int = Field(default=100, ge=1, description="Jobs of one owner that are not finished.")
    max_queued_units: int | None = Field(
        default=None, ge=1, description="Units of work of one owner's unfinished jobs that are not settled."
    )
    max_stored_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Bytes of one owner's exports, of the snapshots of his jobs and of the partials that they filled.",
    )
    max_cpu_hours: float | None = Field(
        default=None, gt=0, description="Hours that workers spend on one owner's units in 30 days."
    )

    @property
    def database_url(self) -> str:
        """SQLAlchemy address of the job database; that of the environment is never written into a file.

        Raises
        ------
        RequestError
            Code ``bad-database`` if it should be in the environment and is not.
        """
        address = os.environ.get(DATABASE_VARIABLE)
        if self.database == FROM_ENVIRONMENT and not address:
            raise RequestError(
                f"The address of the job database is in {DATABASE_VARIABLE}, which is not set here.",
                code="bad-database",
                where=str(self.home / FILE_NAME),
                hint="Set it as for the service itself.",
            )
        return address or self.database or f"sqlite:///{self.home / 'jobs.sqlite'}"

    @property
    def store_url(self) -> str:
        """Address of the store."""
        return self.store or (self.home / "store").absolute().as_uri()

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.home / "logs"

    @property
    def url(self) -> str:
        """Address of the REST service."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def allowed_roots(self) -> tuple[str, ...]:
        """Folders and prefixes under which jobs may read files."""
        return (*self.data_roots, *(str(path.absolute().parent) for path in self.catalogues))

    @property
    def correction_folders(self) -> tuple[Path, ...]:
        """Where correction sets are looked for: as set, then ``corrections/`` beside each catalogue."""
        beside = (path.absolute().parent / "corrections" for path in self.catalogues)
        return (*self.corrections, *(folder for folder in beside if folder.is_dir()))

    def save(self) -> None:
        """Write the settings into the home, in one step; an address in them may hold a password."""
        write(self.home / FILE_NAME, self.model_dump_json(indent=2))

    @classmethod
    def load(cls, home: Path) -> Settings:
        """Return the settings that `binworks up` wrote into a home.

        Raises
        ------
        RequestError
            If there are none, or they are not valid.
        """
        target = home / FILE_NAME
        try:
            return cls.model_validate_json(target.read_bytes())
        except FileNotFoundError:
            raise RequestError(
                "This is not the home of a service: it has no settings.json.",
                code="no-home",
                where=str(home),
                hint="Start one with `binworks up --home ...`.",
            ) from None
        except ValidationError as error:
            raise RequestError(
                f"The settings are not valid: {error}", code="bad-settings", where=str(target)
            ) from None
