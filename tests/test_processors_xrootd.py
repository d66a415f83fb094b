"""Files of a real XRootD server: the same bits as from the disk, and every way in which a server can fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_nano
import xrootd_reader
import xrootd_server
from xrootd_server import Server

from binworks.processors.sources import XROOTD_ENVIRONMENT

REASON = xrootd_server.why_not()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no XRootD server can be started: {REASON}"),
    pytest.mark.faults,
]

IMPATIENT = {
    "connectionwindow": 3,
    "connectionretry": 2,
    "requesttimeout": 4,
    "streamtimeout": 4,
    "timeoutresolution": 1,
    "streamerrorwindow": 0,
}
SLACK = 12.0
"""Seconds that a busy machine may add."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with xrootd_server.serving() as running:
        yield running


@pytest.fixture
def own() -> Iterator[Server]:
    with xrootd_server.serving() as running:
        yield running


def write(server: Server, name: str, n: int = 1200) -> Path:
    return small_nano.write(server.data / name, small_nano.events(n, 1))


def digest(path: Path, start: int, stop: int) -> str:
    found = xrootd_reader.answer({}, str(path), start, stop)
    return str(found["digest"])


@pytest.mark.parametrize("name", ["tree.root", "ntuple.rntuple.root"])
def test_a_server_gives_the_bits_of_the_disk(name: str, server: Server) -> None:
    path = write(server, name)
    with server.reader(**IMPATIENT) as reader:
        for start, stop in ((0, 1200), (450, 777), (777, 1200), (5, 5)):
            assert reader.read(server.url(name), start, stop)["digest"] == digest(path, start, stop)


def test_a_chunk_costs_one_request(server: Server) -> None:
    write(server, "one.root")
    code = f"""
import json, xrootd_reader
from binworks.processors import reading
url = {server.url("one.root")!r}
facts = reading.inspect(url)
source = reading._open(url, facts.uuid).source
requests, fetch = [], source._fetch
source._fetch = lambda pieces, fetched: (requests.append(len(pieces)), fetch(pieces, fetched))
source._file.read = None
reading.read(url, facts.uuid, xrootd_reader.FIELDS, 0, 1200)
print(json.dumps(requests))
"""
    assert len(server.run(f"import sys; sys.path.insert(0, {str(xrootd_server.HERE)!r})\n{code}")) == 1


def test_coffea_sees_the_events_of_a_server(server: Server) -> None:
    path = write(server, "coffea.root")
    code = """
import awkward, json
from binworks.processors import reading
path = {!r}
events = reading.nanoevents(path, reading.inspect(path).uuid, 450, 777, {{}})
print(json.dumps([awkward.num(events.Muon.pt).tolist(), awkward.flatten(events.Muon.eta).tolist()]))
"""
    assert server.run(code.format(server.url("coffea.root"))) == server.run(code.format(str(path)))


def bad_file(server: Server, kind: str) -> Path:
    path = write(server, f"{kind}.root")
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        os.truncate(path, path.stat().st_size - 20_000)
    elif kind == "not-root":
        path.write_text("this is a log file, not a histogram")
    elif kind == "forbidden":
        path.chmod(0)
    elif kind == "damaged":
        text = bytearray(path.read_bytes())
        text[len(text) // 4 : 3 * len(text) // 4] = bytes(3 * len(text) // 4 - len(text) // 4)
        path.write_bytes(bytes(text))
    return path


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("missing", "missing-file"),
        ("truncated", "truncated-file"),
        ("not-root", "not-root"),
        ("forbidden", "unreadable-file"),
        ("damaged", "corrupt-file"),
    ],
)
def test_a_bad_file_is_an_input_error_with_its_address(kind: str, code: str, server: Server) -> None:
    bad_file(server, kind)
    with server.reader(**IMPATIENT) as reader:
        found = reader.read(server.url(f"{kind}.root"), 0, 1200)
    assert (found["error"], found["code"]) == ("InputError", code), found
    assert server.url(f"{kind}.root") in found["message"]
    assert found["seconds"] < SLACK


