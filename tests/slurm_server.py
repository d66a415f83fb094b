"""A real Slurm of one node, on the loopback, with ports, folders and a munge of its own; for tests only."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 30.0
PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge", "unshare": "util-linux"}
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
ReturnToService=2
MpiDefault=none
MailProg=/bin/true
KillWait=5
MessageTimeout=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000
PartitionName=short Nodes={host} Default=YES MaxTime=60 State=UP
"""


def why_not() -> str | None:
    """Return why no Slurm can be started here."""
    missing = [
        f"{program} ({package})" for program, package in PROGRAMS.items() if shutil.which(program) is None
    ]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "Slurm's node starts jobs in a process namespace of its own, which takes root"
    return None


def free_port() -> int:
    """Return a port of the loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Slurm:
    """Controller and one node of 8 cores and 16 GB; its commands find it by ``SLURM_CONF``.

    Parameters
    ----------
    folder : Path
        A short path: sockets lie in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        self.configuration = folder / "slurm.conf"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool"):
            (folder / name).mkdir()
        ports = {"controller_port": free_port(), "node_port": free_port()}
        self.configuration.write_text(CONFIGURATION.format(folder=folder, host=self.host, **ports))
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(64))

    def start(self) -> None:
        """Start all; returns when the node takes jobs."""
        places = [("socket", "munge.socket"), ("key-file", "munge.key"), ("pid-file", "munge.pid")]
        places += [("log-file", "munge.log"), ("seed-file", "munge.seed")]
        options = [f"--{option}={self.folder / name}" for option, name in places]
        self._spawn("munged", ["munged", "--foreground", "--force", *options])
        self._wait(lambda: (self.folder / "munge.socket").exists())
        self.start_controller()
        # what the node starts ends with it, whatever becomes of it
        node = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
        self._spawn("slurmd", [*node, "slurmd", "-D", "-c", "-f", str(self.configuration), "-N", self.host])
        self._wait(lambda: self.ask("sinfo", "--noheader", "--format=%T") == "idle")

    def start_controller(self) -> None:
        """Start the controller; it remembers its jobs."""
        fresh = [] if any((self.folder / "state").iterdir()) else ["-c"]
        self._spawn("slurmctld", ["slurmctld", "-D", *fresh, "-f", str(self.configuration)])
        self._wait(lambda: self.ask("squeue", "--noheader") is not None)

    def stop_controller(self) -> None:
        """End the controller; jobs go on."""
        self._end("slurmctld", signal.SIGTERM)

    def ask(self, *command: str) -> str | None:
        """Return what a command of Slurm's prints, or None if it fails."""
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment())
        return done.stdout.strip() if done.returncode == 0 else None

    def environment(self) -> dict[str, str]:
        """Return an environment in which Slurm's commands speak with this one."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
        return {**plain, "SLURM_CONF": str(self.configuration)}

    def jobs(self, *states: str) -> list[str]:
        """Return the jobs that are in one of these states."""
        asked = self.ask("squeue", "--noheader", "--array", f"--states={','.join(states)}", "--format=%i")
        return [] if asked is None else asked.split()

    def close(self) -> None:
        """End all."""
        for name in ("slurmd", "slurmctld", "munged"):
            self._end(name, signal.SIGKILL)

    def log(self) -> str:
        """Return what its parts said."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.out.log").open("ab") as output:
            # it dies with this process, however that ends
            with_us = [sys.executable, "-m", "binworks.deploy.child", str(os.getpid()), *command]
            self._processes[name] = subprocess.Popen(
                with_us,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )

    def _end(self, name: str, number: signal.Signals) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            process.send_signal(number)
            process.wait(30)

    def _wait(self, reached: object) -> None:
        end = time.monotonic() + START_SECONDS
        while not reached():  # type: ignore[operator]
            dead = [name for name, process in self._processes.items() if process.poll() is not None]
            assert not dead, f"{dead} ended: {self.log()}"
            assert time.monotonic() < end, self.log()
            time.sleep(0.1)


@contextmanager
def serving() -> Iterator[Slurm]:
    """Give a running Slurm, which this process's Slurm commands find; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="bw-slurm-", ignore_cleanup_errors=True) as folder:
        slurm = Slurm(Path(folder))
        before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = str(slurm.configuration)
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.close()
            if before is None:
                del os.environ["SLURM_CONF"]
            else:
                os.environ["SLURM_CONF"] = before
