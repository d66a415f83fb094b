"""Nothing leaks: no path leads out, no token is written down, no other's job is there, no answer lacks its headers."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hand_made_service import Served
from sqlalchemy import select, update

from binworks.service import layout
from binworks.service.database import jobs

pytest_plugins = ["served_fixture"]

OPEN = {"/v1/", "/healthz", "/readyz", "/metrics"}
ESCAPES = [
    "..",
    "../..",
    "../../../../token",
    "%2e%2e/%2e%2e/token",
    "..%2f..%2f..%2ftoken",
    "%252e%252e%252ftoken",
    "..%252f..%252ftoken",
    "..\\..\\token",
    "..%5c..%5ctoken",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "file:///etc/passwd",
    "C:%5cwindows",
    "zarr.json%00",
    "%00",
    "a%0d%0aSet-Cookie:%20x",
    "./zarr.json",
    "x/../zarr.json",
    "zarr.json/",
    "%c0%ae%c0%ae/token",
    "\u2025/token".encode().hex(),
    "~root/token",
]
PAGES = ["", "/live", "/preview", "/preview.png", "/nuisances", "/exports"]
"""Of a job."""
PLACES = [
    "zarr/1/{}",
    "zarr/1/Wplusmunu/{}",
    "zarr/{}/zarr.json",
    "histograms/{}/nominal",
    "histograms/Wplusmunu/{}",
    "histograms/Wplusmunu/{}/preview.png",
    "expansions/{}",
    "exports/{}",
    "exports/{}/file",
    "shares/{}",
]


def plainly(
    served: Served, method: str, path: str, headers: dict[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Send a path as it is: other clients tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", served.made.settings.port, timeout=30)
    connection.request(method, path, headers=headers)
    with connection.getresponse() as answer:
        found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_path_leads_out_of_a_snapshot(served: Served, escape: str) -> None:
    secret = (served.made.settings.home / "catalogue.json").read_bytes()[:40]
    for place in PLACES:
        for job in (served.job, escape):
            path = f"/v1/jobs/{job}/{place.format(escape)}"
            status, headers, body = plainly(served, "GET", path, served.headers("admin"))
            assert status in (404, 422, 405, 409, 307), path
            assert b"root:" not in body
            assert secret not in body
            assert "set-cookie" not in headers
            if status != 307:
                assert json.loads(body)["status"] == status


def operations(served: Served) -> Iterator[tuple[str, str, dict[str, Any]]]:
    document = httpx.get(f"{served.url}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def filled_in(path: str, operation: dict[str, Any], **known: str) -> str:
    """Return a path with values that fit the schema."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            schema, name = parameter["schema"], parameter["name"]
            pattern = schema.get("pattern", "")
            fitting = (text for text in ("nominal", "a" * 8, "0" * 12, "0" * 40) if re.search(pattern, text))
            value = known.get(name, "1" if schema.get("type") == "integer" else next(fitting))
            path = path.replace("{" + name + "}", value)
    return path


def body_of(path: str) -> Any:
    if path.endswith("/exports"):
        return {"format": "pyhf"}
    return {"processor": "w_mass", "datasets": ["Wplusmunu"]} if path.endswith("/jobs") else {}


def test_another_s_job_is_absent_on_every_route(served: Served) -> None:
    known = {
        "job": served.job,
        "dataset": "Wplusmunu",
        "name": "nominal",
        "group": "mass",
        "key": "zarr.json",
    }
    checked = 0
    with served.http("bob") as bob:
        for method, path, operation in operations(served):
            if "{job}" not in path:
                continue
            url = filled_in(path, operation, **known)
            answer = bob.request(method, url, json=body_of(path) if "requestBody" in operation else None)
            assert answer.status_code == 404, (method, url, answer.text)
            assert served.job not in answer.text.replace(url, "") or answer.json()["where"] == served.job
            checked += 1
        for part in PAGES:
            assert bob.get(f"/jobs/{served.job}{part}").status_code == 404, part
        assert served.job not in bob.get("/v1/jobs?limit=200").text
        assert served.job not in bob.get("/").text
    assert checked >= 15
    with served.http() as alice:
        assert alice.get(f"/v1/jobs/{served.job}").json()["state"] == "succeeded"
        for part in PAGES:
            assert alice.get(f"/jobs/{served.job}{part}").status_code == 200, part