def test_a_file_that_is_cut_while_it_is_read_is_corrupt(server: Server) -> None:
    path = write(server, "cut.root")
    with server.reader(**IMPATIENT) as reader:
        assert "digest" in reader.read(server.url("cut.root"), 0, 500)
        os.truncate(path, 2000)
        found = reader.read(server.url("cut.root"), 500, 1200)
    assert (found["error"], found["code"]) == ("InputError", "corrupt-file"), found


def test_a_file_that_was_replaced_is_refused(server: Server) -> None:
    path = write(server, "new.root")
    with server.reader(**IMPATIENT) as reader:
        assert "digest" in reader.read(server.url("new.root"), 0, 500)
    other = write(server, "other.root")
    code = f"""
import json
from binworks.processors import reading
from binworks.tensors.errors import InputError
facts = reading.inspect({server.url("new.root")!r})
reading.close_files()
import shutil
shutil.copy({str(other)!r}, {str(path)!r})
try:
    reading.read({server.url("new.root")!r}, facts.uuid, (), 0, 10)
except InputError as error:
    print(json.dumps(error.code))
"""
    assert server.run(code) == "file-changed"


def test_a_server_killed_while_a_file_is_read_is_a_passing_failure(own: Server) -> None:
    path = write(own, "f.root")
    url = own.url("f.root")
    with own.reader(**IMPATIENT) as reader:
        assert reader.read(url, 0, 500)["digest"] == digest(path, 0, 500)
        own.signal(signal.SIGKILL)
        for _ in range(2):
            found = reader.read(url, 500, 1200)
            assert (found["error"], found["code"]) == ("TransientError", "server-timeout"), found
            assert found["seconds"] < 2 * 3 + SLACK
        own.start()
        found = reader.read(url, 500, 1200)
        assert found.get("digest") == digest(path, 500, 1200), found


def test_a_server_that_hangs_is_given_up_in_time_and_found_again(own: Server) -> None:
    path = write(own, "f.root")
    url = own.url("f.root")
    with own.reader(**IMPATIENT) as reader:
        assert reader.read(url, 0, 500)["digest"] == digest(path, 0, 500)
        own.signal(signal.SIGSTOP)
        found = reader.read(url, 500, 1200)
        own.signal(signal.SIGCONT)
        assert (found["error"], found["code"]) == ("TransientError", "server-timeout"), found
        assert found["seconds"] < 4 + 4 + SLACK
        assert reader.read(url, 500, 1200)["digest"] == digest(path, 500, 1200)


def test_no_server_at_all_is_a_passing_failure(server: Server) -> None:
    with server.reader(**IMPATIENT) as reader:
        found = reader.read("root://127.0.0.1:9//data/f.root", 0, 10)
    assert (found["error"], found["code"]) == ("TransientError", "server-timeout"), found
    assert found["seconds"] < 2 * 3 + SLACK


def test_the_library_is_loaded_with_our_patience_unless_the_user_has_set_his(server: Server) -> None:
    code = """
import json
from binworks.processors.sources import _client
client, _ = _client()
names = ["ConnectionWindow", "ConnectionRetry", "RequestTimeout", "StreamTimeout", "TimeoutResolution"]
names.append("StreamErrorWindow")
print(json.dumps({f"XRD_{name.upper()}": str(client.EnvGetInt(name)) for name in names}))
"""
    assert server.run(code) == dict(XROOTD_ENVIRONMENT)
    assert server.run(code, requesttimeout=7) == {**XROOTD_ENVIRONMENT, "XRD_REQUESTTIMEOUT": "7"}


def test_large_pieces_are_cut_for_the_server_and_near_ones_are_joined() -> None:
    from binworks.processors import sources

    assert sources._joined([(10_000, 5), (0, 100), (20_000_000, 7)]) == [(0, 10_005), (20_000_000, 7)]
    size = 5 * sources.PIECE_BYTES + 1
    pieces = list(sources._pieces(3, size))
    assert (pieces[0], len(pieces), pieces[-1][1]) == ((3, sources.PIECE_BYTES), 6, 1)
    assert sum(length for _, length in pieces) == size
    requests = list(sources._requests([(i, sources.PIECE_BYTES) for i in range(40)]))
    assert [len(request) for request in requests] == [15, 15, 10]
    assert [len(request) for request in sources._requests([(i, 1) for i in range(2000)])] == [1024, 976]
