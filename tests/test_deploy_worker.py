"""A worker host keeps its workers alive, lets them finish before they go, and leaves nothing behind."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import service_toys
from backend_contract import names, reach
from chaos.journal import read, redone
from distributed import Client, Future
from service_toys import Running, registered, write_all

from binworks.deploy.keeper import Keeper, Supervisor
from binworks.deploy.scheduler import scheduler
from binworks.deploy.scratch import private_folder
from binworks.deploy.worker import command, parser, scrubbed
from binworks.service.up import choose_port
from binworks.service.workforce import Bounds
from binworks.tensors.jit import CacheFile

pytestmark = pytest.mark.faults

LOOPBACK = "127.0.0.1"
OPEN_PORTS = (21000, 21099)
SECRETS = ("BINWORKS_TOKEN", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "BEARER_TOKEN")


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a scheduler."""
    port = choose_port(LOOPBACK, 0)
    keeper = scheduler(tmp_path_factory.mktemp("dask"), host=LOOPBACK, port=port, dashboard_port=0)
    yield f"tcp://{LOOPBACK}:{port}"
    keeper.stop()


@contextmanager
def host(folder: Path, address: str, *options: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker host; what it says goes to ``<folder>/out``, and nothing of it is left afterwards."""
    command = [sys.executable, "-m", "binworks.deploy.worker", address, "--host", LOOPBACK, *options]
    command += ["--local-directory", str(folder), "--keep", "PYTHONPATH"]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def busy(client: Client, folder: Path, seconds: float) -> Future:
    """Keep a worker busy; return when it is."""
    mark = folder / "begun"

    def unit() -> str:
        mark.touch()
        time.sleep(seconds)
        return "done"

    future = client.submit(unit, pure=False)
    reach(mark.exists)
    return future


def test_sigterm_lets_a_worker_finish_and_hand_over_what_it_is_at(dask: str, tmp_path: Path) -> None:
    first, last = OPEN_PORTS
    options = ("--nworkers", "2", "--ports", f"{first}:{last}")
    with Client(dask, set_as_default=False) as client, host(tmp_path, dask, *options) as process:
        reach(lambda: len(names(client)) == 2)
        workers = client.scheduler_info()["workers"]
        ports = {urlsplit(address).port for own, said in workers.items() for address in (own, said["nanny"])}
        assert len(ports) == 4
        assert ports <= set(range(first, last + 1))
        assert len(list(tmp_path.glob("binworks-worker-*"))) == 1
        future = busy(client, tmp_path, 2.0)
        process.send_signal(signal.SIGTERM)
        assert future.result(30) == "done"
        future.release()
        assert process.wait(30) == 0
        assert names(client) == set()
    assert not list(tmp_path.glob("binworks-worker-*"))


@pytest.mark.parametrize(("options", "then", "code"), [((), signal.SIGINT, 130), (("--grace", "3"), None, 1)])
def test_sigterm_drains_however_often_and_only_sigint_or_the_end_of_grace_lose_what_runs(
    dask: str, tmp_path: Path, options: Sequence[str], then: signal.Signals | None, code: int
) -> None:
    ready = tmp_path / "ready"
    options = (*options, "--ready-file", str(ready))
    with Client(dask, set_as_default=False) as client, host(tmp_path, dask, *options) as process:
        reach(lambda: len(names(client)) == 1)
        reach(ready.exists, 5)
        future = busy(client, tmp_path, 600)
        family = below(process)
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.8)
            assert process.poll() is None
        assert not ready.exists()
        if then is not None:
            process.send_signal(then)
        assert process.wait(20) == code
        future.cancel()
        assert psutil.wait_procs(family, 5)[1] == []
    assert not list(tmp_path.glob("binworks-worker-*"))


def test_a_signal_that_comes_while_a_host_starts_is_not_lost(tmp_path: Path) -> None:
    nowhere = f"tcp://{LOOPBACK}:{choose_port(LOOPBACK, 0)}"
    with host(tmp_path, nowhere) as process:
        reach(lambda: held_back(process.pid), 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert "draining" in (tmp_path / "out").read_text()


def held_back(pid: int) -> bool:
    """Whether a process holds SIGTERM back, or has a handler for it already."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(status["SigBlk"], 16) | int(status["SigCgt"], 16)) >> (signal.SIGTERM - 1) & 1)


def test_a_host_without_a_scheduler_drains_at_once(tmp_path: Path) -> None:
    nowhere = f"tcp://{LOOPBACK}:{choose_port(LOOPBACK, 0)}"
    with host(tmp_path, nowhere) as process:
        reach(lambda: below(process))
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - begin < 3


def test_a_host_without_a_scheduler_gives_up_and_names_it(tmp_path: Path) -> None:
    nowhere = f"tcp://{LOOPBACK}:{choose_port(LOOPBACK, 0)}"
    with host(tmp_path, nowhere, "--death-timeout", "1") as process:
        assert process.wait(30) == 1
    assert f"No scheduler answered at {nowhere} for 1 s." in (tmp_path / "out").read_text()


def test_a_lifetime_ends_as_a_drain_does(dask: str, tmp_path: Path) -> None:
    with Client(dask, set_as_default=False) as client:
        with host(tmp_path, dask, "--lifetime", "6", "--stagger", "1") as process:
            reach(lambda: len(names(client)) == 1)
            future = busy(client, tmp_path, 8.0)
            assert future.result(40) == "done"
            future.release()
            assert process.wait(30) == 0
        assert "the lifetime is over" in (tmp_path / "out").read_text()


def test_workers_see_no_secret_and_die_with_their_host(dask: str, tmp_path: Path) -> None:
    given = dict.fromkeys(SECRETS, "secret")
    with Client(dask, set_as_default=False) as client:
        with host(tmp_path, dask, "--keep", "MY_*", MY_PLACE="here", **given) as process:
            reach(lambda: len(names(client)) == 1)
            (seen,) = client.run(lambda: dict(os.environ)).values()
            assert seen["MY_PLACE"] == "here"
            assert seen["PYTHONSAFEPATH"] == "1"
            family = [psutil.Process(process.pid), *below(process)]
            for member in family:
                assert "secret" not in member.environ().values(), member.cmdline()
            process.kill()
            gone, alive = psutil.wait_procs(family[1:], 5)
            assert alive == [], alive
            assert len(gone) >= 2  # at least the nanny and its worker
        reach(lambda: names(client) == set())


def test_only_what_is_named_passes_into_the_environment_of_workers() -> None:
    before = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "PYTHONPATH": "/here",
        "XRD_REQUESTTIMEOUT": "5",
        "GH_TOKEN": "x",
    }
    assert scrubbed(before, ()).keys() == {
        "PATH",
        "LC_ALL",
        "XRD_REQUESTTIMEOUT",
        "PYTHONSAFEPATH",
        "PYTHONUNBUFFERED",
    }
    assert scrubbed(before, ["PYTHON*"])["PYTHONPATH"] == "/here"


