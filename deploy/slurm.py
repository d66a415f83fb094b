"""The Slurm back end: worker hosts in batch jobs; sbatch, squeue and scancel are all that is used."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import ClassVar

from binworks.deploy.batch import BatchBackend, Queue, WorkerJob, run
from binworks.deploy.reconcile import Entry, JobState
from binworks.tensors.errors import RequestError, TransientError

ARRAY_SIZE = 500
"""Slurm's own limit is 1001 unless the site says otherwise."""
NAMES_AT_ONCE = 200
FORMAT = "%j|%i|%T|%r"

STATES = {
    "PENDING": JobState.PENDING,
    "CONFIGURING": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "STAGE_OUT": JobState.RUNNING,
    "SUSPENDED": JobState.RUNNING,
    "COMPLETING": JobState.ENDING,
    "STOPPED": JobState.ENDING,
    "REQUEUE_FED": JobState.HELD,
    "REQUEUE_HOLD": JobState.HELD,
    "REQUEUED": JobState.HELD,
    "SPECIAL_EXIT": JobState.HELD,
}
"""All others are over: COMPLETED, FAILED, CANCELLED, NODE_FAIL, OUT_OF_MEMORY, TIMEOUT, PREEMPTED and the like."""
WORKER_NAME = "slurm-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
"""It ends with the job's name as squeue shows it."""
GONE = ("Invalid job id specified", "already completing or completed")
"""What scancel says of jobs that have ended; the others were told nevertheless."""
HIDDEN = ("SBATCH_", "SQUEUE_", "SCANCEL_", "SLURM_CLUSTERS")
"""Variables of a user's that would change the jobs, hide them, or make the commands ask."""
OURS = re.compile(r"-[JMao]|--(job-name|clusters?|array|output|export|export-file|signal|requeue|wrap)\b")
"""Directives that a site cannot change: with them the jobs would be lost from sight, or could not drain."""
HELD_REASONS = ("JobHeld", "launch failed requeued held", "job requeued in held state")


def entry(state: str, reason: str, current: bool = True) -> Entry:
    """Return what squeue's words for a job's state and its reason mean; see `Entry`."""
    found = STATES.get(state, JobState.ENDED)
    if found == JobState.PENDING and reason.startswith(HELD_REASONS):
        found = JobState.HELD
    told = None if reason in ("", "None") else reason
    if found == JobState.ENDED:
        told = f"{state}, {told}" if told else state
    return Entry(found, told, current)


class SlurmQueue:
    """The jobs of one service in Slurm; see `binworks.deploy.batch.Queue`.

    Parameters
    ----------
    job : WorkerJob
        What each of them runs.
    """

    def __init__(self, job: WorkerJob) -> None:
        self.names = f"{job.name}-"
        self.current = full_name(job)
        self.script = script(job)
        self.output = job.logs / "slurm" / "%x-%j.out"

    def submit(self, count: int) -> list[str]:
        """Submit one job or a job array; see `Queue.submit`."""
        count = min(count, ARRAY_SIZE)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        options = ["--parsable", f"--output={self.output}"]
        if count > 1:  # one request to the controller, however many
            options.append(f"--array=0-{count - 1}")
        said = run(["sbatch", *options], text=self.script, hidden=HIDDEN).strip()
        number = said.split(";")[0]  # a cluster's name may follow
        if not number.isdecimal():
            raise TransientError(f"sbatch did not say which job it made: {said!r}.", code="batch-system")
        return [number] if count == 1 else [f"{number}_{task}" for task in range(count)]

    def jobs(self) -> dict[str, Entry]:
        """Return all jobs, also those that have just ended; see `Queue.jobs`."""
        ours = ["--array", f"--user={os.getuid()}", "--states=all"]
        said = run(["squeue", "--noheader", *ours, f"--format={FORMAT}"], hidden=HIDDEN)
        rows = (line.strip().split("|", 3) for line in said.splitlines() if line.startswith(self.names))
        return {number: entry(state, reason, name == self.current) for name, number, state, reason in rows}

    def drain(self, names: Sequence[str]) -> None:
        """Tell the worker hosts, and not their workers, to finish; see `Queue.drain`."""
        self._cancel(names, "--batch", "--signal=TERM")

    def remove(self, names: Sequence[str]) -> None:
        """Cancel jobs; see `Queue.remove`."""
        self._cancel(names)

    def _cancel(self, names: Sequence[str], *options: str) -> None:
        for first in range(0, len(names), NAMES_AT_ONCE):
            some = names[first : first + NAMES_AT_ONCE]
            run(["scancel", *options, *some], hidden=HIDDEN, harmless=GONE)


def full_name(job: WorkerJob) -> str:
    """Return a name that differs for jobs that run something else."""
    return f"{job.name}-{job.digest}"


def script(job: WorkerJob) -> str:
    """Return the batch script of a worker host.

    Parameters
    ----------
    job : WorkerJob

    Raises
    ------
    RequestError
        Code ``bad-site`` if a directive of the site's is ours to give.
    """
    from dask_jobqueue.slurm import SLURMJob  # a service on one machine does not need it

    site, options = job.site, job.options()
    directives = [
        "--export=NONE",  # what a worker needs is written below
        "--no-requeue",  # a job that is lost is replaced here
        "--open-mode=append",
        f"--signal=B:TERM@{site.workers.grace}",
        *site.slurm.directives,
    ]
    if taken := [given for given in site.slurm.directives if OURS.match(given)]:
        raise RequestError(
            f"binworks gives this directive itself: {taken[0]}.", code="bad-site", where="slurm.directives"
        )
    sourced = f". {shlex.quote(str(job.environment_file))}"
    options["job_script_prologue"] = [sourced, *options["job_script_prologue"]]
    options["job_name"] = full_name(job)
    made = SLURMJob(
        name=WORKER_NAME,
        queue=site.slurm.partition,
        account=site.slurm.account,
        walltime=walltime(site.workers.walltime),
        job_mem=f"{-(-site.workers.memory // 2**20)}M",
        job_extra_directives=directives,
        **options,
    )
    text: str = made.job_script()
    return text


def walltime(seconds: int) -> str:
    """Return a time as Slurm writes it.

    >>> walltime(100_000)
    '1-03:46:40'
    """
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


class SlurmBackend(BatchBackend):
    """Workers in Slurm's jobs; see `BatchBackend`."""

    programs: ClassVar[tuple[str, ...]] = ("sbatch", "squeue", "scancel")

    @property
    def poll_seconds(self) -> float:
        """Time between two looks at the queue."""
        return self.site.slurm.poll_seconds

    def open_queue(self, job: WorkerJob) -> Queue:
        """Return the queue."""
        return SlurmQueue(job)
