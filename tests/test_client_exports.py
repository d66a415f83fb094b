"""What the client downloads is whole and checked, and goes on where it was; histograms have variation axes."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hist
import numpy as np
import pytest
import typer
from hand_made_service import GROUPS, ApiProcess, Served, free_port
from test_client_cli import BINWORKS, ask, document, run

from binworks.client import Client, Export
from binworks.client.address import Address
from binworks.client.cli import COMMANDS, build
from binworks.client.download import fetch
from binworks.client.transport import Transport
from binworks.tensors.card import Card, Channel
from binworks.tensors.errors import BinworksError, ConflictError, RequestError, TransientError
from binworks.tensors.fitbuild import from_tensor

pytest_plugins = ["served_fixture"]
CARD = Card(systematics=("mass",))
CONTENT = bytes(range(256)) * 20_000


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with served.client() as client:
        yield client


# exports


def test_an_export_is_made_and_downloaded_once_it_is_asked_for(
    served: Served, client: Client, tmp_path: Path
) -> None:
    told: list[tuple[str, float, float]] = []
    job = client.job(served.job)
    found = job.export("rabbit", tmp_path, card=CARD, progress=lambda *how: told.append(how))
    assert isinstance(found, Export)
    assert found.path == tmp_path / f"{served.job}-1-rabbit.hdf5"
    assert hashlib.sha256(found.path.read_bytes()).hexdigest() == found.sha256
    assert found.bytes == found.path.stat().st_size
    assert told[-1] == ("downloading", found.bytes, found.bytes)
    assert [path.name for path in tmp_path.iterdir()] == [found.path.name]
    again = job.export("rabbit", tmp_path / "again.hdf5", card={"systematics": ["mass"]})
    assert again.id == found.id
    assert found.id in [export.id for export in job.exports()]
    shown = found._repr_html_()
    assert all(text in shown for text in (found.id, "ready", str(found.path)))


def test_why_an_export_failed_is_raised(served: Served, client: Client, tmp_path: Path) -> None:
    with pytest.raises(BinworksError) as error:
        client.job(served.job).export("rabbit", tmp_path, card=Card(systematics=("nosuch",)))
    assert error.value.code == "unknown-systematic"
    assert list(tmp_path.iterdir()) == []


def test_export_on_the_command_line(served: Served, tmp_path: Path) -> None:
    card, target = tmp_path / "card.json", tmp_path / "w.hdf5"
    card.write_text(json.dumps({"systematics": ["mass"]}))
    arguments = ("export", served.job, "--format", "rabbit", "--card", str(card), "--out", str(target))
    facts = document(served, *arguments)
    assert (facts["file"], facts["bytes"]) == (str(target), target.stat().st_size)
    assert facts["sha256"] in ask(served, *arguments)
    assert facts["id"] in ask(served, "exports", served.job)
    assert facts["id"] in [one["id"] for one in document(served, "exports", served.job)]
    environment = {"BINWORKS_URL": served.url, "BINWORKS_TOKEN": served.made.tokens["alice"]}
    wrong = run("export", served.job, "--format", "rabit", code=2, **environment)
    assert "Did you mean rabbit" in wrong.stderr
    card.write_text(json.dumps({"data": "observed", "colour": 1}))
    assert "body.card.colour" in run(*arguments, code=2, **environment).stderr


# downloads that are cut short


class Cutting(BaseHTTPRequestHandler):
    """Sends a file in pieces of a megabyte, and then hangs up; counts what it sent."""

    content = CONTENT
    piece = 1_000_000
    asked: list[str]
    lie = False

    def do_HEAD(self) -> None:
        self._head(200, len(self.content))

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        self.asked.append(self.headers.get("Range", ""))
        if self.headers.get("If-Range") != self._tag():
            start = 0
        self._head(206 if start else 200, len(self.content) - start)
        sent = self.content[start : start + self.piece]
        self.wfile.write(b"!" * len(sent) if self.lie else sent)
        self.wfile.flush()
        self.close_connection = True

    def _tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()}"'

    def _head(self, status: int, length: int) -> None:
        digest = base64.b64encode(hashlib.sha256(self.content).digest()).decode()
        self.send_response(status)
        self.send_header("ETag", self._tag())
        self.send_header("Repr-Digest", f"sha-256=:{digest}:")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def serving(**facts: Any) -> Iterator[tuple[Transport, type[Cutting]]]:
    handler = type("Handler", (Cutting,), {"asked": [], **facts})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        transport = Transport(Address(f"http://127.0.0.1:{server.server_port}", None))
        try:
            yield transport, handler
        finally:
            transport.close()
            server.shutdown()


def test_a_download_goes_on_over_lost_connections(tmp_path: Path) -> None:
    target, told = tmp_path / "file", list[int]()
    with serving() as (transport, handler):
        found = fetch(transport, "/file", target, lambda done, _size: told.append(done))
    assert (target.read_bytes(), found) == (CONTENT, hashlib.sha256(CONTENT).hexdigest())
    assert handler.asked == [f"bytes={start}-" for start in range(0, len(CONTENT), handler.piece)]
    assert told == sorted(told)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_download_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    script = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from binworks.client.address import Address\n"
        "from binworks.client.download import fetch\n"
        "from binworks.client.transport import Transport\n"
        "def told(done, _size):\n"
        "    if done > 2_500_000: os.kill(os.getpid(), signal.SIGKILL)\n"
        "fetch(Transport(Address(sys.argv[1], None)), '/file', Path(sys.argv[2]), told)\n"
    )
    with serving() as (transport, handler):
        url = transport.address.url
        killed = subprocess.run([sys.executable, "-c", script, url, str(target)])
        assert killed.returncode == -9
        assert target.read_text() == "old"
        handler.asked.clear()
        fetch(transport, "/file", target)
    assert target.read_bytes() == CONTENT
    assert int(handler.asked[0][6:-1]) >= 2_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_half_of_another_version_is_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / f".file.{'0' * 16}.part").write_bytes(b"another")
    with serving() as (transport, _):
        fetch(transport, "/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_wrong_bytes_are_refused_and_not_kept(tmp_path: Path) -> None:
    with serving(lie=True) as (transport, _), pytest.raises(TransientError) as error:
        fetch(transport, "/file", tmp_path / "file")
    assert error.value.code == "damaged-download"
    assert list(tmp_path.iterdir()) == []


def test_two_downloads_to_one_place_do_not_mix(tmp_path: Path) -> None:
    part = tmp_path / f".file.{hashlib.sha256(CONTENT).hexdigest()[:16]}.part"
    with serving() as (transport, _), part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConflictError) as error:
            fetch(transport, "/file", tmp_path / "file")
    assert error.value.code == "download-running"


def test_a_download_outlives_a_restart_of_the_service(served: Served, tmp_path: Path) -> None:
    home = served.made.settings.home
    with served.client() as client:
        export = client.job(served.job).export("uhi-zip", tmp_path / "first", card=CARD)
    with ApiProcess(home, free_port()) as api:
        transport = Transport(Address(api.url, served.made.tokens["alice"]))
        restarted: list[threading.Thread] = []

        def told(done: int, size: int) -> None:
            if done and not restarted:
                api.kill()
                restarted.append(threading.Thread(target=api.start))
                restarted[0].start()

        path = f"/v1/jobs/{served.job}/exports/{export.id}/file"
        assert fetch(transport, path, tmp_path / "second", told) == export.sha256
        restarted[0].join()
        transport.close()
        api.stop()


# a service that wants a pause


@pytest.mark.parametrize(("said", "asked"), [("1", 2), ("3600", 1), (None, 1)])
def test_a_limit_that_says_when_is_waited_for(said: str | None, asked: int) -> None:
    seen: list[float] = []

    class Limiting(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(time.monotonic())
            self.send_response(200 if len(seen) > 1 else 429)
            if len(seen) == 1 and said:
                self.send_header("Retry-After", said)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Limiting) as server:
        threading.Thread(target=server.serve_forever).start()
        with Client(f"http://127.0.0.1:{server.server_port}", "x") as client:
            if asked == 2:
                assert client.processors() == []
                assert seen[1] - seen[0] >= 1.0
            else:
                with pytest.raises(RequestError):
                    client.processors()
        server.shutdown()
    assert len(seen) == asked


# histograms, tensors, zarr


def test_variations_are_an_axis_after_nominal(served: Served, client: Client) -> None:
    sums = served.sums["Wplusmunu"].histograms
    wanted = ["wide3Up", "massShiftW100MeVUp", "wide1Up"]
    found = client.histogram(served.job, "Wplusmunu", variations=wanted)
    assert isinstance(found, hist.Hist)
    assert list(found.axes["variation"]) == ["nominal", *wanted]
    assert [axis.name for axis in found.axes[1:]] == ["eta", "pt", "charge", "mt", "relIso"]
    assert np.array_equal(found["nominal", ...].values(), sums["nominal"].values)
    for group in GROUPS:
        whole = client.histogram(client.job(served.job), "Wplusmunu", group=group.name)
        assert list(whole.axes["variation"]) == ["nominal", *group.expansion.variations]
        expected = group.expansion.expand(sums["nominal"], sums[group.name])
        assert np.array_equal(whole.values()[1:], expected)
        for name in set(wanted) & set(group.expansion.variations):
            assert np.array_equal(found[name, ...].values(), whole[name, ...].values())
    assert found.metadata["job"] == served.job
    assert client.histogram(served.job, "Wplusmunu") == sums["nominal"].to_hist()
    assert client.histogram(served.job, "Wplusmunu", "mass") == sums["mass"].to_hist()


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"variations": ["nosuch"]}, "unknown-variation"),
        ({"group": "nosuch"}, "unknown-systematic"),
        ({"group": "mass", "variations": []}, "invalid-request"),
        ({"name": "mass", "group": "mass"}, "unknown-variation"),
    ],
)
def test_variations_that_are_not_there_are_named(
    served: Served, client: Client, wish: dict[str, Any], code: str
) -> None:
    with pytest.raises(RequestError) as error:
        client.histogram(served.job, "Wplusmunu", **wish)
    assert error.value.code == code


def test_a_part_has_the_bits_of_the_whole_whoever_cuts(
    served: Served, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = client.job(served.job).snapshot()
    part: dict[str, int | tuple[int, int]] = {"mt": 2, "relIso": 0, "pt": (3, 9)}
    by_service = snapshot.sums("Wplusmunu", "mass", select=part)
    assert client._transport.can("select")
    monkeypatch.setattr(client._transport, "_capabilities", frozenset())
    by_client = snapshot.sums("Wplusmunu", "mass", select=part)
    assert by_service.axes == by_client.axes
    assert np.array_equal(by_service.values, by_client.values)
    assert snapshot.axes("Wplusmunu") == served.sums["Wplusmunu"].histograms["nominal"].axes


def test_a_fit_input_is_that_of_the_tensor(served: Served, client: Client) -> None:
    fit = client.fit_input(served.job)
    tensor = client.tensor(served.job)
    expected = from_tensor(tensor)
    assert fit.parameters == expected.parameters
    assert np.array_equal(fit.channels[0].nominal, expected.channels[0].nominal)
    assert np.array_equal(fit.channels[0].data, tensor.data.ravel())
    two = Card(channels=(Channel(name="a"), Channel(name="b", job=served.job, select={"mt": 1, "relIso": 0})))
    assert [channel.name for channel in client.fit_input(served.job, two).channels] == ["a", "b"]


def test_a_zarr_group_is_open_with_the_token(served: Served, client: Client) -> None:
    group = client.open_zarr(served.job)
    stored = served.sums["Wminusmunu"].histograms["wide"]
    assert np.array_equal(group["Wminusmunu/wide/values"][..., 5], stored.values[..., 5])  # type: ignore[index]
    assert set(group["Wminusmunu"].group_keys()) == set(served.sums["Wminusmunu"].histograms)  # type: ignore[union-attr]
    assert client.open_zarr(client.job(served.job), 1).attrs["job"] == served.job
    with pytest.raises(FileNotFoundError):
        client.open_zarr(served.job, 99)


def test_a_notebook_shows_them(served: Served, client: Client) -> None:
    job = client.job(served.job)
    shown = job.snapshot()._repr_html_()
    assert all(text in shown for text in ("Wplusmunu", "8,000", "wide", "complete"))
    assert "succeeded" in job.status()._repr_html_() == job._repr_html_()


# the shell


def proposals(served: Served, line: str, **environment: str) -> list[str]:
    """Return what bash proposes at the end of a line."""
    words = line.split(" ")
    done = subprocess.run(
        [BINWORKS],
        env={
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "BINWORKS_URL": served.url,
            "BINWORKS_TOKEN": served.made.tokens["alice"],
            "_BINWORKS_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("binworks exp", ["export", "exports"]),
        ("binworks export JOB --format rab", ["rabbit", "rabbit-sparse"]),
        ("binworks submit --processor w_", ["w_mass"]),
        ("binworks submit -d Wp", ["Wplusmunu"]),
        ("binworks export --all", ["--allow-partial"]),
    ],
)
def test_the_shell_proposes_what_there_is(served: Served, line: str, expected: list[str]) -> None:
    assert proposals(served, line) == expected


@pytest.mark.parametrize("command", ["status", "export", "pull", "watch", "delete"])
def test_the_shell_proposes_jobs(served: Served, command: str) -> None:
    newest = served.made.submit()  # the newest are proposed, and other tests submit as well
    assert newest in proposals(served, f"binworks {command} {newest[:2]}")


def test_the_shell_is_not_kept_waiting_by_a_service_that_is_not_there(served: Served) -> None:
    begin = time.monotonic()
    assert proposals(served, "binworks status a", BINWORKS_URL=f"http://127.0.0.1:{free_port()}") == []
    assert proposals(served, "binworks status a", BINWORKS_TOKEN="wrong") == []
    assert time.monotonic() - begin < 60


def test_completion_is_installed_for_a_shell(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [BINWORKS, "--install-completion", "bash"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_BINWORKS_COMPLETE=complete_bash" in text for text in written)


def test_every_command_that_answers_can_do_so_in_json() -> None:
    def options(command: Any) -> set[str]:
        return {option for parameter in command.params for option in parameter.opts}

    for name in COMMANDS:
        command: Any = typer.main.get_command(build([name])).commands[name]  # type: ignore[attr-defined]
        below = getattr(command, "commands", {}).values()
        acting = [command] if not below or "--json" in options(command) else below
        assert all("--json" in options(one) for one in acting), name


def test_the_cards_of_the_documentation_are_cards(root: Path) -> None:
    blocks = re.findall(r"```json\n(.*?)```", (root / "docs/howto/fit.md").read_text(), re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        Card.read(json.loads(block))
