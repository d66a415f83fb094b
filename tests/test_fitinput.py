"""From a card and snapshots to parameters and their effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hist
import numpy as np
import pytest
from fit_source import FACTS, InMemory
from toy_w import toy_tensor

from binworks.tensors.accumulator import Accumulator
from binworks.tensors.axes import w_axes
from binworks.tensors.card import Card, Nonprompt
from binworks.tensors.errors import BinworksError, ConflictError, RequestError
from binworks.tensors.fitbuild import fit_input, from_tensor
from binworks.tensors.fitinput import LOWEST, FitChannel, FitInput
from binworks.tensors.groups import efficiency, mass
from binworks.tensors.groups.base import VariationGroup, linear_group, symmetrised_group
from binworks.tensors.histogram import Float64, Histogram
from binworks.tensors.nonprompt import Estimate
from binworks.tensors.select import crop
from binworks.tensors.tensor import SIGNAL_REGION, Contribution, assemble

RNG = np.random.default_rng(11)
GROUPS: tuple[VariationGroup, ...] = (
    mass.group(),
    efficiency.group("idip", np.broadcast_to(1e-4 * np.eye(3), (48, 2, 3, 3))),
    linear_group("scale", ["s0", "s1"], 1e-3 * RNG.normal(size=(2, 48, 2)), ("dA", "dM"), "own"),
    symmetrised_group("theory", ["aUp", "aDown", "b"], averaged=["a"]),
)
LUMINOSITY = FACTS["luminosity"]


def job(sums_of: Mapping[str, Accumulator], **facts: Any) -> InMemory:
    """Return a job with all groups of the test."""
    return InMemory(sums_of, [group.expansion for group in GROUPS], {**FACTS, **facts})


def sums(seed: int, groups: Sequence[VariationGroup] = GROUPS) -> Accumulator:
    rng = np.random.default_rng(seed)
    nominal = Histogram.zeros(w_axes(), variances=True)
    nominal.values[...] = rng.gamma(5.0, 100.0, nominal.values.shape)
    assert nominal.variances is not None
    nominal.variances[...] = nominal.values * rng.uniform(0.5, 2.0, nominal.values.shape)
    histograms = {"nominal": nominal}
    for group in groups:
        block = group.block(w_axes())
        full = rng.uniform(0.98, 1.02, block.values.shape)
        if group.expansion.base.all():
            full = rng.normal(0, 0.5, block.values.shape)
        block.values[...] = full * nominal.values[..., np.newaxis]
        histograms[group.name] = block
    return Accumulator(histograms, {"sum_sign": 6000})


@pytest.fixture(scope="module")
def source() -> InMemory:
    return job({"W1": sums(1), "W2": sums(2, GROUPS[:2]), "Z": sums(3), "data": sums(4, ())})


def made(source: InMemory, **card: Any) -> FitInput:
    return fit_input(Card.read(card), {None: source})


def templates(fit: FitInput, channel: FitChannel, process: int, sign: int) -> dict[str, Float64]:
    """Return the templates at +1 or -1 of each parameter that changes a process."""
    found: dict[str, Float64] = {}
    nominal = channel.nominal[process]
    for effect in channel.effects(process):
        for row, place in enumerate(effect.parameters):
            logs = (
                effect.up[row] if sign > 0 else -effect.up[row] if effect.down is None else effect.down[row]
            )
            template = nominal.copy()
            where = slice(None) if effect.cells is None else effect.cells
            template[where] = nominal[where] * np.exp(logs)
            name = fit.parameters[place].name
            assert name not in found
            found[name] = template
    return found


def test_every_template_of_every_process_is_that_of_the_tensor(source: InMemory) -> None:
    fit = made(source)
    (channel,) = fit.channels
    parts = [
        Contribution(
            name.rstrip("12"),
            LUMINOSITY * 50 / 6000 if name != "data" else 1,
            accumulator,
            is_data=name == "data",
        )
        for name, accumulator in source.held.items()
    ]
    tensor = assemble(parts, source.expansions())
    assert channel.processes == tensor.processes == ("W", "Z")
    np.testing.assert_allclose(channel.nominal, tensor.nominal.reshape(2, -1), rtol=1e-13)
    np.testing.assert_allclose(channel.variances, tensor.variances.reshape(2, -1), rtol=1e-13)
    assert tensor.data is not None
    np.testing.assert_array_equal(channel.data, tensor.data.ravel())
    for number in range(2):
        up, down = (templates(fit, channel, number, sign) for sign in (1, -1))
        assert set(up) == {nuisance.name for nuisance in tensor.nuisances}
        for group, expansion in tensor.expansions.items():
            whole = dict(zip(expansion.variations, tensor.variations(group)[:, number], strict=True))
            for nuisance in expansion.nuisances:
                expected = whole[nuisance.up].ravel()
                np.testing.assert_allclose(up[nuisance.name], expected, rtol=1e-12)
                mirror = channel.nominal[number] ** 2 / expected
                low = mirror if nuisance.down is None else whole[nuisance.down].ravel()
                np.testing.assert_allclose(down[nuisance.name], low, rtol=1e-12)


def test_an_efficiency_changes_the_cells_of_its_own_eta_and_charge_only(source: InMemory) -> None:
    fit = made(source, systematics=["efficiency_idip"])
    found = list(fit.channels[0].effects(0))
    assert len(found) == 96
    assert {effect.up.shape for effect in found} == {(3, 30)}
    assert sorted(np.concatenate([effect.cells for effect in found]).tolist()) == list(range(2880))


def test_free_parameters_come_first_and_the_free_mass_is_of_interest(source: InMemory) -> None:
    fit = made(source, floating=["Z"], rules=[{"match": "s1", "constrained": False}])
    assert [(p.name, p.interest) for p in fit.parameters if not p.constrained] == [
        ("massW", True),
        ("s1", False),
        ("norm_Z", False),
    ]
    assert not any(p.constrained for p in fit.parameters[:3])
    assert fit.groups["efficiency_idip"][0] == "effStat_idip_eta0_minus_0"


@pytest.mark.parametrize(
    ("how", "parts"), [("average", 1), ("conservative", 1), ("linear", 2), ("quadratic", 2), ("keep", 1)]
)
def test_up_and_down_become_what_the_rule_says(source: InMemory, how: str, parts: int) -> None:
    fit = made(source, systematics=["theory"], rules=[{"match": "a", "symmetrise": how}])
    kept = made(source, systematics=["theory"])
    (pair,) = [e for e in kept.channels[0].effects(0) if e.down is not None]
    up, down = pair.up[0], pair.down[0] if pair.down is not None else None
    assert down is not None
    mine = [e.up[row] for e in fit.channels[0].effects(0) for row, p in enumerate(e.parameters)
            if fit.parameters[p].name.startswith("a")]  # fmt: skip
    assert len(mine) == parts
    expected = {
        "keep": [up],
        "average": [(up - down) / 2],
        "conservative": [np.where(np.abs(up) > np.abs(down), up, -down)],
        "linear": [(up - down) / 2, (up + down) / 2],
        "quadratic": [(up - down) / 2, np.sqrt(3) * (up + down) / 2],
    }[how]
    for one, other in zip(mine, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
    assert fit.symmetric == (how != "keep")
    names = [p.name for p in fit.parameters]
    assert ("aSymAvg" in names, "aSymDiff" in names) == (parts == 2, parts == 2)


def test_rules_scale_drop_and_group_by_pattern(source: InMemory) -> None:
    plain = made(source, systematics=["scale"])
    rules = [{"match": "scale", "scale": 2.0, "groups": ["calibration"]}, {"match": "s1", "drop": True}]
    ruled = made(source, systematics=["scale"], rules=rules)
    assert [(p.name, p.groups) for p in ruled.parameters] == [("s0", ("scale", "calibration"))]
    back = made(source, rules=[{"match": "scale", "drop": True}, {"match": "*", "symmetrise": "average"}])
    assert "scale" not in back.groups
    again = made(source, rules=[{"match": "scale", "drop": True}, {"match": "s1", "drop": False}])
    assert again.groups["scale"] == ("s1",)
    (one,), (two,) = (list(fit.channels[0].effects(0)) for fit in (plain, ruled))
    np.testing.assert_allclose(two.up[0], 2 * one.up[0], rtol=1e-14)


def test_a_norm_changes_all_bins_of_its_processes_alike(source: InMemory) -> None:
    norms = [
        {"name": "lumi", "processes": ["*"], "size": 1.012},
        {"name": "top", "processes": ["Top"], "size": 1.06, "optional": True},
        {"name": "Zxsec", "processes": ["Z*"], "size": 1.02, "groups": ["xsec"]},
    ]
    fit = made(source, systematics=[], norms=norms)
    assert [(p.name, p.groups) for p in fit.parameters] == [("lumi", ("lumi",)), ("Zxsec", ("xsec",))]
    w, z = ([(e.parameters.tolist(), e.up.tolist()) for e in fit.channels[0].effects(p)] for p in (0, 1))
    assert w == [([0], [[np.log(1.012)]])]
    assert z == [([0], [[np.log(1.012)]]), ([1], [[np.log(1.02)]])]


def test_channels_may_be_any_part_of_the_bins_and_leave_some_out(source: InMemory) -> None:
    channels = [
        {"name": "plus", "select": {"charge": 1, "mt": 2, "relIso": 0}, "mask": [0, 5]},
        {"name": "side", "select": {"eta": [10, 30], "pt": [4, 30], "mt": 1, "relIso": 0}},
    ]
    fit = made(source, channels=channels)
    whole = made(source)
    plus, side = fit.channels
    assert [axis.name for axis in plus.axes] == ["eta", "pt"]
    assert [axis.extent for axis in side.axes] == [20, 26, 2]
    assert np.flatnonzero(~plus.used).tolist() == [0, 5]
    grid = np.arange(2880).reshape(48, 30, 2)[..., 1].ravel()
    expected, found = templates(whole, whole.channels[0], 0, 1), templates(fit, plus, 0, 1)
    assert set(found) == set(expected)
    for name, template in found.items():
        np.testing.assert_allclose(template, expected[name][grid], rtol=1e-13)
    shifted = templates(fit, side, 0, 1)["effStat_idip_eta12_plus_1"].reshape(20, 26, 2)
    changed = shifted / side.nominal[0].reshape(20, 26, 2) != 1
    assert changed[2, :, 1].all()
    assert changed.sum() == 26


def test_pseudo_data_are_the_sum_of_the_varied_processes(source: InMemory) -> None:
    name = mass.variation_name(50)
    fit = made(source, data=name)
    plain = made(source, data="prediction")
    np.testing.assert_allclose(plain.channels[0].data, plain.channels[0].nominal.sum(axis=0), rtol=1e-15)
    parts = [source.held[d] for d in ("W1", "W2", "Z")]
    column = mass.SHIFTS_MEV.index(50)
    expected = sum(crop(p.histograms["mass"], SIGNAL_REGION).values[..., column] for p in parts)
    np.testing.assert_allclose(fit.channels[0].data, expected.ravel() * LUMINOSITY * 50 / 6000, rtol=1e-12)


def test_processes_can_be_put_together_anew(source: InMemory) -> None:
    fit = made(source, processes={"signal": ["W1"], "rest": ["W2", "Z"]})
    assert fit.channels[0].processes == ("rest", "signal")
    alone = made(source, processes={"signal": ["W1"]})
    assert alone.processes == ("signal",)
    np.testing.assert_array_equal(alone.channels[0].nominal[0], fit.channels[0].nominal[1])


def test_channels_of_other_jobs_share_the_nuisances_of_the_same_name(source: InMemory) -> None:
    other = job({"Z": sums(8), "data": sums(9, ())})
    channels = [{"name": "w"}, {"name": "z", "job": "j2"}]
    fit = fit_input(Card.read({"channels": channels}), {None: source, "j2": other})
    assert len(fit.parameters) == len(made(source).parameters)
    assert fit.processes == ("W", "Z")
    assert fit.channels[1].processes == ("Z",)


def test_a_template_that_is_not_positive_is_a_thousandth_and_an_empty_cell_does_not_change(
    source: InMemory,
) -> None:
    broken = source.held["Z"].copy()
    broken.histograms["theory"].values[3, 4, 1, 2, 0, :] = -1.0
    broken.histograms["nominal"].values[0, 0, 0, 2, 0] = 0.0
    fit = made(job({**source.held, "Z": broken}), systematics=["theory"])
    cell = (3 * 30 + 4) * 2 + 1
    ups = np.concatenate([effect.up for effect in fit.channels[0].effects(1)])
    assert (ups[:, cell] == LOWEST).all()
    assert (ups[:, 0] == 0).all()


@pytest.fixture(scope="module")
def with_nonprompt(source: InMemory) -> InMemory:
    """Return a source whose data hold prompt muons and others, as expected."""
    scale = LUMINOSITY * 50 / 6000
    prompt = sum(scale * source.held[name].histograms["nominal"].values for name in ("W1", "W2", "Z"))
    others = np.ones((48, 30, 2, 3, 2)) * 400 * np.exp(-np.arange(30) / 15)[:, None, None, None]
    others[..., 0, :] *= 3
    others[..., 1] *= 5
    data = Accumulator({"nominal": Histogram(w_axes(), prompt + others, prompt + others)}, {"sum_sign": 0})
    simulated = sums(5, ())
    return job({**source.held, "data": data, "Nonprompt": simulated})


def test_the_nonprompt_estimate_follows_every_change_of_what_is_subtracted(with_nonprompt: InMemory) -> None:
    norms = [
        {"name": "lumi", "processes": ["*"], "size": 1.012},
        {"name": "Zxsec", "processes": ["Z"], "size": 1.02, "subtracted": False},
    ]
    fit = made(with_nonprompt, nonprompt={"closure": 1.0}, norms=norms, floating=["W"])
    (channel,) = fit.channels
    assert channel.processes == ("W", "Z", "Nonprompt")
    whole = assemble(
        [
            Contribution(
                name.rstrip("12"),
                LUMINOSITY * 50 / 6000 if name != "data" else 1,
                accumulator,
                is_data=name == "data",
            )
            for name, accumulator in with_nonprompt.held.items()
            if name != "Nonprompt"
        ],
        with_nonprompt.expansions(),
        region={},
    )
    data = with_nonprompt.held["data"].histograms["nominal"]
    prompt = Histogram(whole.axes, whole.nominal.sum(axis=0), whole.variances.sum(axis=0))
    estimate = Estimate.make(data, prompt, Nonprompt(closure=1.0))
    np.testing.assert_array_equal(channel.nominal[2], estimate.nominal.ravel())
    found = templates(fit, channel, 2, 1)
    for group, expansion in whole.expansions.items():
        for nuisance in expansion.nuisances:
            total = whole.variations(group, [nuisance.up]).sum(axis=1)
            expected = estimate.vary(total).ravel()
            np.testing.assert_allclose(found[nuisance.name], expected, rtol=1e-10)
    for name, size, row in (("lumi", 1.012, (0, 1)), ("norm_W", 1.01, (0,))):
        step = np.log(size) * whole.nominal[list(row)].sum(axis=0, keepdims=True)
        np.testing.assert_allclose(
            np.log(found[name] / channel.nominal[2]), estimate.respond(step).ravel(), rtol=1e-10
        )
    assert "Zxsec" not in found
    assert len([name for name in found if name.startswith("nonprompt")]) == 387
    assert not any(name.startswith("nonprompt") for name in templates(fit, channel, 0, 1))


def test_nonprompt_is_refused_where_its_regions_are_not(with_nonprompt: InMemory) -> None:
    for channels in ([{"select": {"mt": 1, "relIso": 0}}], [{"select": {}}]):
        with pytest.raises(RequestError, match="signal region") as caught:
            made(with_nonprompt, nonprompt={}, channels=channels)
        assert caught.value.code == "bad-card"


@pytest.mark.parametrize(
    ("card", "code", "where"),
    [
        ({"channel": []}, "bad-card", "card.channel"),
        ({"channels": [{"select": {"eta": [3, 3]}}]}, "bad-card", "card.channels.0"),
        ({"channels": [{"select": {"etta": 1}}]}, "unknown-axis", None),
        ({"channels": [{"select": {"mt": 3}}]}, "unknown-bin", None),
        ({"channels": [{"mask": [2880]}]}, "unknown-bin", None),
        ({"channels": [{"datasets": ["W3"]}]}, "unknown-data-set", None),
        ({"channels": [{"histogram": "phi"}]}, "unknown-histogram", None),
        ({"processes": {"W": ["W3"]}}, "unknown-data-set", None),
        ({"processes": {"A": ["W1"], "B": ["W1"]}}, "bad-card", "card.processes.B"),
        ({"processes": {"A": ["W1", "data"]}}, "bad-card", "card.processes.A"),
        ({"systematics": ["pdf"]}, "unknown-systematic", None),
        ({"norms": [{"name": "top", "processes": ["Top"], "size": 1.06}]}, "unknown-process", None),
        ({"norms": [{"name": "s0", "processes": ["W"], "size": 1.06}]}, "bad-card", "card"),
        ({"norms": [{"name": "x", "processes": ["W"], "size": -1}]}, "bad-card", "card.norms.0.size"),
        ({"floating": ["Top"]}, "unknown-process", None),
        ({"rules": [{"match": "pdf*", "scale": 2}]}, "unused-rule", "card.rules.0.match"),
        ({"data": "massShiftW5MeVUp"}, "unknown-variation", None),
        ({"channels": [{"datasets": ["W1"]}]}, "no-data", None),
        ({"channels": [{"datasets": ["data"]}]}, "no-simulation", None),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    source: InMemory, card: dict[str, Any], code: str, where: str | None
) -> None:
    with pytest.raises(BinworksError) as caught:
        made(source, **card)
    assert caught.value.code == code
    assert where is None or caught.value.where == where


def test_a_snapshot_that_lacks_events_is_refused_unless_the_card_allows_it(source: InMemory) -> None:
    partial = job(source.held, complete=False, fraction=0.4)
    with pytest.raises(ConflictError, match=r"40.0 %") as caught:
        made(partial)
    assert caught.value.code == "incomplete"
    fit = made(partial, allow_partial=True)
    assert fit.metadata["fraction"] == 0.4
    assert fit.metadata["complete"] is False


def test_a_cell_below_zero_is_taken_as_zero_and_counted(source: InMemory) -> None:
    signed = source.held["Z"].copy()
    signed.histograms["nominal"].values[0, 0, 0, 2, 0] = -5.0
    fit = made(job({**source.held, "Z": signed}))
    assert fit.channels[0].nominal[1, 0] == 0.0
    assert fit.metadata["clipped_cells"] == 1
    assert all(effect.up[:, 0].max() == 0 for effect in fit.channels[0].effects(1) if effect.cells is None)


def test_data_where_nothing_is_expected_are_refused_unless_masked(source: InMemory) -> None:
    empty = {name: accumulator.copy() for name, accumulator in source.held.items()}
    for name in ("W1", "W2", "Z"):
        for histogram in empty[name].histograms.values():
            histogram.values[0, 0, 0] = 0.0
    with pytest.raises(RequestError, match="where none are expected: bin 0 of channel 'signal'"):
        made(job(empty))
    assert not made(job(empty), channels=[{"mask": [0]}]).channels[0].used[0]


def test_a_tensor_alone_makes_one_channel_with_all_its_nuisances() -> None:
    tensor = toy_tensor(1e6)
    fit = from_tensor(tensor)
    assert fit.channels[0].processes == tensor.processes
    assert [p.name for p in fit.parameters] == [n.name for n in tensor.nuisances]


def test_notebooks_show_what_there_is_and_what_is_missing(source: InMemory) -> None:
    fit, tensor = made(source), toy_tensor(1e6)
    tensor.metadata |= {"complete": False, "fraction": 0.931}
    html = fit._repr_html_()
    assert "signal: 2,880 bins; 2 processes; 293 parameters" in html
    assert "<tr><td>efficiency_idip</td><td>288</td></tr>" in html
    assert "INCOMPLETE: 93.1 % of the events" in tensor._repr_html_()
    assert "<td>W</td><td>1,000,000.0</td>" in tensor._repr_html_()


def test_a_range_of_bins_keeps_its_edges() -> None:
    axes = (
        hist.axis.Regular(4, 0, 4, name="x"),
        hist.axis.StrCategory(["a", "b", "c"], name="c", flow=False),
    )
    histogram = Histogram.zeros(axes)
    histogram.values[...] = np.arange(18).reshape(6, 3)
    found = crop(histogram, {"x": (4, 6), "c": (1, 3)})
    assert found.axes[0].edges.tolist() == [3.0, 4.0, np.inf]
    assert list(found.axes[1]) == ["b", "c"]
    assert found.values.tolist() == [[13, 14], [16, 17]]
    assert found.to_hist().shape == (2, 2)
