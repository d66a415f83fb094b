from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_w import toy_tensor

from binworks.client.plots import plot_fit
from binworks.tensors.errors import RequestError
from binworks.tensors.fit import FitResult, fit_mass
from binworks.tensors.tensor import Tensor


@pytest.fixture(scope="module")
def fitted() -> tuple[Tensor, FitResult]:
    tensor = toy_tensor(3e5, rng=np.random.default_rng(8), shift=30.0)
    return tensor, fit_mass(tensor, floating=["W"], rebin={"eta": 48})


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_plot_is_saved_by_its_suffix(
    fitted: tuple[Tensor, FitResult], tmp_path: Path, suffix: str, magic: bytes
):
    target = tmp_path / f"mw{suffix}"
    plot_fit(*fitted, target)
    assert target.read_bytes().startswith(magic)


def test_the_plot_shows_data_ratio_and_mass(fitted: tuple[Tensor, FitResult]):
    _, result = fitted
    spectrum, ratio, mass = plot_fit(*fitted, title="demo").axes
    assert [text.get_text() for text in spectrum.get_legend().get_texts()] == ["Data", "W", "Z"]
    assert r"$m_W \pm 10$ MeV" in [text.get_text() for text in ratio.get_legend().get_texts()]
    legend = mass.get_legend().get_texts()[0].get_text()
    assert f"{result.mass_shift:+.1f}" in legend
    assert f"{result.uncertainty:.1f}" in legend
    low, high = ratio.get_ylim()
    assert low < 1 < high
    assert spectrum.get_xlim() == (26, 56)


def test_a_tensor_that_lacks_events_is_drawn_with_a_mark(fitted: tuple[Tensor, FitResult]):
    tensor, result = fitted
    assert plot_fit(tensor, result).get_suptitle() == ""
    lacking = replace(tensor, metadata={"complete": False, "fraction": 0.931})
    assert plot_fit(lacking, result).get_suptitle() == "INCOMPLETE: 93.1 % of the events"


def test_another_suffix_is_refused(fitted: tuple[Tensor, FitResult], tmp_path: Path):
    with pytest.raises(RequestError, match=r"cannot be saved as 'mw.jpeg'") as caught:
        plot_fit(*fitted, tmp_path / "mw.jpeg")
    assert caught.value.code == "unknown-format"


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, binworks.client.plots; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
