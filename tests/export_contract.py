"""What every export format promises; its test inherits these tests and says how its file is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest

from binworks.tensors.errors import RequestError
from binworks.tensors.export import FORMATS, export
from binworks.tensors.fitinput import Effect, FitChannel, FitInput, Parameter
from binworks.tensors.histogram import Float64

PARAMETERS = (
    Parameter("massW", ("mass",), constrained=False, interest=True),
    Parameter("norm_Z", ("floating",), constrained=False),
    Parameter("lumi", ("lumi",)),
    Parameter("scale1", ("momentum_scale", "muon")),
    Parameter("scale2", ("momentum_scale", "muon")),
    Parameter("eff1", ("efficiency", "muon")),
    Parameter("eff2", ("efficiency", "muon")),
    Parameter("mixed", ("theory",)),
)
FACTS = {
    "job": "7hq2mkc3xv",
    "generation": 3,
    "complete": True,
    "fraction": 1.0,
    "luminosity": 100.0,
    "inflation": 1.25,
    "card": None,
}


def axes(etas: int = 4, pts: int = 5) -> tuple[Any, ...]:
    return (
        hist.axis.Regular(etas, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Regular(pts, 26, 56, name="pt", flow=False),
    )


def channel(name: str = "signal", *, etas: int = 4, pts: int = 5, seed: int = 1) -> FitChannel:
    """Return a channel of W and Z: a mass, sizes, shapes with mirrored and other down templates, local shapes."""
    rng = np.random.default_rng(seed)
    bins = etas * pts
    nominal = np.stack([rng.uniform(500, 1500, bins), rng.uniform(50, 150, bins)])
    pt = np.tile(np.linspace(-1, 1, pts), etas)
    local = np.arange(pts, 2 * pts)
    common = [
        Effect(np.array([2]), None, np.array([[np.log(1.012)]])),
        Effect(
            np.array([3, 4]), None, np.stack([0.01 * pt, 0.02 * pt**2]), np.stack([-0.012 * pt, 0.01 * pt])
        ),
    ]
    effects = [
        [
            Effect(np.array([0]), None, 0.05 * pt[None], -0.049 * pt[None]),
            *common,
            Effect(np.array([5, 6]), local, rng.normal(0, 0.01, (2, pts))),
            Effect(np.array([7]), None, np.array([[0.03]]), np.array([[-0.02]])),
        ],
        [
            Effect(np.array([1]), None, np.array([[0.01]])),
            *common,
            Effect(np.array([7]), None, 0.02 * pt[None] ** 3),
        ],
    ]

    def given(process: int) -> Iterator[Effect]:
        yield from effects[process]

    return FitChannel(
        name=name,
        axes=axes(etas, pts),
        processes=("W", "Z"),
        nominal=nominal,
        variances=0.1 * nominal,
        data=rng.poisson(nominal.sum(axis=0)).astype(float),
        used=np.ones(bins, bool),
        effects=given,
    )


def masked(what: FitChannel, *bins: int) -> FitChannel:
    used = what.used.copy()
    used[list(bins)] = False
    return replace(what, used=used)


def fit_of(*channels: FitChannel, **facts: Any) -> FitInput:
    return FitInput(channels or (channel(),), PARAMETERS, symmetric=False, metadata={**FACTS, **facts})


def templates(what: FitChannel, process: int) -> dict[str, tuple[Float64, Float64]]:
    """Return up and down templates in all bins, by the definition of an effect."""
    found = {}
    for effect in what.effects(process):
        for row, position in enumerate(effect.parameters):
            pair = []
            for logarithm in (effect.up[row], -effect.up[row] if effect.down is None else effect.down[row]):
                spread = np.zeros(len(what.data))
                spread[slice(None) if effect.cells is None else effect.cells] = logarithm
                pair.append(what.nominal[process] * np.exp(spread))
            found[PARAMETERS[position].name] = (pair[0], pair[1])
    return found


@dataclass
class Read:
    """What a reader of the format finds in a file, by channel and process.

    A systematic that the format writes as a size may be left out of ``templates``.
    """

    data: dict[str, Float64] = field(default_factory=dict)
    nominal: dict[tuple[str, str], Float64] = field(default_factory=dict)
    errors: dict[tuple[str, str], Float64] = field(default_factory=dict)
    templates: dict[tuple[str, str, str], tuple[Float64, Float64]] = field(default_factory=dict)
    incomplete: str = ""


class ExportContract:
    """Inherit from it, name the format, and read its file."""

    format: str
    shapes: tuple[str, ...] = ("scale1", "scale2", "eff1", "eff2")
    """Systematics of the W whose templates the reader finds."""
    inflated = True
    """Whether the statistical errors in the file are inflated."""

    def read(self, path: Path) -> Read:
        raise NotImplementedError

    def written(self, fit: FitInput, folder: Path) -> Path:
        return export(fit, folder / f"fit{self.module.SUFFIX}", self.format)

    @property
    def module(self) -> Any:
        return import_module(FORMATS[self.format])

    def check(self, fit: FitInput, found: Read) -> None:
        inflation = FACTS["inflation"] if self.inflated else 1.0
        for expected in fit.channels:
            used = expected.used
            np.testing.assert_array_equal(found.data[expected.name], expected.data[used])
            for number, process in enumerate(expected.processes):
                key = (expected.name, process)
                np.testing.assert_allclose(found.nominal[key], expected.nominal[number][used], rtol=1e-12)
                errors = inflation * np.sqrt(expected.variances[number][used])
                np.testing.assert_allclose(found.errors[key], errors, rtol=1e-12)
            for name in self.shapes:
                for got, template in zip(
                    found.templates[expected.name, "W", name], templates(expected, 0)[name], strict=True
                ):
                    np.testing.assert_allclose(got, template[used], rtol=1e-12)

    def test_suffix_and_media_type_say_what_the_file_is(self) -> None:
        assert self.module.SUFFIX.startswith(".")
        assert self.module.MEDIA_TYPE.startswith("application/")

    def test_a_reader_gets_back_the_numbers(self, tmp_path: Path) -> None:
        fit = fit_of()
        self.check(fit, self.read(self.written(fit, tmp_path)))

    def test_channels_stand_side_by_side(self, tmp_path: Path) -> None:
        fit = fit_of(channel(), channel("wlike", etas=2, pts=7, seed=2))
        found = self.read(self.written(fit, tmp_path))
        assert set(found.data) == {"signal", "wlike"}
        self.check(fit, found)

    def test_masked_bins_are_gone(self, tmp_path: Path) -> None:
        fit = fit_of(masked(channel(), 0, 7, 19))
        found = self.read(self.written(fit, tmp_path))
        assert found.data["signal"].shape == (17,)
        self.check(fit, found)

    def test_the_same_input_gives_the_same_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        one = self.written(fit_of(), tmp_path).read_bytes()
        time.sleep(1.1)  # no format may tell the second in which it was written
        assert one == self.written(fit_of(), tmp_path / "b").read_bytes()

    @pytest.mark.parametrize(
        ("facts", "mark"),
        [({}, ""), ({"complete": False, "fraction": 0.931}, "INCOMPLETE: 93.1 % of the events")],
    )
    def test_the_file_says_how_complete_it_is(self, tmp_path: Path, facts: dict[str, Any], mark: str) -> None:
        assert self.read(self.written(fit_of(**facts), tmp_path)).incomplete == mark

    def test_a_file_that_is_there_is_replaced_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        path = tmp_path / f"fit{self.module.SUFFIX}"
        path.write_bytes(b"x" * 1_000_000)
        assert self.read(self.written(fit_of(), tmp_path)).data
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_appears_whole_or_not_at_all(self, tmp_path: Path) -> None:
        def breaks(_process: int) -> Iterator[Effect]:
            yield from channel().effects(1)
            raise RequestError("The snapshot is gone.", code="unknown-generation")

        with pytest.raises(RequestError, match="is gone"):
            self.written(fit_of(replace(channel(), effects=breaks)), tmp_path)
        assert list(tmp_path.iterdir()) == []
