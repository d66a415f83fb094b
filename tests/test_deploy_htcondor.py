"""What HTCondor is told, and how its answers are read. On a real pool: ``make condor-proof``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from binworks.deploy import htcondor
from binworks.deploy.batch import WorkerJob
from binworks.deploy.htcondor import HTCondorBackend, HTCondorQueue, description, entries, merged, submitted
from binworks.deploy.reconcile import Entry, JobState
from binworks.deploy.site import Site
from binworks.deploy.tls import Certificates
from binworks.deploy.worker import parser
from binworks.service.environment import WORKER
from binworks.tensors.errors import BinworksError, RequestError, TransientError

SITES = Path(htcondor.__file__).parent / "sites"
FILES = {"ca-file": "ca.crt", "cert": "tls.crt", "key": "tls.key"}
TLS = tuple(word for name, file in FILES.items() for word in (f"--tls-{name}", f"/h/tls/worker/{file}"))

SAID = st.characters(exclude_characters="\0", exclude_categories=["Cs"])

ANSWER = """[
{
  "ClusterId": 3,
  "HoldReason": "via condor_hold (by user ana)",
  "JobStatus": 5,
  "ProcId": 0
}
,
{
  "ClusterId": 12,
  "JobStatus": 1,
  "BinworksMake": "now",
  "LastRejMatchReason": "no match found ",
  "ProcId": 0
}
,
{
  "ClusterId": 12,
  "BinworksMake": "now",
  "JobStatus": 2,
  "ProcId": 1
}
,
{
  "ClusterId": 12,
  "JobStatus": 3,
  "ProcId": 2
}
]
"""
"""Of condor_q 23.9."""


def job(folder: Path, site: dict[str, Any] | None = None, **changes: Any) -> WorkerJob:
    facts: dict[str, Any] = {
        "name": "binworks-0a1b",
        "scheduler": "tls://10.0.0.1:8786",
        "home": folder,
        "logs": folder / "logs",
        "site": Site.model_validate(site or {}),
        "tls": TLS,
        "environment": {"OMP_NUM_THREADS": "1"},
        "preload": "binworks.service.preload",
    }
    return WorkerJob(**{**facts, **changes})


def commands(text: str) -> dict[str, str]:
    lines = [line.split(" = ", 1) for line in text.splitlines() if " = " in line]
    assert len({line[0].lower() for line in lines}) == len(lines), "a command is given twice"
    return dict(lines)


def filled_in(value: str) -> str:
    """Return what condor_submit makes of a value."""
    known = {"DOLLAR": "$", "ClusterId": "7", "ProcId": "0"}
    return re.sub(r"\$\((\w+)\)", lambda found: known.get(found[1], ""), value)


def words(quoted: str) -> list[str]:
    """Split as HTCondor's manual says of `arguments` and `environment`: by spaces, '...' together, doubled quotes."""
    assert quoted.startswith('"')
    assert quoted.endswith('"')
    inner = quoted[1:-1]
    assert '"' not in inner.replace('""', "")
    found, word, inside, at = [], "", False, 0
    text = inner.replace('""', '"')
    while at < len(text):
        if text[at] == "'":
            if inside and text[at : at + 2] == "''":
                word, at = word + "'", at + 1
            else:
                inside = not inside
        elif text[at] == " " and not inside:
            found, word = [*found, word], ""
        else:
            word += text[at]
        at += 1
    assert not inside
    return [*found, word]


@settings(max_examples=25)
@given(st.dictionaries(st.from_regex(r"BW_[A-Z0-9_]{1,8}", fullmatch=True), st.text(SAID), max_size=4))
def test_each_variable_reaches_the_host_and_stands_in_no_description(variables: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        given_ = {**variables, "HIDDEN": "hunter2"}
        one = job(Path(folder), {"workers": {"scratch": folder}}, environment=given_)
        one.write_environment()
        assert "hunter2" not in description(one)
        script = Path(folder) / "worker.sh"
        script.write_text(htcondor.wrapper(one))
        command = ["/bin/sh", script, "-c", "exec env -0"]
        done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    seen = dict(line.split("=", 1) for line in done.stdout.decode().split("\0")[:-1])
    assert given_.items() <= seen.items()


@settings(max_examples=25)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="/"), min_size=1))
def test_whatever_is_in_a_folders_name_reaches_the_host(name: str) -> None:
    folder = Path(f"/x{name}")
    with tempfile.TemporaryDirectory() as home:
        line = commands(description(job(Path(home), {"workers": {"scratch": folder}})))["Arguments"]
    shell, command = words(filled_in(line))
    told = shlex.split(command)
    assert (shell, told[told.index("--local-directory") + 1]) == ("-c", str(folder))


