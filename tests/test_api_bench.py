"""The API's benchmark measures what it says, on a small service."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hand_made_service import Served

from binworks.service.model import JobState

pytest_plugins = ["served_fixture"]


def load(root: Path, served: Served, what: str, path: str, **asked: Any) -> subprocess.Popen[str]:
    common = {"port": served.made.settings.port, "token": served.made.tokens["alice"], "path": path}
    document = json.dumps({"what": what, "clients": 3, "seconds": 0.5, **common, **asked})
    command = [sys.executable, str(root / "benchmarks" / "api_load.py"), document]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def last(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def test_answers_are_counted_and_timed(root: Path, served: Served) -> None:
    found = last(load(root, served, "status", f"/v1/jobs/{served.job}"))
    assert found["per_second"] > 10
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_every_stream_tells_how_late_each_event_came(root: Path, served: Served) -> None:
    job = served.made.submit()
    served.made.move(job, JobState.RUNNING)
    following = load(root, served, "streams", f"/v1/jobs/{job}/events", seconds=3)
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["connected"] == 3
    for _ in range(2):
        served.made.tell(job, "note", {"note": "timed", "at": time.monotonic()})
    found = last(following)
    assert (found["clients"], found["events_heard_by_all"], found["events_heard_by_any"]) == (3, 2, 2)
    assert all(0 < late < 3000 for late in found["all_told_ms"])


@pytest.mark.parametrize("ranges", [[], ["0-99", "-100"]])
def test_all_bytes_are_counted(root: Path, served: Served, ranges: list[str]) -> None:
    path = f"/v1/jobs/{served.job}/zarr/1/zarr.json"
    found = last(load(root, served, "bytes", path, seconds=0.2, ranges=ranges))
    size = served.made.store.size(f"jobs/{served.job}/g/1/zarr.json")
    assert found["bytes"] == found["answers"] * (100 if ranges else size)


def test_what_is_not_answered_as_it_should_is_no_measurement(root: Path, served: Served) -> None:
    process = load(root, served, "status", "/v1/jobs/nosuchjob2")
    process.communicate(timeout=60)
    assert process.returncode != 0
