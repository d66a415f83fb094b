"""Jobs over REST: durable, once, seen by their owner only; every error a problem document that names the thing."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hand_made_service import HandMade, Served, filled
from sqlalchemy import insert, update

from binworks.api import examples
from binworks.api.app import create_app
from binworks.service.database import files, jobs
from binworks.service.model import JobState, JobView, UnitState, Usage

pytest_plugins = ["served_fixture"]

REQUEST: dict[str, Any] = {"processor": "w_mass", "datasets": ["Wplusmunu"], "corrections": "small"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["code"] == code
    assert document["status"] == status
    assert document["type"].endswith(code)
    return document


def test_a_submitted_job_has_an_address_and_is_listed_first(served: Served) -> None:
    with served.http() as http:
        answer = http.post("/v1/jobs", json=REQUEST)
        assert answer.status_code == 201, answer.text
        job = http.get(answer.headers["Location"]).json()
        assert job["state"] == "queued"
        assert job["request"]["corrections"] == "small"
        assert job["luminosity"] == 100.0
        assert http.get("/v1/jobs").json()["jobs"][0]["id"] == job["id"] == answer.json()["id"]


def test_the_same_idempotency_key_gives_the_same_job_even_when_sent_at_once(served: Served) -> None:
    def send(_: int) -> httpx.Response:
        return httpx.post(
            f"{served.url}/v1/jobs", json=REQUEST, headers={**served.headers(), "Idempotency-Key": "night-7"}
        )

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1


def test_an_idempotency_key_with_another_body_is_refused(served: Served) -> None:
    with served.http() as http:
        headers = {"Idempotency-Key": "morning"}
        first = http.post("/v1/jobs", json=REQUEST, headers=headers).json()
        other = http.post("/v1/jobs", json={**REQUEST, "label": "other"}, headers=headers)
    assert problem(other, 409, "idempotency-key-reused")["where"] == first["id"]


def test_two_owners_may_use_the_same_idempotency_key(served: Served) -> None:
    ids = set()
    for user in ("alice", "bob"):
        with served.http(user) as http:
            answer = http.post("/v1/jobs", json=REQUEST, headers={"Idempotency-Key": "shared"})
            ids.add(answer.json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"processor": "w_mas"}, "unknown-processor", "w_mass"),
        ({"datasets": ["Wplusmunu", "Wplusmumu"]}, "unknown-data-set", "Wplusmumu"),
        ({"corrections": "smal"}, "unknown-correction-set", "smal"),
        ({"options": {"flavor": "2016"}}, "unknown-option", "flavor"),
        ({"options": {"pdf_members": "many"}}, "bad-option", "pdf_members"),
        ({"systematics": ["mas"]}, "unknown-systematic", "mas"),
        ({"corrections": None, "systematics": ["pileup"]}, "missing-correction", "pileup"),
        ({"datasets": [{"name": "x", "files": ["/etc/passwd"]}]}, "path-not-allowed", "/etc/passwd"),
        ({"datasets": []}, "invalid-request", "body.datasets"),
        ({"sistematics": []}, "invalid-request", "body.sistematics"),
        ({"on_error": {"skip": 2}}, "invalid-request", "body.on_error"),
        ({"priority": 11}, "invalid-request", "body.priority"),
    ],
)
def test_a_request_that_cannot_be_is_refused_naming_the_thing(
    served: Served, change: dict[str, Any], code: str, named: str
) -> None:
    with served.http() as http:
        document = problem(http.post("/v1/jobs", json={**REQUEST, **change}), 422, code)
    assert named in f"{document['detail']} {document['where']} {document['hint']}"


def test_a_body_that_is_not_json_is_a_problem(served: Served) -> None:
    with served.http() as http:
        problem(
            http.post("/v1/jobs", content=b"{'processor'", headers={"Content-Type": "application/json"}),
            422,
            "invalid-request",
        )


def test_another_users_job_looks_like_none_at_all(served: Served) -> None:
    with served.http("bob") as http:
        for path in (
            "",
            "/units",
            "/events",
            "/histograms",
            "/histograms/Wplusmunu/nominal",
            "/expansions",
            "/histograms/Wplusmunu/nominal/preview.png",
            "/expansions/mass",
            "/zarr/1/zarr.json",
        ):
            foreign = problem(http.get(f"/v1/jobs/{served.job}{path}"), 404, "unknown-job")
            absent = problem(http.get(f"/v1/jobs/nosuchjob2{path}"), 404, "unknown-job")
            assert {**foreign, "where": None} == {**absent, "where": None}
        for action in ("cancel", "retry"):
            problem(http.post(f"/v1/jobs/{served.job}/{action}"), 404, "unknown-job")
        problem(http.delete(f"/v1/jobs/{served.job}"), 404, "unknown-job")
        assert served.job not in [job["id"] for job in http.get("/v1/jobs").json()["jobs"]]
    with served.http("admin") as http:
        assert http.get(f"/v1/jobs/{served.job}").status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/processors", "/v1/datasets", "/v1/corrections"])
def test_without_a_valid_token_nothing_is_shown(served: Served, path: str) -> None:
    with served.http(None) as http:
        answer = http.get(path)
        problem(answer, 401, "no-token")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        problem(http.get(path, headers={"Authorization": "Bearer bw_wrong"}), 401, "bad-token")
        problem(
            http.get(path, headers={"Authorization": f"Basic {served.made.tokens['alice']}"}), 401, "no-token"
        )
    with served.http("expired") as http:
        problem(http.get(path), 401, "bad-token")


def test_a_token_does_only_what_its_scopes_say(served: Served) -> None:
    with served.http("reader") as http:
        assert http.get(f"/v1/jobs/{served.job}").status_code == 200
        assert "submit" in problem(http.post("/v1/jobs", json=REQUEST), 403, "missing-scope")["detail"]
        problem(http.post(f"/v1/jobs/{served.job}/cancel"), 403, "missing-scope")
        problem(http.post(f"/v1/jobs/{served.job}/retry"), 403, "missing-scope")
        problem(http.delete(f"/v1/jobs/{served.job}"), 403, "missing-scope")


def test_pages_of_jobs_have_each_job_once(served: Served) -> None:
    submitted = {served.made.submit("bob") for _ in range(7)}
    seen: list[str] = []
    with served.http("bob") as http:
        cursor = None
        while True:
            params = {"limit": 3, "state": "queued", **({"cursor": cursor} if cursor else {})}
            page = http.get("/v1/jobs", params=params).json()
            assert len(page["jobs"]) <= 3
            seen += [job["id"] for job in page["jobs"]]
            cursor = page["next"]
            if cursor is None:
                break
        problem(http.get("/v1/jobs", params={"cursor": "nonsense"}), 422, "bad-cursor")
    assert len(seen) == len(set(seen))
    assert submitted <= set(seen)


def test_a_page_links_to_the_next_one(served: Served) -> None:
    for _ in range(3):
        served.made.submit("bob")
    seen: list[str] = []
    with served.http("bob") as http:
        following: str | None = "/v1/jobs?state=queued&limit=2"
        while following:
            answer = http.get(following)
            page = answer.json()
            seen += [job["id"] for job in page["jobs"]]
            assert ("next" in answer.links) == (page["next"] is not None)
            following = answer.links["next"]["url"] if "next" in answer.links else None
        assert len(seen) == len(set(seen)) >= 3
    job = failed(served)
    with served.http() as http:
        answer = http.get(f"/v1/jobs/{job}/units", params={"limit": 1})
        (unit,) = http.get(answer.links["next"]["url"]).json()["units"]
        assert (unit["unit"], unit["state"]) == (1, "failed")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/{job}",
        "/v1/jobs?state=succeeded",
        "/v1/jobs/{job}/units",
        "/v1/jobs/{job}/histograms",
        "/v1/jobs/{job}/expansions",
        "/v1/processors",
        "/v1/processors/w_mass",
        "/v1/datasets",
        "/v1/corrections",
        "/v1/usage",
    ],
)
def test_what_has_not_changed_is_not_sent_again(served: Served, path: str) -> None:
    with served.http() as http:
        first = http.get(path.format(job=served.job))
        tag = first.headers["ETag"]
        again = http.get(path.format(job=served.job), headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        head = http.head(path.format(job=served.job))
        assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", tag)
        assert int(head.headers["Content-Length"]) == len(first.content)


def test_a_view_that_is_kept_shows_every_change_at_once(served: Served) -> None:
    job = served.made.submit()
    with served.http() as http:
        for number in range(20):
            http.get(f"/v1/jobs/{job}")
            with served.made.database.write() as connection:
                connection.execute(update(jobs).where(jobs.c.id == job).values(luminosity_of(number)))
            assert http.get(f"/v1/jobs/{job}").json()["luminosity"] == number
        tag = http.get(f"/v1/jobs/{job}").headers["ETag"]
        http.post(f"/v1/jobs/{job}/cancel")
        changed = http.get(f"/v1/jobs/{job}", headers={"If-None-Match": tag})
        assert (changed.status_code, changed.json()["state"]) == (200, "cancelling")


def test_the_short_way_to_a_status_gives_the_answers_of_the_long_one(served: Served) -> None:
    other = served.made.submit("bob")
    with served.http() as http:
        for path in (served.job, other, "nosuchjob2"):
            short = http.get(f"/v1/jobs/{path}")
            long = http.get(f"/v1/jobs/{path}", headers={"Prefer": "handling=strict"})
            assert (short.status_code, short.content) == (long.status_code, long.content)
            assert short.headers.get("ETag") == long.headers.get("ETag")
            assert short.headers["Cache-Control"] == long.headers["Cache-Control"]
        problem(http.get("/v1/jobs/no such job"), 422, "invalid-request")
        problem(
            http.get(f"/v1/jobs/{served.job}", headers={"Authorization": "Bearer bw_no"}), 401, "bad-token"
        )
        problem(http.get(f"/v1/jobs/{served.job}/zarr/0/zarr.json"), 422, "invalid-request")


def luminosity_of(number: float) -> dict[str, Any]:
    return {"resolved": {"luminosity": number, "datasets": []}}


def test_a_body_that_is_not_sent_as_json_is_of_an_unsupported_type(served: Served) -> None:
    with served.http() as http:
        for sent in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
            answer = http.post("/v1/jobs", content=b"{}", headers={"Content-Type": sent})
            assert sent in problem(answer, 415, "unsupported-media-type")["detail"]
        problem(http.post("/v1/jobs"), 422, "invalid-request")


def test_whoever_waits_hears_of_the_end_at_once(served: Served) -> None:
    job = served.made.submit()
    with served.http() as http, ThreadPoolExecutor(1) as pool:
        late = []
        for _ in range(3):
            job = served.made.submit()
            waiting = pool.submit(http.get, f"/v1/jobs/{job}", headers={"Prefer": "wait=20"})
            time.sleep(0.3)
            begin = time.monotonic()
            served.made.move(job, JobState.CANCELLING, JobState.CANCELLED)
            assert waiting.result(timeout=10).json()["state"] == "cancelled"
            late.append(time.monotonic() - begin)
    assert min(late) < 0.3


def test_a_finished_job_is_not_listed_as_queued(served: Served) -> None:
    with served.http() as http:
        succeeded = http.get("/v1/jobs", params={"state": "succeeded", "limit": 200}).json()["jobs"]
        queued = http.get("/v1/jobs", params={"state": "queued", "limit": 200}).json()["jobs"]
    assert served.job in {job["id"] for job in succeeded}
    assert served.job not in {job["id"] for job in queued}


def test_cancelling_is_idempotent_and_leaves_a_finished_job_alone(served: Served) -> None:
    job = served.made.submit()
    with served.http() as http:
        for _ in range(2):
            answer = http.post(f"/v1/jobs/{job}/cancel")
            assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
        assert http.post(f"/v1/jobs/{served.job}/cancel").json()["state"] == "succeeded"


def test_prefer_wait_answers_when_the_job_is_finished_and_not_before(served: Served) -> None:
    job = served.made.submit()
    with served.http() as http, ThreadPoolExecutor(1) as pool:
        begin = time.monotonic()
        assert http.get(f"/v1/jobs/{job}", headers={"Prefer": "wait=1"}).json()["state"] == "queued"
        assert 1.0 <= time.monotonic() - begin < 3.0
        waiting = pool.submit(http.get, f"/v1/jobs/{job}", headers={"Prefer": "respond-async, wait=20"})
        time.sleep(0.5)
        assert not waiting.done()
        served.made.move(job, JobState.CANCELLING, JobState.CANCELLED)
        answer = waiting.result(timeout=5)
    assert answer.json()["state"] == "cancelled"
    assert answer.headers["Preference-Applied"] == "wait=20"


def test_a_failed_job_says_why(served: Served) -> None:
    error = {"code": "missing-branch", "message": "No branch for muon pt.", "where": "a.root", "hint": None}
    job = served.made.submit()
    served.made.move(job, JobState.RUNNING, JobState.FAILED, error=error)
    with served.http() as http:
        assert http.get(f"/v1/jobs/{job}").json()["error"] == error
        problem(http.get(f"/v1/jobs/{job}/histograms"), 409, "no-snapshot")


def test_unknown_places_and_methods_are_problems(served: Served) -> None:
    with served.http() as http:
        problem(http.get("/v1/nothing"), 404, "not-found")
        answer = http.delete("/v1/jobs")
        problem(answer, 405, "method-not-allowed")
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


def spoken(served: Served, *parts: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes as they are and return the answer's status and document."""
    with socket.create_connection(("127.0.0.1", served.made.settings.port), timeout=20) as line:
        with suppress(ConnectionError):
            for part in parts:
                line.sendall(part)
        answer = b""
        with suppress(ConnectionError):
            while block := line.recv(65536):
                answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([b"not HTTP at all\r\n\r\n"], 400, "bad-request"),
        ([b"GET /", 9000 * b"a", b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"], 414, "target-too-long"),
        ([b"GET / HTTP/1.1\r\nX: ", *(30_000 * b"a" for _ in range(20))], 431, "head-too-large"),
    ],
    ids=["not_http", "long_target", "large_head"],
)
def test_what_is_no_request_is_a_problem(served: Served, parts: list[bytes], status: int, code: str) -> None:
    found, document = spoken(served, *parts)
    assert (found, document["status"], document["code"]) == (status, status, code)


