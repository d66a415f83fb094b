"""Jobs on files of real XRootD servers, through the whole service: kills, freezes, replicas, bad files, credentials."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import service_toys
import small_nano
import xrootd_server
from service_toys import Running, serial
from xrootd_server import Server

from binworks.service.model import JobState, JobView

REASON = xrootd_server.why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no XRootD server can be started: {REASON}"),
    pytest.mark.faults,
]

PATIENCE = {
    "XRD_CONNECTIONWINDOW": "2",
    "XRD_CONNECTIONRETRY": "1",
    "XRD_REQUESTTIMEOUT": "3",
    "XRD_STREAMTIMEOUT": "3",
}
"""Shorter than the service's own, so that the tests are short."""
FROZEN_SECONDS = 3 + 3
"""After which a frozen server is given up with that patience: what is under way, and the look at the clock."""
SLACK = 30.0
"""Seconds that a busy machine may add."""
UNIT = 150_000
"""Events of a unit: three chunks, so that an open file is read again and again."""


@dataclass
class Scene:
    """A service and two servers beside it; ``shared/`` is on both of them."""

    running: Running
    first: Server
    second: Server

    def write(self, name: str, number: int, *others: Server) -> str:
        """Write a file of a unit's events to the first server, and copy it; return its address at the first."""
        path = self.first.data / name
        for server in (self.first, *others):
            (server.data / name).parent.mkdir(exist_ok=True)
        service_toys.write(path, UNIT, first=number * UNIT)
        for server in others:
            shutil.copy(path, server.data / name)
        return self.first.url(name)

    def read(self, view: JobView) -> dict[str, Any]:
        """Return what is expected of a job, made from the files on the disk in this process."""
        _, resolved = self.running.service_ledger().load(view.id)
        expected = {}
        for dataset in resolved.datasets:
            files = tuple(path.replace(self.first.url(""), f"{self.first.data}/") for path in dataset.files)
            folder = self.running.settings.home / "serial" / view.id / dataset.name
            expected[dataset.name] = serial(folder, dataset.model_copy(update={"files": files}), resolved)
        return expected

    def sound(self, job: str, events: int) -> JobView:
        """Wait for a job; it has all events, each once, and the bits of the disk."""
        view = self.running.wait(job, 240)
        assert view.state == JobState.SUCCEEDED, view.error
        assert view.complete
        assert view.counts.events.done == view.counts.events.total == events
        assert sum(dataset.entries for dataset in view.datasets) == events
        assert self.running.digests(job) == self.read(view)
        return view

    def begun(self, journal: Path, fills: int = 1) -> None:
        """Wait until so many chunks are being filled."""
        end = time.monotonic() + 120
        while not journal.exists() or journal.read_text().count("begin") < fills:
            assert time.monotonic() < end, self.running.log()
            time.sleep(0.02)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("service")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in PATIENCE.items():
            patch.setenv(name, value)
        patch.setattr(service_toys, "CLUSTER", 50_000)
        first = stack.enter_context(xrootd_server.serving())
        second = stack.enter_context(xrootd_server.serving(port=xrootd_server.PORT + 1, beside=first))
        stack.enter_context(first.inside())
        stack.enter_context(service_toys.registered(home / "toys"))
        settings = {
            "data_roots": (first.url("").rstrip("/"),),
            "replicas": ((first.url("shared/"), second.url("shared/")),),
            "unit_events": UNIT,
            "backoff_seconds": 0.5,
            "retries": 8,
        }
        running = stack.enter_context(service_toys.service(home / "home", workers=2, **settings))
        yield Scene(running, first, second)


def test_the_w_job_on_a_server_gives_the_bits_of_the_disk(scene: Scene) -> None:
    events = {
        "W": small_nano.events(1500, 1, pdf_members=5),
        "Z": small_nano.events(900, 9, boson="Z", pdf_members=5),
    }
    urls = {}
    for name in events:
        small_nano.write(scene.first.data / f"{name}.root", events[name])
        urls[name] = scene.first.url(f"{name}.root")
    datasets = [
        {"name": "W", "files": [urls["W"]], "boson": "W", "cross_section": 10.0},
        {"name": "Z", "files": [urls["Z"]], "boson": "Z", "cross_section": 1.0, "group": "Zmumu"},
    ]
    asked = {"processor": "w_mass", "options": {"pdf_members": 5}, "luminosity": 7.0, "datasets": datasets}
    scene.sound(scene.running.submit({}, **asked).id, 2400)


