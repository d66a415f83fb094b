"""What is logged says which job and which unit it is about."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import service_toys
from service_toys import Running, registered, write_all

from binworks.service import logs
from binworks.service.logs import JsonLines, Lines
from binworks.service.model import JobState


def formatted(message: str = "so it is", **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("binworks.here", logging.WARNING, __file__, 1, message, None, None)
    for name, value in extra.items():
        setattr(record, name, value)
    line: dict[str, Any] = json.loads(JsonLines().format(record))
    return line


def test_a_record_is_one_line_with_what_it_is_about() -> None:
    line = formatted("one\ntwo", job="a", unit=0, code="late", other="left out")
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "binworks.here",
        "message": "one\ntwo",
        "job": "a",
        "unit": 0,
        "code": "late",
    }


def test_what_a_block_is_about_stands_in_its_records_and_not_after_it() -> None:
    with logs.about(job="a", unit=0):
        assert (formatted()["job"], formatted()["unit"]) == ("a", 0)
        assert formatted(unit=3)["unit"] == 3
    assert "job" not in formatted()


def test_each_asyncio_task_and_the_threads_it_calls_have_their_own() -> None:
    async def one(job: str) -> tuple[str, str]:
        logs.tell(lambda: {"job": job})
        await asyncio.sleep(0)
        return formatted()["job"], (await asyncio.to_thread(formatted))["job"]

    async def both() -> list[tuple[str, str]]:
        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(both()) == [("a", "a"), ("b", "b")]


def test_lines_are_written_together_and_the_file_is_renamed_when_it_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    lines = Lines(tmp_path / "logs" / "access.log")
    for number in range(logs.MOST_LINES - 1):
        lines.add(str(number))
    assert not (tmp_path / "logs").exists()
    lines.add("last")
    lines.add("one more")
    lines.close()
    assert (tmp_path / "logs/access.log.1").read_text().splitlines()[-1] == "last"
    assert (tmp_path / "logs/access.log").read_text() == "one more\n"


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a folder")
    lines = Lines(tmp_path / "logs" / "access.log")
    lines.add("lost")
    lines.close()


# a service that runs


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    changes = {"data_roots": (str(home),), "lease_seconds": 3.0}
    with (
        registered(home / "toys"),
        service_toys.service(home / "home", workers=1, **changes) as service,
    ):
        yield service


def records(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log that are ours."""
    lines = path.read_text(errors="replace").splitlines()
    found = [json.loads(line) for line in lines if line.startswith('{"time"')]
    return [line for line in found if line["logger"].startswith("binworks.")]


@pytest.mark.faults
def test_what_driver_and_workers_log_of_a_job_names_it_and_its_unit(running: Running) -> None:
    files = write_all(running.settings.home.parent / "data", 3, 1000)
    job = running.submit({"D": files}, options={"fault": 1500}).id
    assert running.wait(job).state == JobState.FAILED
    done = running.submit({"D": files}, options={"tag": "well"}).id
    assert running.wait(done).state == JobState.SUCCEEDED

    told = records(running.settings.logs / "driver.log")
    assert {line["job"] for line in told if "job" in line} == {job, done}
    (broken,) = {line["unit"] for line in told if "divides by zero" in line["message"] and "unit" in line}
    assert broken == 1
    without = {line["logger"] for line in told if "job" not in line}
    assert without <= {"binworks.service.driver", "binworks.service.cluster"}
    assert not any("units" in line["message"] for line in told if "job" not in line)

    told = records(running.settings.logs / "worker-0.out")
    filled = [line for line in told if "FillUnit" in line["message"]]
    assert {(line["job"], line["unit"]) for line in filled} >= {(done, 0), (done, 1), (done, 2)}
    assert any(line["job"] == job and line["unit"] == 1 and "zero" in line["message"] for line in filled)
    assert all("job" in line and "worker" in line for line in told)


@pytest.mark.faults
def test_readyz_turns_red_while_driver_or_scheduler_is_gone(running: Running) -> None:
    def codes() -> dict[str, str]:
        found: dict[str, str] = httpx.get(f"{running.settings.url}/readyz", timeout=10).json()["checks"]
        return found

    async def until(name: str, code: str) -> None:
        async with asyncio.timeout(60):
            while codes()[name] != code:
                await asyncio.sleep(0.1)

    for name in ("database", "store", "space", "scheduler", "driver"):
        asyncio.run(until(name, "ok"))
    scheduler = running.service.backend.scheduler
    assert scheduler is not None

    async def seen_without_scheduler() -> None:
        async with asyncio.timeout(60):
            while (
                codes()["scheduler"] != "no-scheduler"
            ):  # it is started again, and looked for each other second
                pid = scheduler.pid
                if pid:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.1)

    asyncio.run(seen_without_scheduler())
    asyncio.run(until("scheduler", "ok"))
    assert running.service.driver.pid is not None
    os.kill(running.service.driver.pid, signal.SIGSTOP)
    asyncio.run(until("driver", "no-driver"))
    os.kill(running.service.driver.pid, signal.SIGCONT)
    asyncio.run(until("driver", "ok"))