def test_the_host_is_told_all_that_it_must_know(tmp_path: Path) -> None:
    where = {"workers": {"processes": 2, "grace": 60, "walltime": 3600, "python": "/my $(x)/python"}}
    given_ = commands(description(job(tmp_path, where)))
    shell, line = words(filled_in(given_["Arguments"]))
    assert shell == "-c"
    assert line.startswith("exec '/my $(x)/python' -m binworks.deploy.worker tls://10.0.0.1:8786 ")
    options = parser().parse_args(
        subprocess.run(
            ["/bin/sh", "-c", f"printf '%s\\0' {line.split(' -m binworks.deploy.worker ')[1]}"],
            capture_output=True, text=True, check=True, env={"_CONDOR_SCRATCH_DIR": "/scratch of/dir_1"},
        ).stdout.split("\0")[:-1]
    )  # fmt: skip
    assert options.name == "binworks-0a1b-7.0"
    assert (options.nworkers, options.grace, options.death_timeout) == (2, 60, 600)
    assert options.lifetime + options.stagger + options.grace < 3600
    assert options.local_directory == Path("/scratch of/dir_1")
    assert options.preload == ["binworks.service.preload"]
    assert options.tls_key == "/h/tls/worker/tls.key"


def test_a_removed_job_is_asked_to_end_and_gets_the_time_it_needs(tmp_path: Path) -> None:
    lines = commands(description(job(tmp_path, {"workers": {"grace": 90, "memory": "3GB", "processes": 3}})))
    assert lines["want_graceful_removal"] == "True"
    assert lines["kill_sig"] == "SIGTERM"
    assert lines["job_max_vacate_time"] == "90"
    assert lines["RequestMemory"] == "2862"
    assert lines["MY.DaskWorkerCores"] == "3"
    assert lines["MY.BinworksCluster"] == '"binworks-0a1b"'
    assert lines["MY.MaxRuntime"] == str(12 * 3600)
    assert lines["getenv"] == "False"
    assert "environment" not in lines
    assert lines["initialdir"] == str(tmp_path / "logs" / "htcondor")
    assert "transfer_input_files" not in lines


def test_certificates_are_sent_under_their_own_names_and_a_sites_files_with_them(tmp_path: Path) -> None:
    where = {"htcondor": {"transfer": True, "directives": {"Transfer_Input_Files": "/etc/more"}}}
    lines = commands(description(job(tmp_path, where)))
    sent = [*TLS[1::2], str(tmp_path / "cluster-environment")]
    files = ", ".join(sent)
    assert lines["transfer_input_files"] == f"{files}, /etc/more"
    assert lines["encrypt_input_files"] == files
    assert lines["should_transfer_files"] == "YES"
    assert "--tls-ca-file ca.crt --tls-cert tls.crt --tls-key tls.key" in lines["Arguments"]


def test_a_command_of_the_site_takes_the_place_of_ours_however_it_is_written() -> None:
    ours = {"RequestMemory": "1", "MY.MaxRuntime": "60", "Stream_Output": True}
    assert merged(ours, {"request_memory": "2GB", "+Extra": '"x"'}) == {
        "MY.MaxRuntime": "60", "Stream_Output": True, "request_memory": "2GB", "+Extra": '"x"',
    }  # fmt: skip
    assert merged(ours, {"+maxruntime": "90"}) == {
        "RequestMemory": "1", "Stream_Output": True, "+maxruntime": "90",
    }  # fmt: skip
    assert "MY.MaxRuntime" not in merged(ours, {"+JobFlavour": '"workday"'})


@pytest.mark.parametrize(
    "bad",
    [
        {"Executable": "/bin/true"},
        {"+BinworksCluster": '"x"'},
        {"a": "1\nqueue 9"},
        {"queue 3": ""},
        {"MY.BinworksMake": "x"},
    ],
)
def test_what_a_site_may_not_give_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(RequestError) as caught:
        merged({}, bad)
    assert caught.value.code == "bad-site"