def test_what_can_be_asked_for_is_listed(served: Served) -> None:
    with served.http() as http:
        listed = {processor["name"]: processor for processor in http.get("/v1/processors").json()}
        assert listed.keys() == {"w_mass", "z_dilepton", "z_wlike"}
        processor = listed["w_mass"]
        assert "flavour" in processor["options"]["properties"]
        assert http.get("/v1/processors/w_mass").json() == processor
        problem(http.get("/v1/processors/w_mas"), 404, "unknown-processor")
        catalogue = http.get("/v1/datasets").json()
        assert [dataset["name"] for dataset in catalogue["datasets"]] == [
            "Wplusmunu",
            "Wminusmunu",
            "SingleMuon",
        ]
        (corrections,) = http.get("/v1/corrections").json()
        assert "momentum_scale" in corrections["payloads"]


def test_the_service_tells_its_version_its_health_and_its_numbers(served: Served) -> None:
    with served.http(None) as http:
        assert http.get("/v1/").json()["name"] == "binworks"
        assert http.get("/healthz").status_code == 200
        metrics = http.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert float(metrics.text.split('binworks_jobs{state="succeeded"}')[1].split()[0]) >= 1


def test_the_api_loads_no_dask_even_after_work(served: Served) -> None:
    script = f"""
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from binworks.api.app import create_app
from binworks.service.settings import Settings
headers = {served.headers()}
settings = Settings.load(Path({str(served.made.settings.home)!r}))
with TestClient(create_app(settings), "http://127.0.0.1", headers=headers) as http:
    assert http.post("/v1/jobs", json={REQUEST}).status_code == 201
    for path in ("/v1/processors", "/v1/jobs", "/v1/jobs/{served.job}/histograms/Wplusmunu/nominal/preview.png"):
        assert http.get(path).status_code == 200
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert {"fastapi", "matplotlib"} <= loaded
    assert loaded.isdisjoint({"dask", "distributed"})


def failed(served: Served) -> str:
    """Return a job of alice's that failed."""
    job = served.made.submit()
    error = {"code": "missing-branch", "message": "No branch for muon pt.", "where": "a.root", "hint": None}
    served.made.move(job, JobState.RUNNING)
    served.made.lack(job, state=UnitState.FAILED)
    served.made.move(job, JobState.FAILED, error=error)
    return job


