"""The interface does what its own OpenAPI document says, whatever is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hand_made_service import Served

from binworks.service.model import JobState

pytest_plugins = ["served_fixture"]

NAMES_CANNOT_BE_GUESSED = """
[[operations]]
include-name = ["POST /v1/jobs", "GET /v1/jobs"]
checks.positive_data_acceptance.enabled = false
"""


def parameters(served: Served) -> str:
    """Return values with which the routes below a job find something."""
    found = {
        "job": served.job,
        "dataset": "Wplusmunu",
        "name": "nominal",
        "group": "mass",
        "key": "zarr.json",
    }
    lines = [f'"path.{name}" = "{value}"' for name, value in found.items()]
    return "\n".join(["[parameters]", *lines, '"path.n" = 1', '"query.generation" = 1', ""])


def spare(served: Served) -> str:
    """Return that one job alone may be deleted: the tool takes ids out of answers."""
    job = served.made.submit()
    served.made.move(job, JobState.CANCELLING, JobState.CANCELLED)
    return f"""
[[operations]]
include-name = "DELETE /v1/jobs/{{job}}"
parameters = {{ "path.job" = "{job}" }}
"""


@pytest.mark.parametrize(
    ("data", "phases"), [("anything", "coverage"), ("what is there", "coverage,fuzzing")]
)
def test_every_answer_is_one_that_the_schema_promises(
    served: Served, tmp_path: Path, data: str, phases: str
) -> None:
    config = parameters(served) if data == "what is there" else ""
    config += NAMES_CANNOT_BE_GUESSED + spare(served)
    (tmp_path / "schemathesis.toml").write_text(config)
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        f"--config-file={tmp_path / 'schemathesis.toml'}",
        "run",
        f"{served.url}/openapi.json",
        f"--header=Authorization: Bearer {served.made.tokens['alice']}",
        f"--phases={phases}",
        "--max-examples=3",
        "--seed=1",
        "--request-timeout=10",
        "--no-color",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert served.job in {job.id for job in served.made.jobs.list(limit=1000).jobs}
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert "Tested: 23" in done.stdout, done.stdout
