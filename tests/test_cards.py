"""The cards that fits start from, and the nuisances that come of them, counted as in the published measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import brute_force_cases
import numpy as np
import pytest
from fit_source import FACTS, InMemory

from binworks.processors import registry
from binworks.processors.cards import CARDS, default_card
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.axes import column_axis, w_axes, z_wlike_axes
from binworks.tensors.card import Card, Nonprompt
from binworks.tensors.expansion import Expansion
from binworks.tensors.fitbuild import fit_input
from binworks.tensors.histogram import Histogram
from binworks.tensors.nonprompt import Estimate

STEPS = ("reco", "tracking", "idip", "trigger", "iso")
PUBLISHED = {
    # what: (groups of nuisances, W-like, W)
    "efficiency, statistical": (" ".join(f"efficiency_{step}" for step in STEPS), 2784, 2784),
    "efficiency, systematic and background model": ("efficiency_systematics", 343, 343),
    "veto efficiency": ("veto_stat veto_systematics", 0, 531),
    "momentum scale": ("momentum_scale", 144, 144),
    "Z closure": ("z_closure", 72, 72),
    "mZ": ("calibration_mz", 1, 1),
    "resolution": ("resolution", 72, 72),
    "pixel hits": ("pixel_hits", 49, 49),
    "muon and ECAL prefire": ("prefire", 14, 14),
    "PDF and alphaS": ("pdf", 60, 60),
    "angular coefficients": ("angular", 177, 353),
    "pT(V) model": ("theory", 22, 32),
    "electroweak": ("ew", 6, 7),
    "masses, width, sin2theta": ("mass mass_Z width_W width_Z sin2theta", 3, 5),
    "luminosity, prompt background": ("luminosity CMS_background", 3, 4),
    "nonprompt": ("nonprompt", 0, 387),
}  # fmt: skip
TOTAL = {"z_wlike": 3750, "w_mass": 4858}


LIGHT = ("Top", "Diboson", "PhotonInduced", "Other")
"""Processes without variations in the test."""


def sums(axes: tuple[Any, ...], level: float, seed: int, blocks: Mapping[str, Expansion]) -> Accumulator:
    """Return sums about a level, and blocks that vary them by a per mille."""
    rng = np.random.default_rng(seed)
    nominal = Histogram.zeros(axes, variances=True)
    nominal.values[...] = level * rng.uniform(0.9, 1.1, nominal.values.shape)
    nominal.variances = nominal.values / 10
    histograms = {"nominal": nominal}
    for name, expansion in blocks.items():
        columns = tuple(str(c) for c in range(expansion.column.max() + 1))
        deviation = rng.normal(0, 1e-3, (*nominal.values.shape, len(columns)))
        values = (deviation + (not expansion.base.all())) * nominal.values[..., np.newaxis]
        histograms[name] = Histogram((*axes, column_axis(columns)), values)
    return Accumulator(histograms, {"sum_sign": 10})


def source(channel: str, corrections: Any) -> InMemory:
    processor = registry.create(channel, {}, corrections)
    expansions = processor.expansions()
    # a block of several groups has the columns of the widest
    widest = {e.block: e for e in sorted(expansions, key=lambda e: int(e.column.max()))}
    axes = w_axes() if channel == "w_mass" else z_wlike_axes()
    held = {"data": sums(axes, 1000.0, 0, {})}
    held |= {name: sums(axes, 10.0, 1 + i, {}) for i, name in enumerate(LIGHT)}
    held |= {name: sums(axes, 100.0, 8 + i, widest) for i, name in enumerate("WZ")}
    # of luminosity and cross section such that the sums are the expected events
    return InMemory(held, expansions, {**FACTS, "luminosity": 10.0}, cross_section=1.0)


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return brute_force_cases.correction_set(tmp_path_factory.mktemp("corrections"))


@pytest.fixture(scope="module")
def job(corrections: Any) -> InMemory:
    return source("w_mass", corrections)


@pytest.mark.parametrize(("channel", "column"), [("z_wlike", 1), ("w_mass", 2)])
def test_the_parameters_of_each_group_are_as_many_as_published(
    channel: str, column: int, corrections: Any, job: InMemory
) -> None:
    held = job if channel == "w_mass" else source(channel, corrections)
    fit = fit_input(default_card(channel), {None: held})
    counts = {
        what: len({name for group in str(row[0]).split() for name in fit.groups.get(group, ())})
        for what, row in PUBLISHED.items()
    }
    assert counts == {what: row[column] for what, row in PUBLISHED.items()}
    assert (
        len(fit.parameters) == len({p.name for p in fit.parameters}) == sum(counts.values()) == TOTAL[channel]
    )


def test_what_a_variation_does_to_the_nonprompt_estimate_is_a_new_subtraction(job: InMemory) -> None:
    pairs_as_they_are = default_card("w_mass").model_copy(update={"rules": ()})
    fit = fit_input(pairs_as_they_are, {None: job})
    channel = fit.channels[0]
    effects = list(channel.effects(channel.processes.index("Nonprompt")))
    up = {fit.parameters[n].name: (e.cells, e.up[row]) for e in effects for row, n in enumerate(e.parameters)}
    assert {p.name for p in fit.parameters} - up.keys() == {"CMS_PhotonInduced", "CMS_Top", "CMS_VV"}
    nominal = {name: held.histograms["nominal"] for name, held in job.held.items()}
    prompt = Histogram.zeros(w_axes(), variances=True)
    for name in ("W", "Z", *LIGHT):
        prompt.add(nominal[name], name)
    data = nominal["data"].values
    estimate = Estimate.make(Histogram(w_axes(), data, data), prompt, Nonprompt())
    for expansion in job.groups:
        nuisance = expansion.nuisances[-1]
        template = prompt.values.copy()
        for name in "WZ":
            sums = job.held[name].histograms
            template += expansion.expand(nominal[name], sums[expansion.block], [nuisance.up])[0]
            template -= nominal[name].values
        expected = np.log(estimate.vary(template[np.newaxis])[0] / estimate.nominal).ravel()
        cells, logs = up[nuisance.name]
        found = np.zeros(2880)
        found[slice(None) if cells is None else cells] = logs
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12, err_msg=nuisance.name)


@pytest.mark.parametrize("channel", ["w_mass", "z_wlike"])
def test_pairs_are_averaged_so_that_files_need_no_second_half(
    channel: str, corrections: Any, job: InMemory
) -> None:
    held = job if channel == "w_mass" else source(channel, corrections)
    assert fit_input(default_card(channel), {None: held}).symmetric


def test_the_sizes_are_those_of_the_published_measurement() -> None:
    sizes = {channel: {norm.name: norm.size for norm in CARDS[channel].norms} for channel in CARDS}
    assert sizes["w_mass"] == {
        "luminosity": 1.012, "CMS_PhotonInduced": 2.0, "CMS_Top": 1.06, "CMS_VV": 1.16,
    }  # fmt: skip
    assert sizes["z_wlike"] == {"luminosity": 1.012, "CMS_PhotonInduced": 2.0, "CMS_background": 1.15}
    assert sizes["z_dilepton"] == sizes["z_wlike"]
    assert [CARDS[channel].inflation for channel in ("w_mass", "z_wlike", "z_dilepton")] == [1.25, 1.0, 1.0]


def test_a_background_that_is_not_there_is_no_error_and_the_luminosity_is_always() -> None:
    for card in CARDS.values():
        assert [norm.name for norm in card.norms if not norm.optional] == ["luminosity"]
        assert [norm.name for norm in card.norms if norm.subtracted] == ["luminosity"]


def test_nonprompt_muons_are_estimated_where_there_is_data_and_nobody_simulated_them() -> None:
    assert default_card("w_mass").nonprompt is not None
    assert default_card("w_mass", groups=["Wmunu", "Top"]).nonprompt is not None
    assert default_card("w_mass", groups=["Wmunu", "Nonprompt"]).nonprompt is None
    assert default_card("w_mass", data=False).nonprompt is None
    assert default_card("z_wlike", groups=["Zmumu"]).nonprompt is None


def test_a_processor_without_a_card_starts_from_an_empty_one() -> None:
    assert default_card("somebody.elses") == Card()


def test_there_is_a_card_for_each_processor_of_ours() -> None:
    assert CARDS.keys() == registry.TABLE.keys()


@pytest.mark.parametrize("channel", sorted(CARDS))
def test_a_card_survives_its_json(channel: str) -> None:
    assert Card.read(CARDS[channel].model_dump(mode="json")) == CARDS[channel]