def test_workers_share_the_memory_that_is_given_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    options = parser().parse_args(
        ["tls://h:1", "--memory", "16GB", "--memory-limit", "1GB", "--nworkers", "4"]
    )
    words = command(options, Path("/own"))
    assert words[words.index("--local-directory") + 1] == "/own"
    assert words[words.index("--memory-limit") + 1] == str((16_000_000_000 - 200_000_000) // 4)
    with pytest.raises(SystemExit):
        parser().parse_args(["tls://h:1", "--memory", "much"])
    assert "not a number of bytes" in capsys.readouterr().err


def test_the_help_has_examples_that_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help"])
    text = capsys.readouterr().out.split("examples:")[1].split("\n\n")[0].replace("\\\n", " ")
    lines = [line.split("binworks.deploy.worker ")[1] for line in text.strip().splitlines()]
    assert [parser().parse_args(line.split()).nworkers for line in lines] == [1, 8]


STRANGERS = """
import ctypes, subprocess, sys, time
from pathlib import Path
from binworks.deploy.keeper import Supervisor
ctypes.CDLL(None).prctl(36, 1)  # orphans come to this process, as to the first one of a container
keeper = Supervisor("own", [sys.executable, "-c", "raise SystemExit(7)"], {"PATH": "/usr/bin:/bin"})
done = subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], stdout=subprocess.PIPE, text=True)
orphan = Path("/proc", done.stdout.strip())
time.sleep(0.5)
assert "zombie" in Path(orphan, "status").read_text()
keeper.start()
end = time.monotonic() + 20
while keeper.restarts < 2:
    keeper.reap_strangers()
    assert time.monotonic() < end
assert keeper.exit_code == 7, keeper.exit_code
assert not orphan.exists()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to another process")
def test_the_first_process_of_a_container_buries_strangers_and_learns_how_its_own_ended() -> None:
    subprocess.run([sys.executable, "-c", STRANGERS], check=True, timeout=60)


def test_a_process_that_is_to_retire_ends_by_itself_and_is_not_started_again(tmp_path: Path) -> None:
    keeper = Keeper("brief", [sys.executable, "-c", "import time; time.sleep(1.5)"], tmp_path)
    keeper.start()
    reach(lambda: keeper.alive)
    keeper.retire()
    assert keeper.alive
    keeper.join(20)
    assert (keeper.exit_code, keeper.restarts) == (0, 0)
    assert isinstance(keeper, Supervisor)


def test_a_process_for_which_there_is_no_room_is_started_later(tmp_path: Path) -> None:
    (tmp_path / "logs").touch()  # no folder
    keeper = Keeper("late", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "logs")
    keeper.start()
    reach(lambda: keeper.restarts)
    assert not keeper.alive
    (tmp_path / "logs").unlink()
    reach(lambda: keeper.alive)
    keeper.stop()


def test_the_scheduler_sees_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    keeper = scheduler(tmp_path, host=LOOPBACK, port=choose_port(LOOPBACK, 0), dashboard_port=0)
    try:
        reach(lambda: keeper.alive)
        assert "secret" not in psutil.Process(keeper.pid).environ().values()
    finally:
        keeper.stop()


def test_the_folders_of_killed_hosts_are_removed_by_the_next_one_and_nobody_elses(tmp_path: Path) -> None:
    left, young, other = (tmp_path / name for name in ("own-left", "own-young", "other-left"))
    for folder in (left, young, other):
        folder.mkdir()
        (folder / "lock").touch()
    for folder in (left, other):
        os.utime(folder, (0, 0))
    with private_folder(tmp_path, "own-") as used:
        os.utime(used, (0, 0))
        with private_folder(tmp_path, "own-") as mine:
            assert mine.stat().st_mode & 0o077 == 0
            assert set(tmp_path.iterdir()) == {used, mine, young, other}
    assert set(tmp_path.iterdir()) == {young, other}


# kernels

KERNELS = """
import json, sys
from binworks.service.warm import load_kernels
from binworks.tensors.kernels import clip_ratio, delta_phi
loaded = load_kernels()
values = [float(kernel(*arguments)) for kernel, arguments in ((clip_ratio, (11.0,)), (delta_phi, (1.0, 2.0)))]
hits = sum(sum(kernel.stats.cache_hits.values()) for kernel in (clip_ratio, delta_phi))
print(json.dumps([loaded, hits, values]))
"""


def test_a_worker_that_starts_has_the_kernels_that_its_machine_compiled_before(tmp_path: Path) -> None:
    environment = {**os.environ, "BINWORKS_KERNEL_CACHE": str(tmp_path)}
    told = [
        json.loads(subprocess.check_output([sys.executable, "-c", KERNELS], env=environment, timeout=120))
        for _ in range(2)
    ]
    assert told == [[0, 0, [10.0, -1.0]], [2, 2, [10.0, -1.0]]]


class Slow(CacheFile):
    """A cache file whose process is overtaken by another one between two of its steps."""

    overtaking: tuple[str, str] | None = None

    def _save_data(self, name: str, data: object) -> None:
        if self.overtaking:
            CacheFile(self._cache_path, "kernel", "stamp").save(*self.overtaking)
        super()._save_data(name, data)


def test_two_workers_that_compile_at_the_same_time_do_not_swap_their_code(tmp_path: Path) -> None:
    slow = Slow(str(tmp_path), "kernel", "stamp")
    slow.overtaking = ("signature of B", "code of B")
    slow.save("signature of A", "code of A")
    fresh = CacheFile(str(tmp_path), "kernel", "stamp")
    assert fresh.load("signature of A") == "code of A"
    assert fresh.load("signature of B") in ("code of B", None)


# in a service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    places = {"data_roots": (str(home),), "snapshot_seconds": 1.0}
    with registered(home / "toys"), service_toys.service(home / "home", workers=2, **places) as service:
        yield service


def test_workers_that_drain_one_after_the_other_and_the_last_one_too_lose_no_unit(
    running: Running, tmp_path: Path
) -> None:
    files = write_all(running.settings.home.parent / "rolled", 5, 8000)
    journal, backend = tmp_path / "journal", running.service.backend
    job = running.submit({"D": files}, options={"pause": 0.3, "journal": str(journal)}).id

    def go_on(units: int) -> None:
        done = running.jobs.get(job).counts.units.done
        running.until(job, lambda view: view.counts.units.done >= done + units)

    go_on(2)
    for keeper in list(backend.workers):  # each is started again by the back end
        restarts = keeper.restarts
        os.kill(keeper.pid, signal.SIGTERM)
        reach(lambda keeper=keeper, restarts=restarts: keeper.restarts > restarts)
        go_on(4)
    running.service.workforce.ask(Bounds(1, 1))
    go_on(4)
    os.kill(backend.workers[0].pid, signal.SIGTERM)
    view = running.wait(job, 90)
    assert view.complete
    fills = read(journal)
    assert redone(fills) == []
    assert len(fills) == len(running.units(job)) == 40
    assert len({fill.worker for fill in fills}) >= 4
    assert {unit.attempts for unit in running.units(job)} == {1}


@pytest.mark.slow
def test_the_benchmark_measures_starts_drains_and_scaling(
    running: Running, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    scaling = importlib.import_module("scaling")
    files = list(write_all(running.settings.home.parent / "bench", 4, 2000))

    def asked(number: int) -> dict[str, Any]:
        options = {"pause": 0.3, "tag": str(number)}
        return {"processor": "toy", "options": options, "datasets": [{"name": "D", "files": files}]}

    bench = scaling.Bench(running, 8000, asked)
    figures = scaling.starts(bench, tmp_path, 100, rounds=1) + scaling.scaling(bench, 4, order=(1, 2))
    values = {figure.name.strip(): figure.value for figure in figures}
    assert values["worker start to first unit, kernels on disk"] > 1
    assert values["drain of a worker with units of a second"] > 0.3
    assert values["units begun again by drains"] == 0
    assert values["two workers over one"] > 0
    assert [figure.goal for figure in figures if figure.goal is not None] == [10, 0, 1.9]
