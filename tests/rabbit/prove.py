"""Let rabbit-fit fit what binworks exports, and compare it with the linearised fit.

    python tests/rabbit/prove.py --out rabbit-proof                    half an hour, 10 GB of memory
    python tests/rabbit/prove.py --out rabbit-proof --rabbit ~/rabbit/bin

It simulates collisions, runs the W processor with all its systematics on a service, estimates the nonprompt background,
makes pseudo-data with a W heavier by 10 MeV, and exports both of rabbit's forms over REST. rabbit-fit (installed into
``rabbit-proof/venv`` unless there is one) fits them. What must agree, and how closely, stands in agreement.py. The
tables are printed, all numbers go to ``proof.json``, and the exit code is 1 if anything disagrees.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import h5py

from binworks.client.children import running_service, sample
from binworks.client.job import Job
from binworks.processors.cards import default_card
from binworks.tensors.card import Card, Nonprompt
from binworks.tensors.fit import fit_linear
from binworks.tensors.fitinput import FitInput
from rabbit import agreement, fitter
from rabbit.agreement import Check
from rabbit.fitter import Run

FORMS = ("rabbit-sparse", "rabbit")
EVENTS = 300_000
"""W -> mu nu in the data. With a fifth of it the nonprompt background has too few events in some region."""
SHIFT_MEV = 10.0
PSEUDO_DATA = "massShiftW10MeVUp"
COUNTS: Mapping[str, int] = {
    "mass": 1, "mass_Z": 1, "width_W": 1, "width_Z": 1, "sin2theta": 1,
    "pdf": 60, "theory": 32, "angular": 353, "ew": 7,
    "efficiency_reco": 384, "efficiency_tracking": 288, "efficiency_idip": 384,
    "efficiency_trigger": 1152, "efficiency_iso": 576,
    "efficiency_systematics": 343, "veto_stat": 384, "veto_systematics": 147,
    "momentum_scale": 144, "z_closure": 72, "calibration_mz": 1, "resolution": 72,
    "pixel_hits": 49, "prefire": 14, "luminosity": 1, "nonprompt": 387,
}  # fmt: skip
"""Parameters by group of the published W fit. Its 4858 have the sizes of three backgrounds, too (top, dibosons,
photon-induced), which the demo does not simulate."""
PUBLISHED, NOT_SIMULATED = 4858, 3


def card() -> Card:
    """Return the W fit's card with pseudo-data and the nonprompt background from data."""
    update = {"data": PSEUDO_DATA, "nonprompt": Nonprompt()}
    return default_card("w_mass").model_copy(update=update)


def exported(out: Path, events: int, seed: int, workers: int) -> FitInput:
    """Run the job, let the service export it in both forms, and return the same fit as our own code gets it."""
    sample(out / "samples", events=events, seed=seed, jobs=workers)
    options = ("--catalogue", out / "samples/catalogue.json", "--workers", workers)
    with running_service(out / "home", *options) as service:
        names = [entry["name"] for entry in service.client.datasets()]
        job: Job = service.client.submit("w_mass", names, corrections="demo", label="rabbit")
        job.wait().check()
        for form in FORMS:
            started = time.monotonic()
            path = Path(job.export(form, out / f"{form}.hdf5", card=card()).path)
            say(f"{form}: {path.stat().st_size / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
        return job.fit_input(card())


def count(path: Path) -> list[Check]:
    """Return the numbers of parameters in a file by group, and those that should be there."""
    with h5py.File(path) as file:
        groups = zip(file["hsystgroups"].asstr()[...], file["hsystgroupidxs"][...], strict=True)
        found = {group: len(members) for group, members in groups}
        total = len(file["hsysts"])
    checks = [
        Check(f"parameters of {group}", found.get(group, 0), wanted, 0) for group, wanted in COUNTS.items()
    ]
    return [*checks, Check("parameters", total, PUBLISHED - NOT_SIMULATED, 0)]


def compare(fit: FitInput, runs: Mapping[str, Run]) -> list[Check]:
    """Return everything that rabbit and the linearised fit say about the same numbers."""
    shifted, expected = fit_linear(fit), fit_linear(agreement.asimov(fit))
    checks = []
    for run in runs.values():
        for result in run.results.values():
            assert result.names == tuple(parameter.name for parameter in fit.parameters)
        checks += agreement.of_mass(run.results["data"], shifted, SHIFT_MEV)
        if "asimov" in run.results:
            checks += agreement.of_uncertainties(run.results["asimov"], expected, fit.groups)
    first, second = (run.results["data"] for run in runs.values())
    return [*checks, *agreement.of_forms(first, second)]


def show(checks: list[Check]) -> None:
    """Print a line for each number."""
    say(f"{'':56} {'rabbit':>11} {'ours':>11} {'allowed':>9}")
    for check in checks:
        mark = "" if check.passed else "  DIFFERENT"
        say(f"{check.what:56} {check.rabbit:11.5g} {check.ours:11.5g} {check.tolerance:9.2g}{mark}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Prove it; return 1 if something disagrees."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("rabbit-proof"), help="folder for everything")
    parser.add_argument("--rabbit", type=Path, default=fitter.find(), help="folder with rabbit_fit")
    parser.add_argument("--events", type=int, default=EVENTS, help="W -> mu nu events in the data")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    out: Path = options.out.absolute()
    programs = options.rabbit or fitter.install(out / "venv")
    fit = exported(out, options.events, options.seed, options.workers)
    runs: dict[str, Run] = {}
    for form in FORMS:
        runs[form] = fitter.run(programs, out / f"{form}.hdf5", out / form, asimov=form == FORMS[0])
        say(f"{form}: rabbit_fit took {runs[form].seconds:.0f} s and {runs[form].peak_mb:.0f} MB")
    checks = [*count(out / f"{FORMS[0]}.hdf5"), *compare(fit, runs)]
    show(checks)
    wrong = [check for check in checks if not check.passed]
    report: dict[str, Any] = {
        "events": options.events,
        "fits": {form: {"seconds": run.seconds, "peak_mb": run.peak_mb} for form, run in runs.items()},
        "checks": [{**asdict(check), "passed": check.passed} for check in checks],
    }
    (out / "proof.json").write_text(json.dumps(report, indent=1) + "\n")
    say(f"{len(checks) - len(wrong)} of {len(checks)} agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