def test_every_route_but_a_few_needs_a_token(served: Served) -> None:
    for method, path, operation in operations(served):
        url = filled_in(path, operation, job=served.job)
        expected = {200, 503} if path in OPEN else {401}
        for headers in ({}, {"Authorization": "Bearer bw_wrong"}, served.headers("expired")):
            answer = httpx.request(method, served.url + url, headers=headers, json=body_of(path))
            assert answer.status_code in expected, (method, url, answer.text)


def test_a_token_that_only_reads_changes_nothing(served: Served) -> None:
    with served.http("reader") as http_:
        for method, path, operation in operations(served):
            if method in ("GET", "HEAD") or path.endswith("/exports"):  # an export changes no job
                continue
            answer = http_.request(method, filled_in(path, operation, job=served.job), json=body_of(path))
            assert (answer.status_code, answer.json()["code"]) == (403, "missing-scope"), path


@pytest.mark.parametrize(
    ("method", "path", "status", "given"),
    [
        ("GET", "/v1/jobs", 200, {}),
        ("GET", "/v1/jobs", 401, {"Authorization": ""}),
        ("GET", "/v1/usage?owner=bob", 403, {}),
        ("GET", "/v1/nothing", 404, {}),
        ("PATCH", "/v1/jobs", 405, {}),
        ("POST", "/v1/jobs", 422, {}),
        ("POST", "/v1/jobs", 413, {"Content-Length": "999999999"}),
        ("GET", "/v1/jobs", 421, {"Host": "evil.example.org"}),
        ("GET", "/v1/jobs/{job}", 200, {}),
        ("GET", "/v1/jobs/{job}/events", 200, {}),
        ("GET", "/v1/jobs/{job}/histograms/Wplusmunu/nominal", 406, {"Accept": "image/gif"}),
        ("GET", "/v1/jobs/{job}/histograms/Wplusmunu/nominal", 200, {"Accept": "application/x-npy"}),
        ("HEAD", "/v1/jobs/{job}/zarr/1/zarr.json", 200, {}),
        ("GET", "/v1/jobs/{job}/zarr/1/zarr.json", 206, {"Range": "bytes=0-9"}),
        ("GET", "/v1/jobs/{job}/zarr/1/zarr.json", 304, {"If-None-Match": "*"}),
        ("GET", "/v1/jobs/{job}/zarr/1/zarr.json", 416, {"Range": "bytes=99999999-"}),
        ("GET", "/healthz", 200, {}),
        ("GET", "/metrics", 200, {}),
        ("GET", "/openapi.json", 200, {}),
        ("GET", "/login", 200, {}),
        ("POST", "/login", 401, {}),
        ("POST", "/logout", 303, {}),
        ("GET", "/", 200, {"Accept": "text/html"}),
        ("GET", "/", 303, {"Accept": "text/html", "Authorization": ""}),
        ("GET", "/jobs/{job}", 200, {"Accept": "text/html"}),
        ("GET", "/docs", 200, {}),
        ("GET", "/dask/status", 404, {}),
    ],
)
def test_every_answer_tells_browsers_to_be_careful(
    served: Served, method: str, path: str, status: int, given: dict[str, str]
) -> None:
    headers = {**served.headers(), **given}
    found, told, _ = plainly(served, method, path.replace("{job}", served.job), headers)
    assert found == status
    assert told["x-content-type-options"] == "nosniff"
    assert told["referrer-policy"] == "same-origin"
    assert told["cross-origin-opener-policy"] == told["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in told["permissions-policy"]
    assert "default-src 'none'" in told["content-security-policy"] or path.startswith("/dask")
    assert "frame-ancestors" in told["content-security-policy"]
    assert "unsafe" not in told["content-security-policy"] or path.startswith("/dask")
    stores_nothing = told["cache-control"] == "no-store"
    assert stores_nothing or told["cache-control"].startswith(("private", "no-cache")) or status == 304
    assert "server" not in told


def test_a_mistake_of_ours_is_answered_with_care_too(served: Served) -> None:
    job, database = served.made.submit(), served.made.database
    path = f"/v1/jobs/{job}"
    with database.write() as connection:
        kept = connection.execute(select(jobs.c.resolved).where(jobs.c.id == job)).scalar_one()
        connection.execute(update(jobs).where(jobs.c.id == job).values(resolved=["precious"]))
    try:
        status, told, body = plainly(served, "GET", path, served.headers())
    finally:
        with database.write() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job).values(resolved=kept))
    check_care(status, told, body, 500, "internal")
    assert json.loads(body)["where"].startswith("incident ")


