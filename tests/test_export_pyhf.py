from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_contract import ExportContract, Read, channel, fit_of, masked, templates

from binworks.tensors.errors import RequestError
from binworks.tensors.export import export
from binworks.tensors.fit import fit_linear
from binworks.tensors.fitinput import Effect, FitInput, Parameter

MEV = 10.0  # a template of the mass
pyhf = pytest.importorskip("pyhf")
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")  # pyhf's own


class TestPyhf(ExportContract):
    format = "pyhf"

    def workspace(self, fit: FitInput, folder: Path) -> Any:
        found = json.loads(self.written(fit, folder).read_text())
        pyhf.schema.validate(found, "workspace.json", version="1.0.0")
        return pyhf.Workspace(found)

    def read(self, path: Path) -> Read:
        found = Read()
        workspace = pyhf.Workspace(json.loads(path.read_text()))
        title = workspace.measurement_names[0]
        assert title.startswith("binworks job 7hq2mkc3xv generation 3")
        found.incomplete = title.partition(", ")[2]
        found.data = {name: np.array(data) for name, data in workspace.observations.items()}
        for described in workspace["channels"]:
            for sample in described["samples"]:
                where = (described["name"], sample["name"])
                found.nominal[where] = np.array(sample["data"])
                for modifier in sample["modifiers"]:
                    if modifier["type"] == "staterror":
                        found.errors[where] = np.array(modifier["data"])
                    if modifier["type"] == "histosys":
                        pair = (np.array(modifier["data"][way]) for way in ("hi_data", "lo_data"))
                        found.templates[(*where, modifier["name"])] = tuple(pair)
        return found

    def prediction(self, fit: FitInput, folder: Path, **values: float) -> Any:
        """Return what pyhf expects with some parameters moved, shape bins."""
        workspace = self.workspace(fit, folder)
        model = workspace.model()
        parameters = np.array(model.config.suggested_init())
        for name, value in values.items():
            parameters[model.config.par_slice(name)] = value
        return model.expected_data(parameters, include_auxdata=False)

    def test_pyhf_expects_what_the_templates_say(self, tmp_path: Path) -> None:
        fit = fit_of()
        w, z = templates(fit.channels[0], 0), templates(fit.channels[0], 1)
        nominal = fit.channels[0].nominal
        for moved, expected in {
            ("lumi", 1.0): w["lumi"][0] + z["lumi"][0],
            ("scale1", 1.0): w["scale1"][0] + z["scale1"][0],
            ("scale1", -1.0): w["scale1"][1] + z["scale1"][1],
            ("eff2", -1.0): w["eff2"][1] + nominal[1],
            ("mixed", 1.0): w["mixed"][0] + z["mixed"][0],
            ("norm_Z", 1.1): nominal[0] + 1.1 * nominal[1],
            ("massW", 0.0): nominal.sum(axis=0),
            ("massW", -2.0): nominal.sum(axis=0) - (w["massW"][0] - w["massW"][1]),
        }.items():
            found = self.prediction(fit, tmp_path, **dict([moved]))
            np.testing.assert_allclose(found, expected, rtol=1e-12)

    def test_a_free_shape_has_no_constraint_and_follows_the_sizes_of_its_process(
        self, tmp_path: Path
    ) -> None:
        fit = fit_of()
        config = self.workspace(fit, tmp_path).model().config
        assert config.poi_name == "massW"
        assert config.param_set("massW").constrained is False
        assert config.suggested_bounds()[config.poi_index] == [-10, 10]
        up, down = templates(fit.channels[0], 0)["massW"]
        found = self.prediction(fit, tmp_path, massW=1.0, lumi=1.0)
        expected = 1.012 * (fit.channels[0].nominal.sum(axis=0) + (up - down) / 2)
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    def test_a_free_parameter_of_several_sizes_is_a_sample_too(self, tmp_path: Path) -> None:
        several = replace(
            channel(), effects=lambda p: iter([Effect(np.array([1]), None, np.array([[0.01 * (1 + p)]]))])
        )
        names = {s["name"] for s in self.workspace(fit_of(several), tmp_path)["channels"][0]["samples"]}
        assert names == {"W", "Z", "W_norm_Z", "Z_norm_Z"}

    def test_it_finds_the_mass_of_our_fit(self, tmp_path: Path) -> None:
        fit = fit_of(channel(pts=6), masked(channel("wlike", etas=2, pts=8, seed=3), 0))
        model = (workspace := self.workspace(fit, tmp_path)).model()
        found = pyhf.infer.mle.fit(workspace.data(model), model)[model.config.poi_index]
        ours = fit_linear(fit)
        assert ours.uncertainty > 0
        assert abs(MEV * found - ours.mass_shift) < 0.05 * ours.uncertainty

    def test_what_pyhf_cannot_bear_is_refused_with_what_to_take_instead(self, tmp_path: Path) -> None:
        parameters = (*fit_of().parameters, *(Parameter(f"more{n}", ("more",)) for n in range(3)))
        large = replace(fit_of(channel(etas=12, pts=20)), parameters=parameters)
        with pytest.raises(RequestError, match=r"240 \+ 11 here.*at most 250.*rabbit-sparse") as caught:
            export(large, tmp_path / "x.json", "pyhf")
        assert caught.value.code == "too-large-for-pyhf"
        assert list(tmp_path.iterdir()) == []

    def test_a_fit_without_a_free_parameter_is_refused(self, tmp_path: Path) -> None:
        fixed = tuple(replace(parameter, constrained=True) for parameter in fit_of().parameters)
        with pytest.raises(RequestError, match="nothing is free") as caught:
            export(replace(fit_of(), parameters=fixed), tmp_path / "x.json", "pyhf")
        assert caught.value.code == "no-parameter-of-interest"

    def test_data_where_nothing_is_expected_are_refused_with_the_bins(self, tmp_path: Path) -> None:
        hole = channel()
        hole.nominal[:, [2, 5]] = 0
        with pytest.raises(RequestError, match=r"bin 2 of channel 'signal' \(2 such") as caught:
            export(fit_of(hole), tmp_path / "x.json", "pyhf")
        assert caught.value.code == "empty-bin"
        assert self.workspace(fit_of(masked(hole, 2, 5)), tmp_path).model()
