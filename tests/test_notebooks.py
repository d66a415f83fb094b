from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from binworks.client.children import RunningService

pytest_plugins = ["demo_fixture"]
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def _printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream")


@pytest.fixture
def executed(
    request: pytest.FixtureRequest, small_service: RunningService, tmp_path: Path
) -> nbformat.NotebookNode:
    """Return the notebook, run with the address and the token of the service in the environment."""
    notebook = nbformat.read(request.param, as_version=4)
    token = (small_service.home / "token").read_text().strip()
    environment = {**os.environ, "BINWORKS_URL": small_service.url, "BINWORKS_TOKEN": token}
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    return client.execute(env=environment)


@pytest.mark.parametrize("executed", [p for p in NOTEBOOKS if p.stem == "first_fit"], indirect=True)
def test_the_first_fit_runs_from_top_to_bottom(executed: nbformat.NotebookNode):
    text = _printed(executed)
    assert "state succeeded" in text
    assert re.search(r"m_W = 80379 [+-]\d+\.\d \+- \d+\.\d MeV", text)
    closure = re.findall(r"injected +([+-]\d+) MeV, fitted +([+-]\d+\.\d+) MeV", text)
    assert len(closure) == 4
    for injected, fitted in closure:
        assert float(fitted) == pytest.approx(float(injected), abs=0.1)
    assert re.search(r"\.hdf5: \d+ bytes of rabbit", text)
    assert "first axis: nominal, massShift" in text
    pictures = [
        output
        for cell in executed.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert not any(cell.get("outputs") for cell in notebook.cells)