def test_a_failed_job_is_retried_once_however_often_it_is_asked(served: Served) -> None:
    job = failed(served)
    with served.http() as http:
        for _ in range(2):
            answer = http.post(f"/v1/jobs/{job}/retry")
            assert (answer.status_code, answer.json()["state"]) == (202, "queued")
            assert answer.json()["error"] is None
        problem(http.post(f"/v1/jobs/{served.job}/retry"), 409, "nothing-to-retry")
        http.post(f"/v1/jobs/{job}/cancel")
        served.made.move(job, JobState.CANCELLED)
        problem(http.post(f"/v1/jobs/{job}/retry"), 409, "cancelled")


def test_a_deleted_job_is_absent_with_all_that_was_below_it(served: Served) -> None:
    made = served.made
    job = made.finished({"Wplusmunu": filled(31, groups=())})
    with served.http() as http:
        assert http.get(f"/v1/jobs/{job}/zarr/1/zarr.json").status_code == 200
        waiting = made.submit()
        assert "Cancel" in problem(http.delete(f"/v1/jobs/{waiting}"), 409, "job-not-finished")["hint"]
        answer = http.delete(f"/v1/jobs/{job}")
        assert (answer.status_code, answer.content) == (204, b"")
        for path in ("", "/units", "/events", "/histograms", "/zarr/1/zarr.json"):
            problem(http.get(f"/v1/jobs/{job}{path}"), 404, "unknown-job")
        problem(http.delete(f"/v1/jobs/{job}"), 404, "unknown-job")


