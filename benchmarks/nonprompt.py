"""How well the nonprompt estimate closes on the demo's samples, and from how many events on.

``python benchmarks/nonprompt.py DEMO --plot PLOT.png`` fills the W's regions from the samples that ``binworks sample
demo --out DEMO`` made, estimates with the closure factor 1, and compares with the simulated nonprompt muons; then draws
toys of smoothed spectra, for one to 300 times as many events.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import hist
import matplotlib.pyplot as plt
import numpy as np

from binworks.corrections import sets
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.processors.run import run_files
from binworks.tensors.axes import ISO_EDGES, MT_EDGES, PT_BINS, PT_HIGH, PT_LOW
from binworks.tensors.card import Nonprompt
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.nonprompt import REGIONS, Estimate
from binworks.tensors.smoothing import Spectra, smooth

NONPROMPT = "Nonprompt"
SETTINGS = Nonprompt(closure=1.0)
EDGES = np.linspace(PT_LOW, PT_HIGH, PT_BINS + 1)
PLACES = 96
FACTORS = (1, 3, 10, 30, 100, 300)
MILLIONS = 0.6
BLUE, RED, GREY = "#5790fc", "#c4161c", "#717581"


def axes_of(etas: int, charges: int) -> tuple[Any, ...]:
    return (
        hist.axis.Regular(etas, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Regular(PT_BINS, PT_LOW, PT_HIGH, name="pt", flow=False),
        hist.axis.Regular(charges, -2, 2, name="charge", flow=False),
        hist.axis.Variable(MT_EDGES, name="mt", flow=False),
        hist.axis.Variable(ISO_EDGES, name="relIso", flow=False),
    )


def filled(demo: Path) -> dict[str, tuple[Float64, Float64]]:
    """Return events and variances of data, prompt and nonprompt simulation, summed over eta and charge."""
    catalogue = json.loads((demo / "catalogue.json").read_text())
    corrections = sets.load(demo / "corrections" / "demo")
    processor = registry.create("w_mass", {}, corrections, [])
    found: dict[str, tuple[Float64, Float64]] = {}
    for entry in catalogue["datasets"]:
        dataset = Dataset(**{**entry, "files": [str(demo / name) for name in entry["files"]]})
        sums = run_files(processor, dataset)
        nominal = sums.histograms["nominal"]
        scale = 1.0
        if not dataset.is_data:
            scale = catalogue["luminosity"] * dataset.cross_section / sums.counts["sum_sign"]
        kind = "data" if dataset.is_data else NONPROMPT if dataset.group == NONPROMPT else "prompt"
        values, variances = found.get(kind, (np.zeros((30, 3, 2)), np.zeros((30, 3, 2))))
        found[kind] = (
            values + scale * nominal.values.sum(axis=(0, 2)),
            variances + scale**2 * nominal.variances.sum(axis=(0, 2)),
        )
    return found


def in_one_place(data: tuple[Float64, Float64], prompt: tuple[Float64, Float64]) -> Estimate:
    parts = (Histogram(axes_of(1, 1), *(array[None, :, None] for array in pair)) for pair in (data, prompt))
    return Estimate.make(*parts, SETTINGS)


def errors_of(estimate: Estimate) -> tuple[Float64, float]:
    """Return the statistical uncertainty of each bin of pT, and of the sum over all."""
    shifts = np.stack([shift.logs for shift in estimate.shifts() if shift.cells is not None])
    moved = shifts * np.moveaxis(estimate.nominal, 2, 1).reshape(-1, 1, PT_BINS)
    return np.sqrt((moved**2).sum(axis=(0, 1))), float(np.sqrt((moved.sum(axis=2) ** 2).sum()))


def smoothed(values: Float64, degree: int) -> Float64:
    """Return curves of one place, (pt, mt, relIso)."""
    rows = np.moveaxis(values, 0, -1).reshape(6, PT_BINS)
    fit = smooth(Spectra(rows, rows, 0 * rows, 0 * rows), EDGES, degree)
    return np.moveaxis(np.exp(fit.coefficients @ fit.basis.T).reshape(3, 2, PT_BINS), -1, 0) / PLACES


def toys(fake: Float64, prompt: Float64) -> list[dict[str, float]]:
    """Return how the estimate does with more and more events, in all places alike."""
    rng, rows = np.random.default_rng(1), []
    powers = sum(region.power * np.log(fake[:, region.mt, region.iso]) for region in REGIONS)
    shape = (48, PT_BINS, 2, 3, 2)
    for factor in FACTORS:
        mean = np.broadcast_to(factor * fake[None, :, None], shape)
        subtracted = np.broadcast_to(factor * prompt[None, :, None], shape)
        data, simulated = rng.poisson(mean + subtracted).astype(float), rng.poisson(2 * subtracted) / 2
        axes = axes_of(48, 2)
        estimate = Estimate.make(
            Histogram(axes, data, data), Histogram(axes, simulated, simulated / 2), SETTINGS
        )
        truth = factor * np.exp(powers)
        missed = np.moveaxis(np.log(estimate.nominal / truth[None, :, None]), 2, 1).reshape(PLACES, PT_BINS)
        logs = np.stack([shift.logs for shift in estimate.shifts() if shift.cells is not None])
        pulls = np.einsum("pib,pb->pi", np.linalg.pinv(np.moveaxis(logs, 1, 2)), missed)
        rows.append(
            {
                "millions of W": factor * MILLIONS,
                "events of B a place": float(factor * fake[:, 1, 0].sum()),
                "borrowed": len(estimate.borrowed) / (PLACES * len(REGIONS)),
                "total / truth": float(estimate.nominal.sum() / (PLACES * truth.sum())),
                "rms of pulls": float(np.sqrt(np.mean(pulls**2))),
                "uncertainty at 36 GeV": float(np.sqrt((logs**2).sum(axis=1)).mean(axis=0)[10]),
            }
        )
    return rows


def draw(found: dict[str, tuple[Float64, Float64]], rows: list[dict[str, float]], path: Path) -> None:
    figure, (regions, closure, scale) = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
    _regions(regions, found)
    _closure(closure, found)
    factors = [row["millions of W"] for row in rows]
    scale.axhline(1, color="k", lw=0.8)
    scale.plot(factors, [row["total / truth"] for row in rows], "o-", color=RED, label="all places / truth")
    scale.plot(
        factors,
        [row["rms of pulls"] for row in rows],
        "s-",
        color=BLUE,
        label="rms of pulls of the 384 shifts",
    )
    scale.plot(
        factors,
        [row["uncertainty at 36 GeV"] for row in rows],
        "^-",
        color=GREY,
        label="uncertainty of a place at 36 GeV",
    )
    scale.set(xscale="log", ylim=(0, 3), xlabel="W events in the data (millions)", title="in 96 places, toys")
    scale.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _regions(axes: Any, found: dict[str, tuple[Float64, Float64]]) -> None:
    names = {(region.mt, region.iso): region.name for region in REGIONS} | {(2, 0): "D"}
    order = [(mt, iso) for iso in (1, 0) for mt in (0, 1, 2)]
    places = np.arange(len(order))
    fake, prompt, data = (
        [found[kind][0][:, mt, iso].sum() for mt, iso in order] for kind in (NONPROMPT, "prompt", "data")
    )
    axes.bar(places, fake, 0.8, color=BLUE, label="nonprompt")
    axes.bar(places, prompt, 0.8, bottom=fake, color="#e0e0e0", label="prompt simulation")
    axes.plot(places, data, "ko", ms=4, label="data")
    power = {region.name: f"{region.power:+d}" for region in REGIONS}
    labels = [
        f"${names[place]}${f' ({power[names[place]]})' if names[place] in power else ''}\n"
        f"{('0-20', '20-40', '> 40')[place[0]]}"
        for place in order
    ]
    axes.set_xticks(places, labels)
    axes.set(yscale="log", ylim=(1e3, 2e6), xlabel="anti-isolated | isolated, by mT (GeV)", ylabel="events")
    axes.set_title("regions, power in the estimate")
    axes.legend(frameon=False, loc="upper left")


def _closure(axes: Any, found: dict[str, tuple[Float64, Float64]]) -> None:
    centres = (EDGES[1:] + EDGES[:-1]) / 2
    nothing = (np.zeros((30, 3, 2)), np.zeros((30, 3, 2)))
    truth, spread = (array[:, 2, 0] for array in found[NONPROMPT])
    axes.errorbar(centres, truth, np.sqrt(spread), fmt="k.", ms=4, lw=0.8, label="simulated in $D$")
    cases = (
        ("from simulated nonprompt", BLUE, found[NONPROMPT], nothing),
        ("from data - prompt", RED, found["data"], found["prompt"]),
    )
    for label, colour, data, prompt in cases:
        estimate = in_one_place(data, prompt)
        error, total = errors_of(estimate)
        curve = estimate.nominal.ravel()
        print(
            f"{label}: {curve.sum():.0f} +- {total:.0f}, simulated {truth.sum():.0f} +- {spread.sum() ** 0.5:.0f}"
        )
        axes.plot(centres, curve, color=colour, label=f"{label}: {curve.sum():.0f} ± {total:.0f}")
        axes.fill_between(centres, curve - error, curve + error, color=colour, alpha=0.2, lw=0)
    axes.set(yscale="log", ylim=(3, 1e3), xlabel="muon pT (GeV)", ylabel="events / GeV")
    axes.set_title(f"closure, all places together ({truth.sum():.0f})")
    axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("demo", type=Path, help="Folder of the demo's samples.")
    parser.add_argument("--plot", type=Path, help="Where to draw it.")
    asked = parser.parse_args()
    found = filled(asked.demo)
    rows = toys(smoothed(found[NONPROMPT][0], 3), smoothed(found["prompt"][0], 5))
    for row in rows:
        print(", ".join(f"{name} {value:.3g}" for name, value in row.items()))
    if asked.plot:
        draw(found, rows, asked.plot)


if __name__ == "__main__":
    main()
