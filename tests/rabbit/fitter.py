"""rabbit-fit as a program: found or installed, run, and its result read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from binworks.tensors.histogram import Float64

PACKAGES = ("rabbit-fit==0.2.5", "tf_keras")
"""rabbit-fit imports tensorflow-probability, which wants tf_keras and does not say so."""
ENVIRONMENT = "BINWORKS_RABBIT"


@dataclass(frozen=True)
class Fitted:
    """What rabbit found; the mass, and impacts on it, in units of its templates.

    Parameters
    ----------
    names : tuple of str
    values, uncertainties : arrays, shape (parameters,)
    impacts : dict
        By group: how far the mass moves with the group's parameters, given their uncertainty after the fit
        (rabbit's "traditional" ones).
    parts : dict
        By group: the part of the mass uncertainty that comes from the constraints of its parameters ("global");
        ``stat`` and ``binByBinStat`` come from data and simulation. Their squares add up.
    chi2, ndf : float, int
        Of the saturated likelihood.
    """

    names: tuple[str, ...]
    values: Float64
    uncertainties: Float64
    impacts: dict[str, float]
    parts: dict[str, float]
    chi2: float
    ndf: int


@dataclass(frozen=True)
class Run:
    """A run of rabbit_fit: its result by data set (``data``, ``asimov``), and what it took."""

    results: dict[str, Fitted]
    seconds: float
    peak_mb: float


def find() -> Path | None:
    """Return the folder of ``rabbit_fit``, which the environment names, or on the PATH; None if there is none."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return Path(named)
    found = shutil.which("rabbit_fit")
    return None if found is None else Path(found).parent


def install(folder: Path) -> Path:
    """Make a virtual environment with rabbit-fit, 2.5 GB, unless it is there; return its folder of programs."""
    programs = folder / "bin"
    if not (programs / "rabbit_fit").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([programs / "python", "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return programs


def run(programs: Path, file: Path, out: Path, *, asimov: bool = True) -> Run:
    """Fit the data of a file, and its expectation, with impacts of both kinds.

    Raises
    ------
    RuntimeError
        With the end of its messages.
    """
    fits = ["0", "-1"] if asimov else ["0"]
    words = ["-t", *fits, "--unblind", "--doImpacts", "--globalImpacts"]
    started = time.monotonic()
    peak = _call([programs / "rabbit_fit", file, "-o", out, *words], out)
    seconds = time.monotonic() - started
    groups = {"data": "", "asimov": "asimov"} if asimov else {"data": ""}
    return Run({name: _read(programs, out, group) for name, group in groups.items()}, seconds, peak)


def _read(programs: Path, out: Path, group: str) -> Fitted:
    arrays = out / f"{group or 'data'}.npz"
    script = Path(__file__).with_name("read_result.py")
    _call([programs / "python", script, out / "fitresults.hdf5", group, arrays], out)
    with np.load(arrays) as found:
        return Fitted(
            names=tuple(found["names"].tolist()),
            values=found["values"],
            uncertainties=found["uncertainties"],
            impacts=dict(
                zip(found["impacts_grouped_names"].tolist(), found["impacts_grouped"].tolist(), strict=True)
            ),
            parts=dict(
                zip(
                    found["global_impacts_grouped_names"].tolist(),
                    found["global_impacts_grouped"].tolist(),
                    strict=True,
                )
            ),
            chi2=float(found["chi2"]),
            ndf=int(found["ndf"]),
        )


def _call(command: list[str | Path], folder: Path) -> float:
    """Run a program, its messages in the folder; return its peak memory in MB."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{Path(command[0]).name}.log"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{log.stem} ended with {process.returncode}:\n{end}")
    return usage.ru_maxrss / 1024
