"""The cards that fits start from, and the nuisances that come of them, counted as in the published measurement."""

from __future__ import annotations

from typing import Any

import brute_force_cases
import numpy as np
import pytest

from binworks.processors import registry
from binworks.processors.cards import CARDS, default_card
from binworks.tensors.axes import w_axes
from binworks.tensors.card import Card
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


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return brute_force_cases.correction_set(tmp_path_factory.mktemp("corrections"))


def estimate(card: Card) -> Estimate:
    fake = np.full((48, 30, 2, 3, 2), 50.0)
    data, prompt = Histogram(w_axes(), 2 * fake, 2 * fake), Histogram(w_axes(), fake, fake / 10)
    assert card.nonprompt is not None
    return Estimate.make(data, prompt, card.nonprompt)


def nuisances(channel: str, corrections: Any) -> dict[str, list[str]]:
    """Return the names of all nuisances of a channel's default card, by group."""
    found: dict[str, list[str]] = {}
    for expansion in registry.create(channel, {}, corrections).expansions():
        found.setdefault(expansion.group, []).extend(n.name for n in expansion.nuisances)
    card = default_card(channel)
    for norm in card.norms:
        found.setdefault(norm.groups[0], []).append(norm.name)
    if card.nonprompt is not None:
        found["nonprompt"] = [name for shift in estimate(card).shifts() for name in shift.names]
    return found


@pytest.mark.parametrize(("channel", "column"), [("z_wlike", 1), ("w_mass", 2)])
def test_the_nuisances_of_each_group_are_as_many_as_published(
    channel: str, column: int, corrections: Any
) -> None:
    found = nuisances(channel, corrections)
    counts = {
        what: sum(len(found.pop(group, [])) for group in str(row[0]).split())
        for what, row in PUBLISHED.items()
    }
    assert counts == {what: row[column] for what, row in PUBLISHED.items()}
    assert found == {}
    assert sum(counts.values()) == TOTAL[channel]


@pytest.mark.parametrize("channel", ["z_wlike", "w_mass"])
def test_no_name_comes_twice(channel: str, corrections: Any) -> None:
    names = [name for group in nuisances(channel, corrections).values() for name in group]
    assert len(names) == len(set(names))


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
