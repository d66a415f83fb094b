"""What is shared is read by those it is shared with, and changed by its owner alone."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from hand_made_service import Served

from binworks.service.model import JobState

pytest_plugins = ["served_fixture"]

READS = [
    "",
    "/units",
    "/histograms",
    "/histograms/Wplusmunu/nominal",
    "/histograms/Wplusmunu/nominal/preview.png",
    "/expansions/mass",
    "/zarr/1/zarr.json",
    "/events",
    "/exports",
]
CHANGES = [("POST", "/cancel"), ("POST", "/retry"), ("DELETE", ""), ("PUT", "/shares/carol")]


def status(served: Served, user: str, path: str, method: str = "GET") -> int:
    with served.http(user) as http, http.stream(method, path) as answer:
        return answer.status_code


def test_every_read_of_another_s_job_is_404_until_it_is_shared_and_after(served: Served) -> None:
    for path in READS:
        place = f"/v1/jobs/{served.job}{path}"
        assert status(served, "alice", place) == 200, path
        assert status(served, "bob", place) == 404, path
    for reader in ("bob", "*"):
        with served.http() as http:
            added = http.put(f"/v1/jobs/{served.job}/shares/{reader}")
            assert (added.status_code, added.json()["readers"]) == (200, [reader])
            assert http.put(f"/v1/jobs/{served.job}/shares/{reader}").json()["readers"] == [reader]
        for path in READS:
            assert status(served, "bob", f"/v1/jobs/{served.job}{path}") == 200, path
        with served.http("bob") as http:
            assert served.job in [job["id"] for job in all_jobs(http)]
        with served.http() as http:
            assert http.delete(f"/v1/jobs/{served.job}/shares/{reader}").status_code == 204
            assert http.delete(f"/v1/jobs/{served.job}/shares/{reader}").status_code == 204
            assert http.get(f"/v1/jobs/{served.job}/shares").json()["readers"] == []
        time.sleep(1.1)  # what is remembered of an answer is a second old at most
        for path in READS:
            assert status(served, "bob", f"/v1/jobs/{served.job}{path}") == 404, path


def all_jobs(http: httpx.Client) -> list[dict[str, Any]]:
    """Return the jobs of all pages of the list."""
    found: list[dict[str, Any]] = []
    asked = {"limit": "200"}
    while True:
        page = http.get("/v1/jobs", params=asked).json()
        found += page["jobs"]
        if page["next"] is None:
            return found
        asked["cursor"] = page["next"]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_another_s_job_is_absent_and_a_shared_one_is_not_yours_to_change(
    served: Served, method: str, path: str
) -> None:
    job = served.made.submit("alice")
    place = f"/v1/jobs/{job}{path}"
    assert status(served, "bob", place, method) == 404
    with served.http() as alice, served.http("bob") as bob:
        assert alice.put(f"/v1/jobs/{job}/shares/bob").status_code == 200
        refused = bob.request(method, place)
        assert (refused.status_code, refused.json()["code"]) == (403, "not-yours")
        assert bob.get(f"/v1/jobs/{job}/shares").json()["code"] == "not-yours"
        assert alice.get(f"/v1/jobs/{job}/shares/bob").status_code == 200
        assert alice.get(f"/v1/jobs/{job}/shares/carol").status_code == 404
        assert alice.get(f"/v1/jobs/{job}").json()["state"] == "queued"
        assert alice.post(f"/v1/jobs/{job}/cancel").status_code == 202


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/{}/histograms/Wplusmunu/nominal?generation=1",
        "/v1/jobs/{}/histograms/Wplusmunu/nominal?generation=1&select=pt:1",
        "/v1/jobs/{}/histograms/Wplusmunu/nominal/preview.png?generation=1",
        "/v1/jobs/{}/zarr/1/zarr.json",
        "/jobs/{}/preview.png?generation=1",
    ],
)
def test_what_a_browser_may_keep_of_a_job_it_keeps_for_that_user_alone(served: Served, path: str) -> None:
    with served.http() as alice:
        first = alice.get(path.format(served.job))
        again = alice.get(path.format(served.job), headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)
    for answer in (first, again):
        assert "immutable" in answer.headers["cache-control"]
        assert {"cookie", "authorization"} <= set(answer.headers["vary"].lower().split(", "))


def test_a_shared_job_can_be_deleted_and_an_admin_may_share_it(served: Served) -> None:
    job = served.made.submit("alice")
    with served.http("admin") as admin, served.http() as alice, served.http("bob") as bob:
        assert admin.put(f"/v1/jobs/{job}/shares/bob").status_code == 200
        assert bob.get(f"/v1/jobs/{job}").status_code == 200
        served.made.move(job, JobState.CANCELLING, JobState.CANCELLED)
        assert alice.delete(f"/v1/jobs/{job}").status_code == 204
        time.sleep(1.1)
        assert bob.get(f"/v1/jobs/{job}").status_code == 404


def test_a_token_that_may_only_read_shares_nothing(served: Served) -> None:
    assert status(served, "reader", f"/v1/jobs/{served.job}/shares/bob", "PUT") == 403


@pytest.mark.parametrize("reader", ["**", "a b", "%00", "-x", "x" * 201])
def test_a_reader_is_an_owner_s_name(served: Served, reader: str) -> None:
    assert status(served, "alice", f"/v1/jobs/{served.job}/shares/{reader}", "PUT") == 422
