"""The operator's guide names what there is: every alert, tests that exist, a service unit that systemd takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def guide(root: Path) -> str:
    return (root / "docs/operators.md").read_text()


def test_every_alert_has_its_line(root: Path, guide: str) -> None:
    rules = yaml.safe_load((root / "deploy/grafana/alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert alerts == set(re.findall(r"^\| `(Binworks\w+)` \|", guide, re.MULTILINE))


def test_the_tests_that_try_the_runbook_exist(root: Path, guide: str) -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", guide))
    assert named
    assert {name for name in named if not (root / "tests" / name).exists()} == set()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_service_unit(root: Path, tmp_path: Path) -> None:
    unit = (root / "deploy/systemd/binworks.service").read_text()
    (command,) = re.findall(r"^ExecStart=(\S+) up --home \S+ --config \S+$", unit, re.MULTILINE)
    copy = tmp_path / "binworks.service"
    copy.write_text(unit.replace(command, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
