"""HTCondor: the submit description of a worker host, and how condor_q, condor_rm and condor_vacate_job are used.

``condor_rm`` drains: the description asks for a graceful removal, so the job gets SIGTERM and the time that it needs.
``condor_vacate_job -fast`` before it ends a job at once.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from binworks.deploy.batch import BatchBackend, Queue, WorkerJob, run
from binworks.deploy.files import write
from binworks.deploy.reconcile import Entry, JobState
from binworks.tensors.errors import RequestError, TransientError

OWN = "BinworksCluster"
"""Attribute of all jobs of one service; condor_q finds them by it."""
MAKE = "BinworksMake"
"""Attribute that differs for jobs that run something else."""
WANTED = ("ClusterId", "ProcId", "JobStatus", "HoldReason", "LastRejMatchReason", MAKE)
PER_JOB = "@JOB@"
"""Stands for the number of a job until condor_submit fills it in."""
DISK_BYTES = 1_000_000_000
"""Of each worker, for what Dask spills."""
REASON_LETTERS = 120

STATES: Mapping[int, JobState] = {
    1: JobState.PENDING,
    2: JobState.RUNNING,
    3: JobState.ENDING,  # removed, and still on its way out
    4: JobState.ENDED,
    5: JobState.HELD,
    6: JobState.ENDING,  # its output is being sent back
    7: JobState.PENDING,  # suspended
}
SUSPENDED = 7

FAILED = "ExitBySignal || ExitCode != 0"
HOW = 'ExitBySignal ? strcat("it ended by signal ", ExitSignal) : strcat("it ended with code ", ExitCode)'

RESERVED = frozenset({"arguments", "executable", "queue", f"my.{OWN.lower()}", f"my.{MAKE.lower()}"})
LISTS = frozenset({"encryptinputfiles", "transferinputfiles"})
"""Commands of a site that are added to ours instead of replacing them."""


class HTCondorQueue:
    """The jobs of one service in an HTCondor pool; see `binworks.deploy.batch.Queue`.

    Parameters
    ----------
    job : WorkerJob
        What each job runs.

    Raises
    ------
    RequestError
        Code ``bad-site`` if the site's commands of the submit description cannot be used.
    """

    def __init__(self, job: WorkerJob) -> None:
        self.name = job.name
        self.options = job.site.htcondor.submit_options
        self.place = _place(self.options)
        self.job = job
        self.text = description(job)

    def submit(self, count: int) -> Sequence[str]:
        """Submit jobs and return their names, ``cluster.process``."""
        script = self.job.logs / "htcondor" / "worker.sh"
        script.parent.mkdir(parents=True, exist_ok=True)
        write(script, wrapper(self.job))
        script.chmod(0o755)
        text = re.sub(r"\nQueue\s*$", f"\nQueue {count}\n", self.text)
        return submitted(run(["condor_submit", "-terse", *self.options, "-"], text=text))

    def jobs(self) -> Mapping[str, Entry]:
        """Return all jobs of this service."""
        only = ["-constraint", self._mine(), "-json", "-attributes", ",".join(WANTED)]
        return entries(run(["condor_q", *self.place, *only]), self.job.digest)

    def drain(self, names: Sequence[str]) -> None:
        """Send SIGTERM to the worker hosts; their jobs leave the queue when they have ended."""
        self._act("condor_rm", names)

    def remove(self, names: Sequence[str]) -> None:
        """End jobs at once, also those that are being drained."""
        with suppress(TransientError):  # none of them runs
            self._on("condor_vacate_job", ["-fast"], f"JobStatus == 2 && ({_any(names)})")
        with suppress(TransientError):  # none of them is being drained
            self._on("condor_rm", ["-forcex"], f"JobStatus == 3 && ({_any(names)})")
        self._act("condor_rm", names)

    def _act(self, program: str, names: Sequence[str]) -> None:
        try:
            self._on(program, [], _any(names))
        except TransientError:
            # the same exit code for "there are none" and "nobody answers"
            left = self.jobs()
            if any(
                left[name].state not in (JobState.ENDING, JobState.ENDED) for name in names if name in left
            ):
                raise

    def _on(self, program: str, options: Sequence[str], which: str) -> None:
        run([program, *self.place, *options, "-constraint", f"{self._mine()} && ({which})"])

    def _mine(self) -> str:
        return f"{OWN} == {quoted(self.name)}"


class HTCondorBackend(BatchBackend):
    """A scheduler on this machine and workers in an HTCondor pool; see `binworks.deploy.batch.BatchBackend`."""

    programs = ("condor_submit", "condor_q", "condor_rm", "condor_vacate_job")

    def open_queue(self, job: WorkerJob) -> Queue:
        """Return the queue that runs this job."""
        return HTCondorQueue(job)

    @property
    def poll_seconds(self) -> float:
        """Time between two looks at the queue."""
        return self.site.htcondor.poll_seconds


def description(job: WorkerJob) -> str:
    """Return the submit description of one worker host.

    Parameters
    ----------
    job : WorkerJob
        What it runs.

    Raises
    ------
    RequestError
        Code ``bad-site`` if the site's commands cannot be written into it.
    """
    from dask_jobqueue.htcondor import HTCondorJob  # the laptop's `binworks up` needs none

    workers = job.site.workers
    files = sent_files(job)
    sent = replace(job, tls=tuple(Path(word).name if word in files else word for word in job.tls))
    options = sent.options()
    del options["job_script_prologue"]  # the wrapper has it
    if "scratch" not in workers.model_fields_set:
        options["local_directory"] = '"$_CONDOR_SCRATCH_DIR"'  # is counted as the job's disk, and cleared
    logs = job.logs / "htcondor"
    made = HTCondorJob(
        name=f"{job.name}-{PER_JOB}",
        disk=f"{DISK_BYTES * workers.processes}B",
        log_directory=str(logs),
        job_script_prologue=[],
        job_extra_directives=[],
        job_directives_skip=[],
        submit_command_extra=[],
        cancel_command_extra=[],
        **options,
    )
    made.executable = str(logs / "worker.sh")
    made.job_header_dict = merged(
        {**made.job_header_dict, **directives(job, files)}, job.site.htcondor.directives
    )
    lines = made.job_script().splitlines()
    return "\n".join(_literal(line) if line.startswith("Arguments = ") else line for line in lines) + "\n"


def _literal(arguments: str) -> str:
    """Keep condor_submit from filling in what is meant for the shell."""
    return arguments.replace("$", "$(DOLLAR)").replace(PER_JOB, "$(ClusterId).$(ProcId)")


def sent_files(job: WorkerJob) -> list[str]:
    """Return what HTCondor sends with each job, none if the machines see the home."""
    return [*job.tls[1::2], str(job.environment_file)] if job.site.htcondor.transfer else []


def directives(job: WorkerJob, files: Sequence[str]) -> dict[str, str]:
    """Return the commands of the submit description that dask-jobqueue does not write.

    Parameters
    ----------
    job : WorkerJob
    files : sequence of str
        Sent with the job.
    """
    workers = job.site.workers
    commands = {
        "batch_name": job.name,
        "initialdir": str(job.logs / "htcondor"),  # where the service was started may be nothing to a worker
        f"MY.{OWN}": quoted(job.name),
        f"MY.{MAKE}": quoted(job.digest),
        "RequestMemory": str(math.ceil(workers.memory / 2**20)),
        "getenv": "False",  # what a worker needs is in a file, since everybody can read descriptions
        # condor_rm: SIGTERM to the worker host, and time to finish; at most what the machine's policy allows
        "want_graceful_removal": "True",
        "kill_sig": "SIGTERM",
        "job_max_vacate_time": str(workers.grace),
        "MY.MaxRuntime": str(workers.walltime),
        # a host that fails stays in the queue, so that its exit code can be shown
        "on_exit_hold": FAILED,
        "on_exit_hold_reason": HOW,
        "should_transfer_files": "YES" if job.site.htcondor.transfer else "IF_NEEDED",
        "when_to_transfer_output": "ON_EXIT",
        "transfer_output_files": '""',
    }
    if files:
        commands["transfer_input_files"] = ", ".join(files)
        commands["encrypt_input_files"] = ", ".join(files)
    return commands


def merged(ours: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Return our commands, replaced or added to by those of the site.

    HTCondor knows ``request_memory`` and ``RequestMemory`` as the same, and so do we.

    Raises
    ------
    RequestError
        Code ``bad-site`` if one is not the site's to give, or spans lines.
    """
    commands = dict(ours)
    known = {_plain(name): name for name in ours}
    for name, value in given.items():
        key = _plain(name)
        if key in RESERVED or not re.fullmatch(r"\+?[A-Za-z_][\w.]*", name) or "\n" in value:
            raise RequestError(
                f"{name!r} cannot be given as a command of the submit description.",
                code="bad-site",
                where="htcondor.directives",
                hint="Each is one line; what the job runs is binworks' own.",
            )
        if key in LISTS and key in known:
            commands[known[key]] = f"{commands[known[key]]}, {value}"
            continue
        commands.pop(known.get(key, name), None)
        commands[name] = value
        if key == "my.jobflavour":  # the one is a name for a length of the other
            commands.pop("MY.MaxRuntime", None)
    return commands


