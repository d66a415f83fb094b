"""Run the tests of the HTCondor back end inside a real pool.

    python tests/condor/prove.py                                        some minutes, and the network: a Debian 13
    BINWORKS_CONDOR_ROOT=/var/tmp/condor python tests/condor/prove.py   keeps that for the next time

Arguments go to pytest. What was measured is printed and goes to ``condor-proof.json``; the exit code is pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from condor import pool

SOURCE = Path(__file__).resolve().parent.parent.parent
OUT = "condor-proof.json"


def build(folder: Path) -> Path:
    """Build the wheel of this tree."""
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(SOURCE),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def main(arguments: Sequence[str]) -> int:
    """Prove it."""
    named = os.environ.get(pool.ROOT_VARIABLE)
    kept = Path(named).absolute() if named else None
    if reason := pool.why_not(kept):
        print(f"No HTCondor pool can be run here: {reason}.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="binworks-condor-root-") as folder:
        wheel = build(Path(folder))
        root = kept or Path(folder) / "root"
        if not pool.ready(root):
            pool.make_root(root, wheel)
        with pool.running(root, wheel, SOURCE) as running:
            tests = [
                pool.PYTHON,
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                "-o",
                "faulthandler_timeout=0",  # one test takes longer than all others
                f"--basetemp={pool.SCRATCH}",
                f"{pool.SOURCE}/tests/condor",
                f"{pool.SOURCE}/tests/test_deploy_htcondor.py",
                *arguments,
            ]
            environment = {"BINWORKS_CONDOR_MEASURED": f"{pool.HOME}/{OUT}", "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(running.command(*tests, environment=environment), check=False, cwd="/")
            measured = running.path(f"{pool.HOME}/{OUT}")
            if measured.exists():
                Path(OUT).write_text(measured.read_text())
                print(measured.read_text())
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
