"""The benchmark runs end to end and says what was promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EVENTS = 3000


@pytest.fixture(scope="module")
def outcome(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    out = tmp_path_factory.mktemp("bench") / "latest.json"
    options = ["--events", str(EVENTS), "--rounds", "1", "--written", "40", "--out", str(out)]
    command = [sys.executable, str(root / "benchmarks" / "run.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert out.with_suffix(".png").stat().st_size > 10_000
    return json.loads(out.read_text()), done.stdout


@pytest.mark.slow
def test_the_report_has_the_promised_figures(outcome: tuple[dict[str, Any], str]) -> None:
    report, _ = outcome
    for key in ("full_over_bare_read", "full_over_coffea_idiom", "chunk_fixed_ms", "peak_rss_mb"):
        assert report[key] > 0, key
    assert (report["full_over_rdataframe"] is None) == bool(report["rdataframe_missing"])
    assert report["compile_cold_s"] > report["compile_cached_s"] > 0


@pytest.mark.slow
def test_the_contenders_select_the_same_events(outcome: tuple[dict[str, Any], str]) -> None:
    counts = list(outcome[0]["selected"].values())
    assert counts[0] > 0.1 * EVENTS
    assert counts == pytest.approx(counts[:1] * len(counts), rel=0.01)


@pytest.mark.slow
def test_the_cost_is_measured_up_to_the_full_list(outcome: tuple[dict[str, Any], str]) -> None:
    report, _ = outcome
    templates = [row["templates"] for row in report["growth"]]
    assert templates == sorted(templates)
    assert templates[0] == 1
    assert templates[-1] == report["templates"] == 1 + sum(report["groups"].values())


@pytest.mark.slow
def test_the_tables_are_printed_as_the_page_has_them(outcome: tuple[dict[str, Any], str], root: Path) -> None:
    page = (root / "docs" / "explanation" / "speed.md").read_text()
    for line in outcome[1].splitlines():
        label = line.split("|")[1].strip() if line.startswith("|") else ""
        if label and not label.startswith(("-", "**")) and not label.isdigit():
            assert f"| {label} |" in page
