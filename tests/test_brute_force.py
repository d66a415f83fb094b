"""Every channel against an independent, slow computation: nominal and every template to 1e-12 of its largest bin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import brute_force_cases
import numpy as np
import pytest
import reference_variations
from reference_physics import Reference

from binworks.corrections.sets import CorrectionSet
from binworks.processors import registry
from binworks.processors.dataset import Dataset
from binworks.processors.run import run_files
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.expansion import Expansion

TOLERANCE = 1e-12
REPLICAS = 9
EVENTS = {"w_mass": 2000, "z_wlike": 3000, "z_dilepton": 2500}
CHANNELS = (("w_mass", "nominal"), ("z_wlike", "nominal"), ("z_dilepton", "mll"), ("z_dilepton", "ptll"))
KINDS = {
    "w_mass": ("W", "Z", "top", "data"),
    "z_wlike": ("Z", "top", "data"),
    "z_dilepton": ("Z", "top", "data"),
}
CASES = [(channel, histogram, kind) for channel, histogram in CHANNELS for kind in KINDS[channel]]


@dataclass
class Case:
    """One channel's processor and reference over the same events."""

    channel: str
    histogram: str
    kind: str
    corrections: CorrectionSet
    folder: Path
    prompt: bool = True
    lacking: tuple[str, ...] = ()
    unvaried: tuple[str, ...] = ()

    @cached_property
    def nano(self) -> tuple[dict[str, Any], Path]:
        n = EVENTS[self.channel]
        return brute_force_cases.nano_file(self.folder, self.kind, n, 11, self.lacking)

    @cached_property
    def boson(self) -> str | None:
        return self.kind if self.kind in ("W", "Z") else None

    @cached_property
    def reference(self) -> Reference:
        return Reference(
            self.nano[0], self.corrections, self.channel, is_data=self.kind == "data", boson=self.boson,
            prompt=self.prompt,
        )  # fmt: skip

    @cached_property
    def processor(self) -> Any:
        options: dict[str, Any] = {"pdf_members": brute_force_cases.PDF_MEMBERS, "replicas": REPLICAS}
        if self.channel == "z_dilepton":
            options["observable"] = self.histogram
        known = registry.create(self.channel, {}, self.corrections).systematics_known
        systematics = [name for name in known if name not in self.unvaried]
        return registry.create(self.channel, options, self.corrections, systematics)

    @cached_property
    def filled(self) -> Accumulator:
        dataset = Dataset(
            name=self.kind,
            files=(str(self.nano[1]),),
            kind="data" if self.kind == "data" else "mc",
            boson=self.boson,
            prompt=self.prompt,
        )
        return run_files(self.processor, dataset)

    @cached_property
    def expansions(self) -> dict[str, Expansion]:
        """Those of the groups that vary the data set."""
        return {e.group: e for e in self.processor.expansions() if e.block in self.filled.histograms}

    def brute_force(self, ratio: Any = 1.0) -> Any:
        return self.reference.fill(ratio, self.histogram)

    def templates(self, group: str) -> dict[str, Any]:
        expansion = self.expansions[group]
        compact = self.filled.histograms[expansion.block]
        values = expansion.expand(self.filled.histograms["nominal"], compact)
        return dict(zip(expansion.variations, values, strict=True))

    def ratios(self, group: str) -> dict[str, Any]:
        if group == "bootstrap":
            return reference_variations.bootstrap(self.reference, REPLICAS)
        return reference_variations.ratios_of(self.reference, group)


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> CorrectionSet:
    return brute_force_cases.correction_set(tmp_path_factory.mktemp("corrections"))


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(
    request: pytest.FixtureRequest, corrections: CorrectionSet, tmp_path_factory: pytest.TempPathFactory
) -> Case:
    return Case(*request.param, corrections, tmp_path_factory.mktemp("nano"))


def assert_same(ours: Any, reference: Any, name: str) -> None:
    np.testing.assert_allclose(
        ours, reference, rtol=0, atol=TOLERANCE * np.abs(reference).max(), err_msg=name
    )


def assert_same_nominal(case: Case) -> None:
    h = case.brute_force()
    nominal = case.filled.histograms["nominal"]
    assert np.count_nonzero(h.values()) > 80
    assert_same(nominal.values, h.values(), "values")
    assert_same(nominal.variances, h.variances(), "variances")


def assert_same_templates(case: Case, group: str) -> None:
    ratios, templates = case.ratios(group), case.templates(group)
    assert templates.keys() == ratios.keys()
    for name, ratio in ratios.items():
        assert_same(templates[name], case.brute_force(ratio).values(), f"{group}: {name}")


def test_the_nominal_cells_are_those_of_brute_force(case: Case) -> None:
    assert_same_nominal(case)


def test_every_template_of_every_group_is_that_of_brute_force(case: Case) -> None:
    expected = {*reference_variations.groups_of(case.reference)}
    if case.kind != "data":
        expected.add("bootstrap")
    assert case.expansions.keys() == expected
    for group in sorted(expected - {"efficiency_iso"}):
        assert_same_templates(case, group)


def test_isolation_templates_lack_only_the_second_order_of_two_muons_in_one_eta_bin(case: Case) -> None:
    if case.kind == "data":
        assert not case.expansions
        return
    ratios, templates = case.ratios("efficiency_iso"), case.templates("efficiency_iso")
    lacking = reference_variations.both_in_one_bin(case.reference, "iso")
    assert bool(lacking) == (case.channel != "w_mass")
    for name, ratio in ratios.items():
        first_order = ratio - lacking.get(name, 0.0)
        assert np.abs(ratio - first_order).max() < 1e-4
        assert_same(templates[name], case.brute_force(first_order).values(), name)


def test_events_that_are_not_finite_are_left_out_and_counted(case: Case) -> None:
    odd = sum(count for name, count in case.filled.counts.items() if name.startswith("odd/"))
    assert len(case.reference.events) > 100
    assert odd == len(case.reference.odd)


def test_muons_that_are_not_prompt_need_no_match_and_have_no_momentum_variation(
    corrections: CorrectionSet, tmp_path: Path
) -> None:
    case = Case("w_mass", "nominal", "top", corrections, tmp_path, prompt=False)
    assert_same_nominal(case)
    for group in ("momentum_scale", "resolution", "efficiency_trigger"):
        assert_same_templates(case, group)
    for template in case.templates("momentum_scale").values():
        np.testing.assert_array_equal(template, case.filled.histograms["nominal"].values)


@pytest.mark.parametrize("kind", ["W", "Z"])
def test_a_file_with_few_branches_lacks_only_what_they_would_change(
    kind: str, corrections: CorrectionSet, tmp_path: Path
) -> None:
    unvaried = ("width_W", "width_Z", "sin2theta")
    case = Case("w_mass", "nominal", kind, corrections, tmp_path, True, brute_force_cases.OPTIONAL, unvaried)
    assert_same_nominal(case)
    for group in ("mass" if kind == "W" else "mass_Z", "prefire", "pixel_hits", "momentum_scale"):
        assert_same_templates(case, group)