def pids(journal: Path) -> set[str]:
    """Return the workers that filled chunks."""
    return {line.split()[3] for line in journal.read_text().splitlines()}


def test_a_server_killed_in_mid_read_costs_no_event_and_its_replica_takes_over(
    scene: Scene, tmp_path: Path
) -> None:
    own = [scene.write(f"own{i}.root", i) for i in range(2)]
    shared = [scene.write(f"shared/f{i}.root", 10 + i, scene.second) for i in range(2)]
    journal = tmp_path / "journal"
    options = {"pause": 0.4, "journal": str(journal)}
    alone = scene.running.submit({"own": own}, options=options).id
    scene.begun(journal, 2)

    scene.first.signal(signal.SIGKILL)
    late = scene.running.submit({"shared": shared}, options=options).id  # when its server is down
    assert scene.sound(late, 2 * UNIT).state == JobState.SUCCEEDED
    assert not scene.running.jobs.get(alone).state.finished
    scene.first.start()
    scene.sound(alone, 2 * UNIT)
    assert all(unit.attempts > 1 for unit in scene.running.units(alone))
    assert (
        len(pids(journal)) <= 2
    )  # the workers that lost their handles went on: a dead one is not used again


def test_a_frozen_server_is_given_up_in_time_and_found_again(scene: Scene, tmp_path: Path) -> None:
    own = scene.write("cold.root", 20)
    shared = scene.write("shared/cold.root", 21, scene.second)
    journal = tmp_path / "journal"
    options = {"pause": 0.4, "journal": str(journal)}
    jobs = [scene.running.submit({"D": [path]}, options=options).id for path in (own, shared)]
    scene.begun(journal, 2)

    scene.first.signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        scene.sound(jobs[1], UNIT)
        seconds = time.monotonic() - begin
    finally:
        scene.first.signal(signal.SIGCONT)
    assert seconds < FROZEN_SECONDS + SLACK
    scene.sound(jobs[0], UNIT)
    assert len(pids(journal)) <= 2


def test_a_file_that_is_missing_or_damaged_at_one_site_is_read_at_the_next(
    scene: Scene, tmp_path: Path
) -> None:
    names = ["shared/gone.root", "shared/short.root", "shared/cut-later.root"]
    gone, short, later = (scene.write(name, 50 + i, scene.second) for i, name in enumerate(names))
    kept = {name: (scene.first.data / name).read_bytes() for name in names}
    (scene.first.data / names[0]).unlink()
    os.truncate(scene.first.data / names[1], 300_000)
    journal = tmp_path / "journal"
    options = {"pause": 0.4, "journal": str(journal)}
    job = scene.running.submit({"D": [later, gone, short]}, options=options).id
    scene.begun(journal)
    os.truncate(scene.first.data / names[2], 300_000)
    view = scene.running.wait(job, 120)
    for name in names:
        (scene.first.data / name).write_bytes(kept[name])
    assert view.missing.events == 0
    scene.sound(job, 3 * UNIT)


def test_bad_files_end_a_job_by_their_addresses_or_are_left_out_exactly(scene: Scene, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    good = [scene.write(f"good{i}.root", 30 + i) for i in range(3)]
    bad = {"missing-file": scene.first.url("missing.root"), "truncated-file": scene.write("cut.root", 40)}
    os.truncate(scene.first.data / "cut.root", 300_000)
    submit = scene.running.submit
    strict = {code: submit({"D": [good[0], path]}).id for code, path in bad.items()}
    skip: dict[str, Any] = {"on_error": {"skip": 0.9}, "options": {"pause": 0.4, "journal": str(journal)}}
    lenient = submit({"D": [*good, *bad.values()]}, **skip).id
    scene.begun(journal, 2)  # the third file is known, and has its turn when the first two are read
    os.truncate(scene.first.data / "good2.root", 300_000)

    for code, job in strict.items():
        view = scene.running.wait(job, 120)
        assert view.state == JobState.FAILED
        assert view.error is not None
        assert (view.error.code, view.error.where) == (code, bad[code])
    view = scene.running.wait(lenient, 120)
    assert view.state == JobState.SUCCEEDED, view.error
    assert not view.complete
    assert (view.counts.events.done, view.counts.events.total) == (2 * UNIT, 3 * UNIT)
    assert [dataset.entries for dataset in view.datasets] == [2 * UNIT]
    assert view.missing.events == UNIT
    named = {file.path: file.error.code for file in view.missing.files}
    assert named == {good[2]: "truncated-file", **{path: code for code, path in bad.items()}}
