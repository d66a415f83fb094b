"""The command line: what it prints, what it returns, where it looks for the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made_service import Served, filled, free_port

from binworks.client import Client
from binworks.client.address import find
from binworks.client.cli import COMMANDS
from binworks.service.model import JobState, UnitState
from binworks.tensors.errors import RequestError

pytest_plugins = ["served_fixture"]

BINWORKS = str(Path(sys.executable).parent / "binworks")


def run(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    usual = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        [BINWORKS, *arguments], env={**usual, **environment}, capture_output=True, text=True
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def ask(served: Served, *arguments: str, code: int = 0) -> str:
    return run(
        *arguments, code=code, BINWORKS_URL=served.url, BINWORKS_TOKEN=served.made.tokens["alice"]
    ).stdout


def document(served: Served, *arguments: str) -> Any:
    return json.loads(ask(served, *arguments, "--json"))


def test_help_lists_every_command_and_the_exit_codes() -> None:
    shown = run("--help").stdout
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.summary in shown
    assert (
        "Exit codes: 0 done; 1 the job failed; 2 wrong usage or request; 3 the service does not answer."
        in shown
    )


@pytest.mark.parametrize("name", [name for name, at in COMMANDS.items() if "client.commands" in at.target])
def test_every_command_has_help(name: str) -> None:
    shown = run(name, "--help").stdout
    assert f"Usage: binworks {name}" in shown
    assert "--json" in shown


def test_submit_prints_the_id_and_status_shows_the_job(served: Served) -> None:
    job = ask(
        served,
        "submit",
        "-p",
        "w_mass",
        "-d",
        "Wplusmunu",
        "-c",
        "small",
        "-s",
        "mass",
        "-s",
        "pileup",
        "-o",
        "pdf_members=31",
        "--skip",
        "0.05",
        "--label",
        "first look",
        "--luminosity",
        "5",
    ).strip()
    found = document(served, "status", job)
    asked = {
        "corrections": "small",
        "systematics": ["mass", "pileup"],
        "options": {"pdf_members": 31},
        "on_error": {"skip": 0.05},
        "label": "first look",
        "luminosity": 5.0,
        "datasets": ["Wplusmunu"],
    }
    assert {**found["request"], **asked} == found["request"]
    assert "queued" in ask(served, "status", job)
    listed = ask(served, "jobs", "--state", "queued")
    assert job in listed
    assert "first look" in listed


def test_submit_takes_a_file_and_options_win_over_it(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text(
        json.dumps({"processor": "w_mass", "datasets": ["Wplusmunu"], "systematics": [], "label": "file"})
    )
    found = document(served, "submit", str(file), "--all-datasets", "--label", "line")
    assert found["request"]["label"] == "line"
    assert found["request"]["datasets"] == ["Wplusmunu", "Wminusmunu", "SingleMuon"]


def test_the_same_key_gives_the_same_job(served: Served) -> None:
    first, second = (
        ask(served, "submit", "-p", "w_mass", "-d", "Wplusmunu", "--key", "cli-1") for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("submit", "-p", "w_mas", "-d", "Wplusmunu"), "Did you mean w_mass?"),
        (("submit", "-p", "w_mass", "-d", "Wplusmumu"), "Wplusmumu"),
        (("submit", "-p", "w_mass"), "body.datasets"),
        (("submit", "-p", "w_mass", "-d", "Wplusmunu", "-o", "flavour"), "KEY=VALUE"),
        (("submit", "/nonexistent.json"), "/nonexistent.json"),
        (("submit", "--nonsense"), "--nonsense"),
        (("status", "nosuchjob2"), "There is no such job"),
        (("pull", "nosuchjob2", "--out", "x.npz"), "There is no such job"),
        (("nonsense",), "nonsense"),
    ],
)
def test_a_wrong_request_ends_with_2_and_names_the_thing(
    served: Served, arguments: tuple[str, ...], named: str
) -> None:
    environment = {"BINWORKS_URL": served.url, "BINWORKS_TOKEN": served.made.tokens["alice"]}
    assert named in run(*arguments, code=2, **environment).stderr


def test_a_service_that_is_not_there_ends_with_3(served: Served) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert url in run("jobs", "--url", url, code=3).stderr


def test_no_service_named_says_what_to_do() -> None:
    assert "binworks up" in run("jobs", code=2).stderr


def test_watch_follows_to_the_end_and_its_code_is_the_jobs(served: Served) -> None:
    made = served.made
    good, bad = made.submit(), made.submit()
    error = {"code": "missing-branch", "message": "No branch for muon pt.", "where": "a.root", "hint": None}

    def work() -> None:
        time.sleep(1.0)
        made.tell(
            good,
            "unit-failed",
            {"unit": 7, "dataset": "Wplusmunu", "state": "pending", "attempts": 1, "error": error},
        )
        made.move(good, JobState.RUNNING, JobState.FINALIZING, JobState.SUCCEEDED)
        made.move(bad, JobState.RUNNING, JobState.FAILED, error=error)

    worker = threading.Thread(target=work)
    worker.start()
    shown = ask(served, "watch", good)
    assert [word for word in ("queued", "running", "finalizing", "succeeded") if word in shown] == [
        "queued",
        "running",
        "finalizing",
        "succeeded",
    ]
    assert "unit 7 of Wplusmunu pending: a.root: No branch for muon pt. [missing-branch]" in shown
    assert "failed: a.root: No branch for muon pt. [missing-branch]" in ask(served, "watch", bad, code=1)
    worker.join()
    lines = [json.loads(line) for line in ask(served, "watch", bad, "--json", code=1).splitlines()]
    assert [line["data"]["state"] for line in lines] == ["queued", "running", "failed"]
    assert "missing-branch" in ask(served, "status", bad)


def test_pull_writes_the_tensor_and_tells_its_digest(served: Served, tmp_path: Path) -> None:
    target = tmp_path / "tensor.npz"
    facts = document(served, "pull", served.job, "--out", str(target))
    assert (facts["bytes"], facts["complete"]) == (target.stat().st_size, True)
    assert facts["sha256"] in ask(served, "pull", served.job, "--out", str(target))
    with np.load(target) as arrays:
        assert arrays["nominal"].shape == (1, 48, 30, 2)


def test_pull_refuses_what_lacks_events_unless_told(served: Served, tmp_path: Path) -> None:
    made = served.made
    job = made.submit()
    made.move(job, JobState.RUNNING)
    made.publish(job, {"Wplusmunu": filled(5, groups=())}, groups=(), complete=False)
    out = ("--out", str(tmp_path / "x.zip"))
    environment = {"BINWORKS_URL": served.url, "BINWORKS_TOKEN": made.tokens["alice"]}
    assert "--allow-partial" in run("pull", job, *out, code=2, **environment).stderr
    assert not (tmp_path / "x.zip").exists()
    assert "INCOMPLETE: 40.0 % of the events" in ask(served, "pull", job, *out, "--allow-partial")


def test_status_and_units_say_what_failed_why_and_what_to_do(served: Served) -> None:
    made = served.made
    job = made.submit()
    made.move(job, JobState.RUNNING)
    made.lack(job, files=7, state=UnitState.FAILED)
    error = {
        "code": "corrupt-file",
        "message": "It cannot be decoded.",
        "where": "wp.root",
        "hint": "Copy it.",
    }
    made.move(job, JobState.FAILED, error=error)
    shown = ask(served, "status", job)
    assert "10 events (10.0 %), 8 files or parts of files" in shown
    assert "wp.root.0: Gone. [missing-file]" in shown
    assert "... and 3 more" in shown
    assert f"binworks retry {job}" in shown
    assert f"binworks units {job} --state failed" in shown
    units = ask(served, "units", job, "--state", "failed")
    for part in (
        "unit 1 of Wplusmunu  failed after 5 attempts, the last in 4 steps on tcp://w:1, 10 events",
        "wp.root[90:100]",
        "It cannot be decoded. [corrupt-file]",
        "Copy it.",
        "Traceback: here",
    ):
        assert part in units
    assert "unit 0" not in units
    both = ask(served, "units", job)
    assert "done" in both
    assert "unit 1 of Wplusmunu" in both


def test_an_incomplete_result_is_marked_wherever_it_is_listed(served: Served, tmp_path: Path) -> None:
    job = served.made.incomplete({"Wplusmunu": filled(8, groups=())})
    line = next(line for line in ask(served, "jobs").splitlines() if job in line)
    assert "succeeded" in line
    assert "INCOMPLETE" in line
    assert f"binworks retry {job}" in ask(served, "status", job)
    assert f"binworks retry {job}" in ask(served, "watch", job)
    target = str(tmp_path / "x.zip")
    shown = ask(served, "pull", job, "--out", target, "--allow-partial")
    assert "INCOMPLETE: 93.1 % of the events, and 2 files could not be opened" in shown
    facts = document(served, "pull", job, "--out", target, "--allow-partial")
    assert facts["missing"]["files"] == ["a.root", "b.root"]


def test_a_job_on_which_nobody_works_says_so_in_the_list_and_to_a_watcher(served: Served) -> None:
    job = served.made.submit()
    served.made.move(job, JobState.RUNNING)
    line = next(line for line in ask(served, "jobs").splitlines() if job in line)
    assert "No driver is at work" in line
    environment = {
        **os.environ,
        "BINWORKS_URL": served.url,
        "BINWORKS_TOKEN": served.made.tokens["alice"],
        "COLUMNS": "200",
    }
    with subprocess.Popen(
        [BINWORKS, "watch", job], env=environment, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert any("No driver is at work" in line for line in watching.stdout)
        served.made.move(job, JobState.FAILED)
        assert "failed" in watching.stdout.read()
    assert watching.returncode == 1


def test_retry_and_delete(served: Served) -> None:
    job = served.made.submit()
    served.made.move(job, JobState.RUNNING, JobState.FAILED)
    assert ask(served, "retry", job).strip() == "queued"
    ask(served, "delete", job, code=2)
    ask(served, "cancel", job)
    served.made.move(job, JobState.CANCELLED)
    ask(served, "retry", job, code=2)
    assert document(served, "delete", job) == {"id": job, "deleted": True}
    ask(served, "status", job, code=2)


def test_usage_lists_what_is_used_and_allowed(served: Served) -> None:
    shown = ask(served, "usage")
    assert "100,000" in shown
    for name in ("active jobs", "queued units", "stored bytes", "cpu hours"):
        assert name in shown
    assert document(served, "usage")["owner"] == "alice"


def test_submit_takes_a_result_that_is_there_if_told(served: Served) -> None:
    (served.made.settings.home / "data" / "wp.root").unlink(missing_ok=True)
    arguments = ("submit", "-p", "w_mass", "-d", "Wplusmunu", "--reuse")
    assert document(served, *arguments)["id"] != ask(served, *arguments).strip(), "neither is completed"


def test_cancel_and_units(served: Served) -> None:
    job = served.made.submit()
    assert ask(served, "cancel", job).strip() == "cancelling"
    assert document(served, "units", job, "--state", "failed") == []


def test_what_can_be_asked_for(served: Served) -> None:
    assert "pdf_members" in ask(served, "processors")
    assert [entry["name"] for entry in document(served, "datasets")] == [
        "Wplusmunu",
        "Wminusmunu",
        "SingleMuon",
    ]
    assert "momentum_scale" in ask(served, "corrections")


def test_the_home_of_a_service_has_address_and_token(served: Served, tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text(json.dumps({"url": served.url, "dashboard": None}))
    (tmp_path / "token").write_text(served.made.tokens["bob"] + "\n")
    elsewhere = {"BINWORKS_URL": "http://127.0.0.1:1", "BINWORKS_TOKEN": "wrong"}
    run("jobs", "--home", str(tmp_path), **elsewhere)
    run("jobs", BINWORKS_HOME=str(tmp_path))
    with Client(home=tmp_path) as client:
        assert client.url == served.url


def test_a_token_found_in_files_goes_to_its_own_service_only(tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text('{"url": "http://127.0.0.1:8080/"}')
    (tmp_path / "token").write_text("secret")
    assert find(home=tmp_path).token == "secret"
    assert find("http://127.0.0.1:8080", home=tmp_path).token == "secret"
    assert find("http://elsewhere:8080", home=tmp_path).token is None


def test_a_home_without_a_service_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BINWORKS_URL", "http://127.0.0.1:1")
    with pytest.raises(RequestError, match=str(tmp_path)):
        find(home=tmp_path)