def test_damage_is_answered_with_care_too(served: Served) -> None:
    job = served.made.finished({"SingleMuon": served.sums["SingleMuon"]})
    target = served.made.settings.home / "store" / layout.generation(job, 1) / "zarr.json"
    target.write_bytes(b"\xff\xfe")
    path = f"/v1/jobs/{job}/histograms?generation=1"
    check_care(*plainly(served, "GET", path, served.headers()), 503, "damaged")


def check_care(status: int, told: dict[str, str], body: bytes, expected: int, code: str) -> None:
    """Check an answer to what went wrong on our side."""
    assert (status, json.loads(body)["code"]) == (expected, code)
    assert told["content-type"] == "application/problem+json"
    assert told["x-content-type-options"] == "nosniff"
    assert told["cache-control"] == "no-store"
    for inner in (b"Traceback", b"site-packages", b"precious", b"sqlalchemy"):
        assert inner not in body


def test_no_token_is_written_down_or_told(served: Served) -> None:
    token = served.made.tokens["alice"]
    wrong = "bw_" + "Wr0ng" * 9
    told: list[str] = []
    for secret in (token, wrong):
        tries: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/v1/jobs", {"headers": {"Authorization": f"Bearer {secret}"}}),
            ("GET", "/v1/nothing", {"headers": {"Authorization": f"Basic {secret}"}}),
            ("GET", f"/v1/jobs/{served.job}/events", {"headers": {"Authorization": f"Bearer {secret}"}}),
            ("GET", f"/v1/jobs?cursor={secret}", {"headers": served.headers("bob")}),
            ("GET", f"/v1/jobs?token={secret}&limit=x", {"headers": served.headers("bob")}),
            ("GET", f"/v1/tokens/{secret}", {"headers": served.headers("bob")}),
            ("DELETE", f"/v1/jobs/{secret[:39]}", {"headers": served.headers("bob")}),
            ("GET", "/v1/jobs", {"headers": {"Cookie": f"binworks_session={secret}"}}),
            ("POST", "/login", {"data": {"token": secret}}),
            ("POST", "/v1/jobs", {"headers": served.headers("bob"), "json": {"token": secret}}),
            ("POST", "/v1/jobs", {"headers": served.headers("bob"), "content": f'{{"a": "{secret}'}),
            ("POST", "/v1/tokens", {"headers": served.headers("bob"), "json": {"role": secret}}),
        ]
        for method, path, given in tries:
            answer = httpx.request(method, served.url + path, **given)
            told.append(answer.text.replace(path, ""))
            assert answer.status_code < 500
    for user in ("alice", "admin"):
        with served.http(user) as http_:
            told += [http_.get(path).text for path in ("/v1/tokens", "/v1/", "/metrics", "/", "/v1/usage")]
    written = {path: path.read_bytes() for path in served.made.settings.home.rglob("*") if path.is_file()}
    assert any(path.name == "api.log" for path in written)
    for secret in (token, served.made.tokens["admin"], served.made.tokens["bob"], wrong):
        for path, content in written.items():
            assert secret.encode() not in content, path
        assert [text for text in told if secret in text] == []