def test_a_result_that_is_there_is_given_instead_of_a_new_job_if_asked_for(served: Served) -> None:
    path = served.made.settings.home / "data" / "wp.root"
    path.write_bytes(b"12345")
    known = path.stat()
    with served.made.database.write() as connection:
        info = {"uuid": "u", "size": 5, "entries": 0, "path": str(path), "clusters": [0]}
        row = {"path": str(path), "size": 5, "mtime_ns": known.st_mtime_ns, "info": info}
        connection.execute(insert(files).values(**row))
    job = served.made.finished({"Wplusmunu": filled(32, groups=())}, owner="bob", systematics=["width_W"])
    asked = {"processor": "w_mass", "datasets": ["Wplusmunu"], "systematics": ["width_W"], "label": "again"}
    with served.http("bob") as http:
        found = http.post("/v1/jobs", params={"reuse": "completed"}, json=asked)
        assert (found.status_code, found.json()["id"]) == (200, job)
        assert found.headers["Location"] == f"/v1/jobs/{job}"
        assert http.post("/v1/jobs", json=asked).status_code == 201
        other = {**asked, "systematics": ["width_Z"]}
        assert http.post("/v1/jobs", params={"reuse": "completed"}, json=other).status_code == 201
        problem(http.post("/v1/jobs", params={"reuse": "any"}, json=asked), 422, "invalid-request")
        path.write_bytes(b"123456")
        assert http.post("/v1/jobs", params={"reuse": "completed"}, json=asked).status_code == 201
    with served.http() as http:
        mine = http.post("/v1/jobs", params={"reuse": "completed"}, json=asked)
        assert mine.status_code == 201, "another's result is none of mine"


