"""How long the full W tensor takes to become a file for rabbit, and how much memory.

    python benchmarks/export_rabbit.py            both forms, JSON on standard output
    python benchmarks/export_rabbit.py --small    a twelfth of the bins and parameters, to see that it runs

The tensor is made up: 2880 bins, ten processes, and the 4858 parameters of the W fit by group, each where the real
ones act: an efficiency in its own eta bin and charge, eigenvectors of the muon scale and the theory in all bins, these
with different templates up and down. Each form is written in a process of its own, whose memory is the peak of all it
did. What makes the numbers of an effect is not much work here; a real one is expanded from a snapshot.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hist
import numpy as np

from binworks.tensors.expansion import Int64
from binworks.tensors.export import rabbit, rabbit_sparse
from binworks.tensors.fitinput import Effect, FitChannel, FitInput, Parameter

FORMS = {"rabbit": rabbit, "rabbit-sparse": rabbit_sparse}
PROMPT = ("Wmunu", "Wtaunu", "Zmumu", "Ztautau", "DYlow", "Top", "Diboson", "PhotonInduced", "QCD")
PROCESSES = (*PROMPT, "Nonprompt")
BOSONS = PROMPT[:5]
PT_BINS, CHARGES = 30, 2


@dataclass(frozen=True)
class Group:
    """Parameters that act alike.

    Parameters
    ----------
    common : int
        How many act in all bins.
    local : int
        How many act in one eta bin and charge, for each of these.
    processes : tuple of str
    mirrored : bool
        Whether the template down is the mirror of that up.
    """

    common: int
    processes: tuple[str, ...] = PROMPT
    local: int = 0
    mirrored: bool = True


def groups(part: int) -> Mapping[str, Group]:
    """Return the groups of the W fit; a ``part``-th of those that act in all bins."""
    return {
        "mass": Group(1, ("Wmunu", "Wtaunu"), mirrored=False),
        "efficiency_stat": Group(0, local=29),
        "efficiency_syst": Group(1, local=3),
        "efficiency_background": Group(54 // part),
        "veto": Group(147 // part, ("Zmumu", "DYlow"), local=4),
        "muon_scale": Group(289 // part),
        "detector": Group(62 // part, mirrored=False),
        "pdf": Group(60 // part, BOSONS, mirrored=False),
        "angular": Group(353 // part, BOSONS[:3], mirrored=False),
        "theory": Group(44 // part, BOSONS, mirrored=False),
        "nonprompt": Group(3, ("Nonprompt",), local=4),
        "norms": Group(4),
    }


def fit_input(etas: int = 48, part: int = 1) -> FitInput:
    """Return the fit of the W: 4858 parameters for 48 eta bins and ``part=1``."""
    axes = (
        hist.axis.Regular(etas, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Regular(PT_BINS, 26.0, 56.0, name="pt", flow=False),
        hist.axis.Regular(CHARGES, -2.0, 2.0, name="charge", flow=False),
    )
    bins = etas * PT_BINS * CHARGES
    cells = np.arange(bins).reshape(etas, PT_BINS, CHARGES)
    blocks = [cells[eta, :, charge] for eta in range(etas) for charge in range(CHARGES)]
    parameters: list[Parameter] = []
    first: dict[str, int] = {}
    for name, group in groups(part).items():
        first[name] = len(parameters)
        count = group.common + len(blocks) * group.local
        free = name == "mass"
        parameters += [
            Parameter(f"{name}{number}", (name,), constrained=not free, interest=free)
            for number in range(count)
        ]

    def effects(process: int) -> Iterator[Effect]:
        for name, group in groups(part).items():
            if PROCESSES[process] in group.processes:
                yield from _effects(group, first[name], bins, blocks, process)

    rng = np.random.default_rng(1)
    nominal = rng.uniform(1e3, 1e4, (len(PROCESSES), bins))
    data = rng.poisson(nominal.sum(axis=0)).astype(float)
    used = np.ones(bins, bool)
    channel = FitChannel("signal", axes, PROCESSES, nominal, nominal, data, used, effects)
    return FitInput(
        (channel,), tuple(parameters), symmetric=False, metadata={"job": "made-up", "complete": True}
    )


def _effects(group: Group, first: int, bins: int, blocks: list[Int64], process: int) -> Iterator[Effect]:
    rng = np.random.default_rng((first, process))
    if group.common:
        up = rng.normal(0, 1e-3, (group.common, bins))
        down = None if group.mirrored else -up * rng.normal(1, 0.1, up.shape)
        yield Effect(first + np.arange(group.common), None, up, down)
    for number, block in enumerate(blocks if group.local else ()):
        start = first + group.common + number * group.local
        yield Effect(start + np.arange(group.local), block, rng.normal(0, 1e-3, (group.local, len(block))))


def write(form: str, small: bool) -> dict[str, Any]:
    """Write one form in this process and return what it took."""
    fit = fit_input(4, 12) if small else fit_input()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tensor.hdf5"
        started, worked = time.perf_counter(), time.process_time()
        FORMS[form].write(fit, path)
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
        size = path.stat().st_size
    return {
        "bins": fit.channels[0].nominal.shape[1],
        "processes": len(fit.processes),
        "parameters": len(fit.parameters),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "file_mb": round(size / 1e6, 1),
    }


def measure(small: bool = False) -> dict[str, dict[str, Any]]:
    """Write both forms, each in a new process; return size, seconds and peak memory by form."""
    found = {}
    for form in FORMS:
        command = [sys.executable, __file__, "--form", form, *(["--small"] if small else [])]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        found[form] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print what `measure` finds, or of one form in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--form", choices=FORMS, help="only this one, in this process")
    parser.add_argument("--small", action="store_true", help="fewer bins and parameters")
    options = parser.parse_args()
    found = write(options.form, options.small) if options.form else measure(options.small)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
