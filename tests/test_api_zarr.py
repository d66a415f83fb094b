"""Stored zarr over HTTP: plain clients read it, byte for byte, and nothing else can be reached."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest
import tensorstore
import zarr
from hand_made_service import Served
from obstore.store import HTTPStore
from test_api_jobs import problem
from zarr.storage import ObjectStore

pytest_plugins = ["served_fixture"]

KEY = "Wplusmunu/wide/values/c.0.0.0.0.0.0"


@pytest.fixture(scope="module")
def stored(served: Served) -> bytes:
    """Return the bytes of a shard, more than are answered at once."""
    content = served.made.store.key_path(f"jobs/{served.job}/g/1/{KEY}").read_bytes()
    assert len(content) > 8 << 20
    return content


@pytest.fixture
def web(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"{served.url}/v1/jobs/{served.job}/zarr/1/", headers=served.headers()
    ) as client:
        yield client


def test_a_plain_zarr_client_reads_the_stored_bits(served: Served) -> None:
    group = zarr.open_group(
        f"{served.url}/v1/jobs/{served.job}/zarr/1", mode="r", storage_options={"headers": served.headers()}
    )
    for dataset, sums in served.sums.items():
        assert set(group[dataset].group_keys()) == set(sums.histograms)  # type: ignore[union-attr]
        for name, histogram in sums.histograms.items():
            assert np.array_equal(group[f"{dataset}/{name}/values"][...], histogram.values)  # type: ignore[index]
    column = group["Wplusmunu/wide/values"][..., 3]  # type: ignore[index]
    assert np.array_equal(column, served.sums["Wplusmunu"].histograms["wide"].values[..., 3])
    assert group["Wplusmunu/nominal"].attrs["uhi"]["uhi_schema"] == 1  # type: ignore[index, call-overload]


def test_without_a_token_a_zarr_client_gets_nothing(served: Served) -> None:
    answer = httpx.get(f"{served.url}/v1/jobs/{served.job}/zarr/1/zarr.json")
    problem(answer, 401, "no-token")


def test_the_whole_file_comes_with_a_strong_tag_and_never_changes(web: httpx.Client, stored: bytes) -> None:
    answer = web.get(KEY)
    assert (answer.status_code, answer.content) == (200, stored)
    assert answer.headers["ETag"].startswith('"')
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "immutable" in answer.headers["Cache-Control"]
    assert web.get(KEY, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-163", 100, 164),
        ("bytes=-164", -164, None),
        ("bytes=1000-", 1000, None),
        ("bytes=5-999999999999", 5, None),
        ("bytes=-999999999999", 0, None),
    ],
)
def test_a_range_is_exactly_those_bytes(
    web: httpx.Client, stored: bytes, asked: str, start: int, stop: int | None
) -> None:
    answer = web.get(KEY, headers={"Range": asked})
    expected = stored[start:stop]
    assert answer.status_code == 206
    assert answer.content == expected
    assert int(answer.headers["Content-Length"]) == len(expected)
    first = start if start >= 0 else len(stored) + start
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(stored)}"


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_a_range_behind_the_end_cannot_be_satisfied(web: httpx.Client, stored: bytes, asked: str) -> None:
    answer = web.get(KEY, headers={"Range": asked})
    problem(answer, 416, "range-not-satisfiable")
    assert answer.headers["Content-Range"] == f"bytes */{len(stored)}"


@pytest.mark.parametrize("asked", ["bytes=7-3", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=a-b"])
def test_a_range_that_is_none_gives_the_whole_file(web: httpx.Client, stored: bytes, asked: str) -> None:
    answer = web.get(KEY, headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, len(stored))


def test_if_range_with_another_tag_gives_the_whole_file(web: httpx.Client, stored: bytes) -> None:
    tag = web.head(KEY).headers["ETag"]
    assert web.get(KEY, headers={"Range": "bytes=0-9", "If-Range": tag}).content == stored[:10]
    assert len(web.get(KEY, headers={"Range": "bytes=0-9", "If-Range": '"other"'}).content) == len(stored)


def test_head_says_the_size_and_sends_nothing(web: httpx.Client, stored: bytes) -> None:
    answer = web.head(KEY)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(stored)
    assert web.head("zarr.json").headers["ETag"] != answer.headers["ETag"]
    assert web.head("nothing").status_code == 404


@pytest.mark.parametrize(
    "key", ["", "/", ".zgroup", ".zattrs", ".zmetadata", "Wplusmunu", "Wplusmunu/", "c.0"]
)
def test_what_is_no_stored_file_is_not_found(web: httpx.Client, key: str) -> None:
    assert web.get(key).status_code == 404


@pytest.mark.parametrize("n", ["2", "99", "2147483647"])
def test_a_generation_that_was_not_published_is_not_found(served: Served, n: str) -> None:
    with served.http() as web:
        problem(web.get(f"/v1/jobs/{served.job}/zarr/{n}/zarr.json"), 404, "unknown-generation")


def test_a_generation_that_is_being_written_cannot_be_seen(served: Served) -> None:
    made = served.made
    draft = made.store.key_path(f"jobs/{served.job}/g/5/zarr.json")
    draft.parent.mkdir()
    draft.write_text("{}")
    with served.http() as web:
        problem(web.get(f"/v1/jobs/{served.job}/zarr/5/zarr.json"), 404, "unknown-generation")


def raw(served: Served, target: str) -> tuple[int, bytes]:
    """Send a target as it is; clients of the better sort tidy it up first."""
    parts = urlsplit(served.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    try:
        connection.putrequest("GET", target, skip_host=False)
        for name, value in served.headers().items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


ESCAPES = [
    "../../../../../token",
    "../../m/1.json",
    "../1/zarr.json",
    "%2e%2e/%2e%2e/m/1.json",
    "%2e%2e%2f%2e%2e%2fm%2f1.json",
    "..%5c..%5cm%5c1.json",
    "%252e%252e/m/1.json",
    "Wplusmunu/../../../m/1.json",
    "Wplusmunu/%2e%2e/zarr.json",
    "//etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "./zarr.json",
    "zarr.json%00",
    "file:///etc/passwd",
    "%c0%ae%c0%ae/m/1.json",
    "a" * 300,
    quote("é"),
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_path_leads_out_of_the_snapshot(served: Served, escape: str) -> None:
    status, body = raw(served, f"/v1/jobs/{served.job}/zarr/1/{escape}")
    assert status == 404
    assert json.loads(body)["status"] == 404
    assert b"root:" not in body


def test_the_way_that_is_tried_above_does_reach_stored_files(served: Served) -> None:
    status, body = raw(served, f"/v1/jobs/{served.job}/zarr/1/zarr.json")
    assert (status, json.loads(body)["node_type"]) == (200, "group")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_in_the_store_leads_nowhere(served: Served, tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = served.made.store.key_path(f"jobs/{served.job}/g/1/Wminusmunu")
    link = folder / f"link_{kind}"
    link.symlink_to(tmp_path / "secret" if kind == "file" else tmp_path)
    try:
        key = link.name if kind == "file" else f"{link.name}/secret"
        status, body = raw(served, f"/v1/jobs/{served.job}/zarr/1/Wminusmunu/{key}")
    finally:
        link.unlink()
    assert status == 404
    assert b'"secret"' not in body


def test_obstore_reads_the_stored_bits(served: Served) -> None:
    options: Any = {"default_headers": served.headers(), "allow_http": True}
    web = HTTPStore(f"{served.url}/v1/jobs/{served.job}/zarr/1", client_options=options)
    group = zarr.open_group(ObjectStore(web, read_only=True), mode="r")
    expected = served.sums["Wplusmunu"].histograms
    assert np.array_equal(group["Wplusmunu/nominal/values"][...], expected["nominal"].values)  # type: ignore[index]
    assert np.array_equal(group["Wplusmunu/wide/values"][..., 3], expected["wide"].values[..., 3])  # type: ignore[index]


@pytest.mark.parametrize("name", ["nominal", "wide"])
def test_tensorstore_reads_the_stored_bits(served: Served, name: str) -> None:
    place = {
        "driver": "http",
        "base_url": f"{served.url}/v1/jobs/{served.job}/zarr/1/",
        "path": f"Wplusmunu/{name}/values/",
        "headers": [f"Authorization: {served.headers()['Authorization']}"],
    }
    expected = served.sums["Wplusmunu"].histograms[name].values
    array = tensorstore.open({"driver": "zarr3", "kvstore": place}, read=True).result()
    assert array.shape == expected.shape
    assert np.array_equal(array[..., 1].read().result(), expected[..., 1])
    assert np.array_equal(array.read().result(), expected)