def test_the_wrapper_runs_the_sites_lines_and_becomes_the_host(tmp_path: Path) -> None:
    lines = ["if true; then", "  export WORD='it is'; OTHER=no  # with a remark", "fi"]
    script = tmp_path / "worker.sh"
    one = job(tmp_path, {"workers": {"prologue": lines, "scratch": tmp_path}})
    one.write_environment()
    script.write_text(htcondor.wrapper(one))
    with subprocess.Popen(
        ["/bin/sh", script, "-c", 'exec echo "$OTHER$WORD here" $$'], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
    assert said == f"it is here {process.pid}\n"  # the same process still


def test_the_queues_answer_is_read() -> None:
    assert entries(ANSWER, "now") == {
        "3.0": Entry(JobState.HELD, "via condor_hold (by user ana)", current=False),
        "12.0": Entry(JobState.PENDING, "no match found"),
        "12.1": Entry(JobState.RUNNING),
        "12.2": Entry(JobState.ENDING, current=False),
    }
    assert entries("\n", "now") == {}
    assert entries('[{"ClusterId": 1, "ProcId": 0, "JobStatus": 7}]', "now")["1.0"].reason == "suspended"
    assert submitted("12.0 - 12.2\n") == ["12.0", "12.1", "12.2"]
    long = htcondor.short("Failed " + "--keep " * 100 + ": No such file")
    assert long is not None
    assert len(long) < 300
    assert long.endswith("No such file")


@pytest.mark.parametrize(
    "said", ["Error: unknown host", "[{}]", '{"a": 1}', "[1", "[3]", '[{"ClusterId": []}]']
)
def test_what_cannot_be_read_is_no_empty_queue(said: str) -> None:
    with pytest.raises(TransientError):
        entries(said, "now")
    with pytest.raises(TransientError):
        submitted(said)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put programs before HTCondor's own that note what they are asked and say what a file tells them to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in HTCondorBackend.programs:
        program = folder / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s " {name} "$@" >>{tmp_path}/asked; echo >>{tmp_path}/asked\n'
            f"cat {tmp_path}/{name}.says 2>/dev/null\n[ ! -e {tmp_path}/{name}.fails ] || {{ echo no >&2; exit 1; }}\n"
        )
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return tmp_path


def test_jobs_are_ended_one_way_and_drained_another_and_only_our_own(programs: Path) -> None:
    queue = HTCondorQueue(job(programs, {"htcondor": {"submit_options": ["-spool", "-name", "other"]}}))
    queue.drain(["12.0", "12.1"])
    queue.remove(["12.1"])
    asked = (programs / "asked").read_text().splitlines()
    mine = 'BinworksCluster == "binworks-0a1b" && '
    one, both = (
        "(ClusterId == 12 && ProcId == 1)",
        "(ClusterId == 12 && ProcId == 0) || (ClusterId == 12 && ProcId == 1)",
    )
    assert [line.strip() for line in asked] == [
        f"condor_rm -name other -constraint {mine}({both})",
        f"condor_vacate_job -name other -fast -constraint {mine}(JobStatus == 2 && ({one}))",
        f"condor_rm -name other -forcex -constraint {mine}(JobStatus == 3 && ({one}))",
        f"condor_rm -name other -constraint {mine}({one})",
    ]


def test_jobs_that_are_gone_do_not_matter_and_a_queue_that_does_not_answer_does(programs: Path) -> None:
    queue = HTCondorQueue(job(programs))
    for name in ("condor_rm", "condor_vacate_job"):
        (programs / f"{name}.fails").touch()
    queue.remove(["12.7"])
    (programs / "condor_q.says").write_text(ANSWER)
    queue.drain(["12.2"])  # is on its way out
    with pytest.raises(TransientError, match="condor_rm: no"):
        queue.drain(["12.1", "12.2"])
    (programs / "condor_q.fails").touch()
    with pytest.raises(TransientError, match="condor_q: no"):
        queue.jobs()


def test_many_jobs_are_one_submission(programs: Path) -> None:
    queue = HTCondorQueue(job(programs, {"htcondor": {"submit_options": ["-pool", "other"]}}))
    (programs / "condor_submit.says").write_text("5.0 - 5.39\n")
    assert len(queue.submit(40)) == 40
    assert (programs / "asked").read_text() == "condor_submit -terse -pool other - \n"
    assert os.access(programs / "logs" / "htcondor" / "worker.sh", os.X_OK)
    (programs / "condor_submit.fails").touch()
    with pytest.raises(BinworksError) as caught:
        queue.submit(1)
    assert caught.value.code == "batch-system"


@pytest.mark.parametrize("name", ["condor.yaml", "lxbatch.yaml"])
def test_the_site_files_load_and_condor_submit_understands_what_comes_of_them(
    name: str, tmp_path: Path
) -> None:
    where = Site.load(SITES / name)
    assert where.backend == "htcondor"
    here = where.scheduler.model_copy(update={"host": "10.0.0.1"})  # not every machine is in a network
    where = where.model_copy(update={"scheduler": here})
    Certificates.make(tmp_path / "tls")
    tls = tmp_path / "tls"
    backend = HTCondorBackend(
        tmp_path, where, port=8786, dashboard_port=0, preload=None, environment=WORKER, tls=tls
    )
    text = description(backend._job())
    commands(text)
    if shutil.which("condor_submit") is None:
        return
    (tmp_path / "logs" / "htcondor").mkdir(parents=True, exist_ok=True)
    (tmp_path / "logs" / "htcondor" / "worker.sh").write_text("#!/bin/sh\n")
    dry = tmp_path / "dry"
    done = subprocess.run(
        ["condor_submit", "-terse", "-dry-run", str(dry), "-"], input=text, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 'BinworksCluster="binworks-' in dry.read_text()
