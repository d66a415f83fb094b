"""The site file: where workers run and how many. YAML, given to `binworks up --config`; unknown keys are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from binworks.tensors.errors import RequestError

BackendName = Literal["local", "slurm", "htcondor"]


def _seconds(given: object) -> object:
    """Return ``[days-]hours:minutes:seconds`` in seconds; what is no such text, as it is.

    YAML itself reads an unquoted 12:00:00 as so many seconds.
    """
    if isinstance(given, str) and (found := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", given)):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return given


def _plain(text: str) -> str:
    if not text.isprintable() or '"' in text:
        raise ValueError("quotation marks and line breaks cannot be passed on to every batch system")
    return text


Seconds = Annotated[int, BeforeValidator(_seconds), Field(gt=0)]
Plain = Annotated[str, Field(min_length=1), AfterValidator(_plain)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Part(BaseModel):
    """A part of the site file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SchedulerPart(Part):
    """Where workers reach the scheduler, which runs on this machine."""

    host: Plain | None = Field(default=None, description="Address of this machine that workers reach.")
    interface: Plain | None = Field(default=None, description="Or the network interface that has it.")
    port: int = Field(default=8786, ge=1, le=65535, description="It should stay the same over restarts.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.host is not None and self.interface is not None:
            raise ValueError("give host or interface, not both")
        return self


class WorkersPart(Part):
    """Workers of one thread each, and the batch jobs that hold them."""

    count: int | None = Field(default=None, ge=0, description="So many, always.")
    minimum: int | None = Field(default=None, ge=0, description="Or so many at least,")
    maximum: int | None = Field(
        default=None, ge=1, description="and so many at most, as the backlog of the jobs asks for."
    )
    idle: Seconds = Field(
        default=300, description="Seconds after which workers that the backlog does not ask for are let go."
    )
    processes: int = Field(default=1, ge=1, le=1024, description="Workers in one batch job.")
    memory: ByteSize = Field(
        default=ByteSize(4_000_000_000), description="Of a batch job; its workers share it equally."
    )
    walltime: Seconds = Field(default=12 * 3600, description="Of a batch job; workers leave in time.")
    lifetime: Seconds | None = Field(
        default=None, description="A worker host is replaced after so many seconds; none: at the walltime."
    )
    stagger: Seconds | None = Field(
        default=None,
        description="Seconds by which lifetimes differ, so that not all end at once; default: a tenth.",
    )
    grace: Seconds = Field(
        default=600, description="Seconds in which a worker that shall go may finish its unit."
    )
    patience: Seconds = Field(
        default=600, description="Seconds without a scheduler after which a worker host gives up."
    )
    scratch: Path = Field(default=Path("/tmp"), description="Folder on the worker's own disk.")  # noqa: S108
    kernel_cache: Path | None = Field(
        default=None,
        description="Folder on the worker's own disk for compiled kernels; default: in its scratch.",
    )
    python: Path | None = Field(
        default=None, description="Python that has binworks, as workers see it; default: the service's."
    )
    keep: tuple[VariableName, ...] = Field(
        default=(),
        description="Variables of the environment that workers see beside the usual ones, with their "
        "values here if they have one.",
    )
    prologue: tuple[str, ...] = Field(default=(), description="Lines of shell before the worker starts.")
    host: Plain | None = Field(default=None, description="Address on which workers listen.")
    interface: Plain | None = Field(default=None, description="Or the network interface.")
    ports: Annotated[str, Field(pattern=r"^[0-9]{1,5}:[0-9]{1,5}$")] | None = Field(
        default=None,
        description="Ports that a firewall leaves open for them, `first:last`: two for each worker of a machine.",
    )

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if self.count is not None and (self.minimum is not None or self.maximum is not None):
            raise ValueError("give count, or minimum and maximum")
        if self.minimum is not None and self.maximum is None:
            raise ValueError("minimum needs a maximum")
        if self.maximum is not None and (self.minimum or 0) > self.maximum:
            raise ValueError("minimum is larger than maximum")
        if self.grace >= self.walltime:
            raise ValueError("grace must be shorter than walltime")
        if self.ports is not None:
            first, last = map(int, self.ports.split(":"))
            if not 1024 <= first <= last <= 65535 or last - first + 1 < 2 * self.processes:
                raise ValueError("ports must lie in 1024:65535 and be at least two for each worker")
        return self

    @property
    def spread(self) -> int:
        """Seconds by which lifetimes differ."""
        return self.stagger if self.stagger is not None else (self.lifetime or 0) // 10


class SlurmPart(Part):
    """What Slurm wants to know of a job."""

    partition: Plain | None = Field(default=None, description="Default: Slurm's.")
    account: Plain | None = Field(default=None, description="Likewise.")
    directives: tuple[Plain, ...] = Field(default=(), description="More lines for #SBATCH.")
    poll_seconds: float = Field(default=5.0, gt=0, description="Between two looks at the queue.")


class HTCondorPart(Part):
    """What HTCondor wants to know of a job."""

    directives: dict[str, str] = Field(default={}, description="More commands of the submit description.")
    submit_options: tuple[Plain, ...] = Field(default=(), description="Of condor_submit.")
    transfer: bool = Field(
        default=False, description="Send certificates with the job: workers do not see the service's home."
    )
    poll_seconds: float = Field(default=5.0, gt=0, description="Between two looks at the queue.")


class Site(Part):
    """A place where workers run."""

    backend: BackendName = "local"
    scheduler: SchedulerPart = SchedulerPart()
    workers: WorkersPart = WorkersPart()
    slurm: SlurmPart = SlurmPart()
    htcondor: HTCondorPart = HTCondorPart()

    @classmethod
    def load(cls, path: Path) -> Site:
        """Return a site file's content.

        Raises
        ------
        RequestError
            Code ``no-such-file`` or ``bad-site``, with the line or key.
        """
        try:
            document = yaml.safe_load(path.read_text())
        except OSError as error:
            raise RequestError(
                f"The site file cannot be read: {error.strerror}.", code="no-such-file", where=str(path)
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RequestError(
                f"The site file is not YAML: {error}.", code="bad-site", where=str(path)
            ) from None
        try:
            return cls.model_validate(document or {})
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg'].removeprefix('Value error, ')}"
                for fault in error.errors()
            )
            raise RequestError(
                f"The site file does not hold: {faults}.",
                code="bad-site",
                where=str(path),
                hint="docs/howto/cluster.md lists all keys; deploy/sites has examples.",
            ) from None
