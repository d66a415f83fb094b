"""Jobs over REST: durable, once, seen by their owner only; every error a problem document that names the thing."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hand_made_service import Served

from binworks.service.model import JobState

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
        problem(http.post(f"/v1/jobs/{served.job}/cancel"), 404, "unknown-job")
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
        assert set(answer.headers["Allow"].split(", ")) == {"GET", "POST"}


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
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
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
with TestClient(create_app(Settings.load(Path({str(served.made.settings.home)!r}))), headers=headers) as http:
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
