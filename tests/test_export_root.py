from __future__ import annotations

import json
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from export_contract import PARAMETERS, ExportContract, Read, channel, fit_of, masked

from binworks.tensors.errors import RequestError
from binworks.tensors.export import root
from binworks.tensors.fitinput import FitInput


@dataclass
class Datacard:
    """What a small reader makes of a datacard; Combine itself is not there to be asked."""

    remarks: list[str] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    columns: list[tuple[str, str]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    systematics: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    rate_parameters: list[list[str]] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Datacard:
        found, bins, rows = cls(), [], []
        for line in text.splitlines():
            words = line.split()
            if line.startswith("#"):
                found.remarks.append(line)
            elif words[0] in ("bin", "process"):
                (bins if words[0] == "bin" else rows).append(words[1:])
            elif words[0] == "rate":
                found.rates = [float(word) for word in words[1:]]
            elif found.rates and not line.startswith("---"):
                found.systematic(words)
            elif not line.startswith("---"):
                found.lines[words[0]] = words[1:]
        found.lines["bin"], columns = bins
        names, numbers = rows
        found.columns = list(zip(columns, names, strict=True))
        found.numbers = [int(number) for number in numbers]
        return found

    def systematic(self, words: list[str]) -> None:
        name, kind, *rest = words
        if kind == "group":
            assert rest.pop(0) == "="
            self.groups[name] = rest
        elif kind == "rateParam":
            self.rate_parameters.append([name, *rest])
        else:
            assert name not in self.systematics
            self.systematics[name] = (kind, rest)


def parts(path: Path) -> tuple[Datacard, Any]:
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["datacard.txt", "shapes.root"]
        card = Datacard.parse(archive.read("datacard.txt").decode())
        archive.extract("shapes.root", path.parent / "x")
    return card, uproot.open(path.parent / "x" / "shapes.root")


class TestRoot(ExportContract):
    format = "root"

    def read(self, path: Path) -> Read:
        card, file = parts(path)
        found = Read(incomplete=json.loads(str(file["binworks"]))["incomplete"])
        assert [line for line in card.remarks if "INCOMPLETE" in line] == [f"# {found.incomplete}"] * bool(
            found.incomplete
        )
        for name in card.lines["bin"]:
            found.data[name] = file[name]["data_obs"].values()
        for column, (name, process) in enumerate(card.columns):
            nominal = file[name][process]
            assert nominal.values().sum() == pytest.approx(card.rates[column], rel=1e-12)
            found.nominal[name, process] = nominal.values()
            found.errors[name, process] = np.sqrt(nominal.variances())
            for systematic, (kind, entries) in card.systematics.items():
                if kind.startswith("shape") and entries[column] == "1":
                    pair = [file[name][f"{process}_{systematic}{way}"].values() for way in ("Up", "Down")]
                    found.templates[name, process, systematic] = (pair[0], pair[1])
        (path.parent / "x" / "shapes.root").unlink()
        (path.parent / "x").rmdir()
        return found

    def card(self, fit: FitInput, folder: Path) -> Datacard:
        return parts(self.written(fit, folder))[0]

    def test_the_card_counts_channels_processes_and_systematics(self, tmp_path: Path) -> None:
        card = self.card(fit_of(channel(), channel("wlike", etas=2)), tmp_path)
        assert card.lines["imax"] == ["2"]
        assert card.lines["jmax"] == ["1"]
        assert card.lines["shapes"] == [
            "*",
            "*",
            "shapes.root",
            "$CHANNEL/$PROCESS",
            "$CHANNEL/$PROCESS_$SYSTEMATIC",
        ]
        assert card.columns == [("signal", "W"), ("signal", "Z"), ("wlike", "W"), ("wlike", "Z")]
        assert card.numbers == [0, 1, 0, 1]
        assert len(card.lines["observation"]) == 2
        named = {*card.systematics, *(line[0] for line in card.rate_parameters)} - {"*"}
        assert named == {parameter.name for parameter in PARAMETERS}

    def test_every_kind_of_parameter_has_its_word(self, tmp_path: Path) -> None:
        card = self.card(fit_of(), tmp_path)
        assert card.systematics["massW"] == ("shapeU", ["1", "-"])
        assert card.systematics["scale2"] == ("shape", ["1", "1"])
        assert card.systematics["eff1"] == ("shape", ["1", "-"])
        assert card.systematics["mixed"] == ("shape", ["1", "1"])
        kind, entries = card.systematics["lumi"]
        assert kind == "lnN"
        assert [float(entry) for entry in entries] == pytest.approx([1.012, 1.012], rel=1e-12)
        assert card.rate_parameters == [["norm_Z", "signal", "Z", "1", "[0,10]"]]
        assert card.systematics["*"] == ("autoMCStats", ["0", "1"])

    def test_a_size_whose_down_is_no_mirror_has_both_factors(self, tmp_path: Path) -> None:
        only = channel()
        only = replace(
            only, effects=lambda p: (e for e in channel().effects(p) if p == 0 or 7 not in e.parameters)
        )
        kind, (entry, other) = self.card(fit_of(only), tmp_path).systematics["mixed"]
        assert (kind, other) == ("lnN", "-")
        assert [float(part) for part in entry.split("/")] == pytest.approx(np.exp([-0.02, 0.03]).tolist())

    def test_groups_name_their_members(self, tmp_path: Path) -> None:
        groups = self.card(fit_of(), tmp_path).groups
        assert groups["muon"] == ["scale1", "scale2", "eff1", "eff2"]
        assert groups["floating"] == ["norm_Z"]

    def test_a_parameter_without_effect_is_in_no_line_and_no_group(self, tmp_path: Path) -> None:
        quiet = replace(
            channel(), effects=lambda p: (e for e in channel().effects(p) if 5 not in e.parameters)
        )
        card = self.card(fit_of(quiet), tmp_path)
        assert "eff1" not in card.systematics
        assert "efficiency" not in card.groups

    def test_a_process_that_is_not_in_a_channel_has_no_column_there(self, tmp_path: Path) -> None:
        empty = channel("wlike")
        empty = replace(empty, nominal=empty.nominal * [[1.0], [0.0]])
        assert ("wlike", "Z") not in self.card(fit_of(channel(), empty), tmp_path).columns

    def test_the_remarks_say_how_to_let_the_mass_float(self, tmp_path: Path) -> None:
        remarks = "\n".join(self.card(fit_of(), tmp_path).remarks)
        assert "--redefineSignalPOIs massW" in remarks
        assert "--setParameterRanges massW=-10,10" in remarks

    def test_names_keep_what_combine_takes(self, tmp_path: Path) -> None:
        dashed = (*PARAMETERS[:3], replace(PARAMETERS[3], name="scale-eta.1"), *PARAMETERS[4:])
        card = self.card(replace(fit_of(), parameters=dashed), tmp_path)
        assert "scale_eta_1" in card.systematics

    def test_names_that_become_one_are_refused(self, tmp_path: Path) -> None:
        alike = (
            *PARAMETERS[:3],
            replace(PARAMETERS[3], name="scale-2"),
            replace(PARAMETERS[4], name="scale_2"),
        )
        with pytest.raises(RequestError, match=r"'scale-2' and 'scale_2'") as caught:
            self.card(replace(fit_of(), parameters=(*alike, *PARAMETERS[5:])), tmp_path)
        assert caught.value.code == "names-clash"

    def test_too_many_histograms_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(root, "MOST_HISTOGRAMS", 10)
        with pytest.raises(RequestError, match="more than 10 histograms") as caught:
            self.card(fit_of(), tmp_path)
        assert caught.value.code == "too-large-for-root"
        assert list(tmp_path.iterdir()) == []

    def test_the_bytes_do_not_depend_on_the_time(self, tmp_path: Path) -> None:
        channels = [channel(f"c{number}", etas=8, seed=number) for number in range(30)]
        one = self.written(fit_of(*channels), tmp_path).read_bytes()
        time.sleep(1.1)
        assert self.written(fit_of(*channels), tmp_path).read_bytes() == one

    def test_masked_bins_are_named_in_the_file(self, tmp_path: Path) -> None:
        _, file = parts(self.written(fit_of(masked(channel(), 0, 1)), tmp_path))
        (axis,) = json.loads(str(file["binworks"]))["channels"]["signal"]["axes"]
        assert axis["categories"] == list(range(2, 20))