def test_everybody_sees_his_own_usage_and_the_admin_everybodys(served: Served) -> None:
    with served.http("bob") as http:
        before = http.get("/v1/usage").json()
        served.made.submit("bob")
        after = http.get("/v1/usage", params={"owner": "bob"}).json()
        assert after["owner"] == "bob"
        assert after["active_jobs"] == {"used": before["active_jobs"]["used"] + 1, "limit": 100_000}
        assert after["cpu_hours"]["limit"] is None
        problem(http.get("/v1/usage", params={"owner": "alice"}), 403, "missing-scope")
    with served.http("admin") as http:
        assert http.get("/v1/usage", params={"owner": "bob"}).json()["active_jobs"] == after["active_jobs"]
        assert http.get("/v1/usage").json()["owner"] == "root"


def test_a_reached_limit_is_a_429_that_says_what_is_used_and_what_to_do(tmp_path: Path) -> None:
    made = HandMade.make(tmp_path / "home")
    headers = {"Authorization": f"Bearer {made.tokens['alice']}"}
    asked = {"processor": "w_mass", "datasets": ["Wplusmunu"], "systematics": []}
    limited = made.settings.model_copy(update={"max_active_jobs": 5})

    async def send_at_once() -> list[httpx.Response]:
        app = create_app(limited)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http,
        ):
            return await asyncio.gather(*(http.post("/v1/jobs", json=asked) for _ in range(20)))

    answers = asyncio.run(send_at_once())
    made.database.close()
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [429] * 15
    refused = next(answer for answer in answers if answer.status_code == 429)
    document = problem(refused, 429, "too-many-jobs")
    assert document["detail"] == "alice has 5 unfinished jobs; the limit is 5."
    assert "cancel one" in document["hint"]
    assert int(refused.headers["Retry-After"]) > 0