def _plain(name: str) -> str:
    """Return a command's name without the freedom that HTCondor gives in writing it."""
    lower = name.lower()
    lower = f"my.{lower[1:]}" if lower.startswith("+") else lower
    return lower if lower.startswith("my.") else lower.replace("_", "")


def wrapper(job: WorkerJob) -> str:
    """Return the script that the job runs: environment, the site's lines; then it becomes what the arguments say."""
    path = job.environment_file
    sourced = f"./{path.name}" if job.site.htcondor.transfer else str(path)
    return "\n".join(["#!/bin/sh", f". {shlex.quote(sourced)}", *job.prologue(), 'exec /bin/sh "$@"'])


def quoted(text: str) -> str:
    """Return a text as a ClassAd string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def submitted(said: str) -> list[str]:
    """Return the names of the jobs that ``condor_submit -terse`` tells of: ``12.0 - 12.3``.

    Raises
    ------
    TransientError
        Code ``batch-system`` if it tells of none.
    """
    ranges = re.findall(r"^(\d+)\.(\d+) - (\d+)\.(\d+)$", said, re.MULTILINE)
    if not ranges:
        raise TransientError("condor_submit does not say what it submitted.", code="batch-system")
    return [
        f"{cluster}.{process}"
        for cluster, first, _, last in ranges
        for process in range(int(first), int(last) + 1)
    ]


def entries(said: str, make: str) -> dict[str, Entry]:
    """Return the jobs that ``condor_q -json`` tells of; it prints nothing at all if there are none.

    Parameters
    ----------
    said : str
    make : str
        Of the jobs that are submitted now.

    Raises
    ------
    TransientError
        Code ``batch-system`` if that cannot be read.
    """
    try:
        found = json.loads(said) if said.strip() else []
        return {f"{ad['ClusterId']}.{ad['ProcId']}": _entry(ad, make) for ad in found}
    except (ValueError, KeyError, TypeError):
        raise TransientError("condor_q's answer cannot be read.", code="batch-system") from None


def _entry(ad: Mapping[str, Any], make: str) -> Entry:
    state = STATES.get(ad["JobStatus"], JobState.PENDING)
    reason = ad.get({JobState.HELD: "HoldReason", JobState.PENDING: "LastRejMatchReason"}.get(state, ""))
    if ad["JobStatus"] == SUSPENDED:
        reason = "suspended"
    return Entry(state, short(reason), ad.get(MAKE) == make)


def short(reason: str | None) -> str | None:
    """Return a reason without its middle if it is long: HTCondor repeats all arguments there."""
    text = (reason or "").strip()
    if len(text) > 2 * REASON_LETTERS:
        text = f"{text[:REASON_LETTERS]} ... {text[-REASON_LETTERS:]}"
    return text or None


def _any(names: Iterable[str]) -> str:
    pairs = (name.split(".") for name in names)
    return " || ".join(f"(ClusterId == {cluster} && ProcId == {process})" for cluster, process in pairs)


def _place(options: Sequence[str]) -> list[str]:
    """Return the submit options that name a queue on another machine: the other commands need them, too."""
    chosen = {"-name": "-name", "-remote": "-name", "-pool": "-pool"}
    pairs = itertools.pairwise(options)
    return [word for option, value in pairs if option in chosen for word in (chosen[option], value)]
