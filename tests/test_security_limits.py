"""How much may be asked for, under which name, and what it costs to look."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hand_made_service import ApiProcess, HandMade

from binworks.api import rates
from binworks.api.limits import address, hosts
from binworks.api.rates import Buckets
from binworks.service.settings import Settings

LARGEST = 2000


class Strict:
    """A service with narrow limits."""

    def __init__(self, made: HandMade, api: ApiProcess) -> None:
        self.made = made
        self.url = api.url
        self.port = made.settings.port

    def headers(self, user: str = "alice") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.made.tokens[user]}"}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    made = HandMade.make(tmp_path_factory.mktemp("strict") / "home")
    narrow = {"max_body_bytes": LARGEST, "rate_per_second": 4, "rate_per_second_unknown": 4}
    made.settings.model_copy(update=narrow).save()
    with ApiProcess(made.settings.home, made.settings.port) as api:
        yield Strict(made, api)
        api.stop()
    made.database.close()


def first_refusal(client: httpx.Client, method: str, path: str, **given: Any) -> list[httpx.Response]:
    """Return the answers up to the first that says too often."""
    answers: list[httpx.Response] = []
    while not answers or answers[-1].status_code != 429:
        assert len(answers) < 500
        answers.append(client.request(method, path, **given))
    return answers


def job_of(size: int) -> bytes:
    body = b'{"processor": "w_mass", "datasets": ["Wplusmunu"], "label": ""}'
    return body + b" " * (size - len(body))


def test_a_body_has_a_largest_size_whether_it_says_it_or_not(strict: Strict) -> None:
    url, headers = f"{strict.url}/v1/jobs", {**strict.headers(), "Content-Type": "application/json"}
    assert httpx.post(url, content=job_of(LARGEST), headers=headers).status_code == 201
    assert httpx.post(url, content=iter([job_of(LARGEST)]), headers=headers).status_code == 201
    said = httpx.post(url, content=job_of(LARGEST + 1), headers=headers)
    assert (said.status_code, said.json()["code"]) == (413, "too-large")
    pieces = iter([job_of(LARGEST), *[b" " * 1000] * 100])
    counted = httpx.post(url, content=pieces, headers=headers)
    assert (counted.status_code, counted.json()["code"]) == (413, "too-large")
    assert httpx.post(f"{strict.url}/login", content=iter([b"x" * 5000])).status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e9", "99999999999999999999", "0x10"])
def test_a_length_that_is_none_is_refused(strict: Strict, length: str) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=20)
    plain.putrequest("POST", "/v1/jobs")
    for name, value in {**strict.headers(), "Content-Length": length}.items():
        plain.putheader(name, value)
    plain.endheaders()
    with plain.getresponse() as answer:
        assert answer.status in (400, 413)
    plain.close()


def test_wrong_tokens_typed_in_make_the_next_ones_wait(strict: Strict) -> None:
    with httpx.Client(base_url=strict.url, timeout=30) as client:
        answers = first_refusal(client, "POST", "/login", data={"token": "bw_wrong"})
        assert {answer.status_code for answer in answers[:-1]} == {401}
        assert 10 <= len(answers[:-1]) <= 13
        assert int(answers[-1].headers["retry-after"]) >= 1
        good = client.post("/login", data={"token": strict.made.tokens["alice"]})
        assert good.status_code == 429


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8080", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:80", 200),
        ("evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("127.0.0.1@evil.example.org", 421),
        ("localhost:x", 421),
        ("", 421),
    ],
)
def test_a_name_of_another_site_does_not_lead_here(strict: Strict, host: str, expected: int) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", strict.port, timeout=20)
    for path, status in (("/v1/jobs", expected), ("/healthz", 200), ("/metrics", 200)):
        plain.request("GET", path, headers={**strict.headers("admin"), "Host": host})
        answer = plain.getresponse()
        answer.read()
        assert answer.status == status
    plain.close()


@pytest.mark.parametrize("user", ["bob", None, "expired"])
def test_too_many_requests_are_told_when_to_come_back(strict: Strict, user: str | None) -> None:
    headers = {} if user is None else strict.headers(user)
    with httpx.Client(base_url=strict.url, headers=headers, timeout=30) as client:
        last = first_refusal(client, "GET", "/v1/jobs")[-1]
        assert last.json()["code"] == "too-many-requests"
        assert last.headers["retry-after"] == "1"
        assert last.headers["x-content-type-options"] == "nosniff"
        assert client.get("/healthz").status_code == 200
        time.sleep(1)
        assert client.get("/v1/jobs").status_code == (200 if user == "bob" else 401)
    assert httpx.get(f"{strict.url}/v1/jobs", headers=strict.headers()).status_code == 200


def test_the_names_of_a_service_are_those_set_or_of_the_loopback(tmp_path: object) -> None:
    def named(**given: object) -> frozenset[str] | None:
        return hosts(Settings(home=tmp_path, **given))  # type: ignore[arg-type]

    assert named() == {"localhost", "127.0.0.1", "[::1]"}
    assert named(host="0.0.0.0") is None
    assert named(host="0.0.0.0", hosts=("Fits.example.org",)) == {"fits.example.org"}


def test_buckets_fill_steadily_and_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    buckets = Buckets(rate=2.0, burst=4.0, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(6)] == [0, 0, 0, 0, 0.5, 0.5]
    assert buckets.take("b") == 0
    now[0] += 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    now[0] += 100
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    monkeypatch.setattr(rates, "LARGEST", 10)
    for i in range(100):
        buckets.take(i)
        assert len(buckets._buckets) <= 10


def test_a_network_of_ipv6_is_one_place() -> None:
    def place(host: str) -> str:
        return address({"client": (host, 1)})

    assert place("2001:db8:1:2::7") == place("2001:db8:1:2:ffff::") != place("2001:db8:1:3::7")
    assert place("192.0.2.1") != place("192.0.2.2")