def test_a_unit_that_failed_shows_what_where_and_why(served: Served) -> None:
    job = failed(served)
    with served.http() as http:
        (unit,) = http.get(f"/v1/jobs/{job}/units", params={"state": "failed"}).json()["units"]
        missing = http.get(f"/v1/jobs/{job}").json()["missing"]
    assert unit["files"][0].endswith("wp.root[90:100]")
    assert (unit["attempts"], unit["splits"], unit["worker"]) == (5, 2, "tcp://w:1")
    assert (unit["error"]["code"], unit["error"]["hint"]) == ("corrupt-file", "Copy it.")
    assert unit["traceback"] == "Traceback: here"
    assert (missing["events"], missing["n_files"], len(missing["files"])) == (10, 3, 3)
    ranged = missing["files"][-1]
    assert (ranged["start"], ranged["stop"], ranged["unit"]) == (90, 100, 1)


def test_a_job_says_so_when_nobody_works_on_it(served: Served) -> None:
    job = served.made.submit()
    served.made.move(job, JobState.RUNNING)
    with served.http() as http:
        assert "No driver" in http.get(f"/v1/jobs/{job}").json()["note"]
        (listed,) = [j for j in http.get("/v1/jobs", params={"limit": 200}).json()["jobs"] if j["id"] == job]
        assert "No driver" in listed["note"]
        assert http.get(f"/v1/jobs/{served.job}").json()["note"] is None


def test_the_examples_of_the_interface_fit_its_schema(served: Served) -> None:
    assert JobView.model_validate(examples.JOB).id == examples.JOB["id"]
    assert Usage.model_validate(examples.USAGE).model_dump() == examples.USAGE
    with served.http(None) as http:
        paths = http.get("/openapi.json").json()["paths"]
    for path, method, status in (
        ("/v1/jobs", "post", "200"),
        ("/v1/jobs/{job}/retry", "post", "202"),
        ("/v1/usage", "get", "200"),
    ):
        content = paths[path][method]["responses"][status]["content"]["application/json"]
        assert content["example"]
        assert content["schema"]
