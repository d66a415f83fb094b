"""Signing in: a cookie that scripts cannot read, that other sites' pages cannot use, and that ends."""

from __future__ import annotations

import time

import httpx
import pytest
from hand_made_service import Served

from binworks.api.sessions import inside
from binworks.service import tokens

pytest_plugins = ["served_fixture"]

COOKIE = "binworks_session"


def sign_in(served: Served, token: str, **headers: str) -> httpx.Response:
    form = {"token": token, "next": "/jobs"}
    return httpx.post(f"{served.url}/login", data=form, headers=headers)


def session(served: Served, user: str = "alice") -> str:
    secret: str = sign_in(served, served.made.tokens[user]).cookies[COOKIE]
    return secret


def ask(served: Served, cookie: str, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    given = {"Cookie": f"theme=dark; {COOKIE}={cookie}", **headers}
    return httpx.request(method, served.url + path, headers=given)


def test_a_token_opens_a_session_of_the_same_owner_and_scopes(served: Served) -> None:
    answer = sign_in(served, served.made.tokens["reader"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    assert answer.headers["cache-control"] == "no-store"
    parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert "max-age=43200" in parts or "max-age=43199" in parts
    secret = answer.cookies[COOKIE]
    assert secret != served.made.tokens["reader"]
    assert ask(served, secret, "/v1/jobs").status_code == 200
    assert ask(served, secret, "/v1/usage").json()["owner"] == "alice"
    assert ask(served, secret, "/v1/usage?owner=bob").status_code == 403
    refused = ask(served, secret, f"/v1/jobs/{served.job}/cancel", "POST", Origin=served.url)
    assert refused.json()["code"] == "missing-scope"


def test_under_https_the_cookie_goes_over_https_alone(served: Served) -> None:
    answer = sign_in(served, served.made.tokens["alice"], **{"X-Forwarded-Proto": "https"})
    assert "secure" in answer.headers["set-cookie"].lower()
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "strict-transport-security" not in sign_in(served, "wrong").headers


@pytest.mark.parametrize("form", ["token=bw_wrong", "token=", "", "token=%00", "x" * 20_000])
def test_a_wrong_token_opens_nothing_and_is_not_shown(served: Served, form: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = httpx.post(f"{served.url}/login", content=form, headers=headers)
    assert answer.status_code in (401, 403)
    assert "set-cookie" not in answer.headers
    assert "bw_wrong" not in answer.text


MANY = "&".join(f"f{number}=1" for number in range(50))


@pytest.mark.parametrize(
    ("path", "form", "code"),
    [
        ("/login", MANY, "bad-form"),
        ("/jobs/{}/exports", MANY, "bad-form"),
        ("/jobs/{}/exports", "format=" + "x" * 20_000, "bad-form"),
        ("/jobs/{}/exports", "format=nothing", "unknown-format"),
    ],
)
def test_a_form_that_no_page_of_ours_sends_is_refused(
    served: Served, path: str, form: str, code: str
) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", **served.headers()}
    answer = httpx.post(served.url + path.format(served.job), content=form, headers=headers)
    assert answer.status_code in (403, 422)
    assert answer.json()["code"] == code


def test_a_session_is_no_token_and_a_token_no_session(served: Served) -> None:
    secret = session(served)
    answer = httpx.get(f"{served.url}/v1/jobs", headers={"Authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.json()["code"]) == (401, "bad-token")
    assert ask(served, served.made.tokens["alice"], "/v1/jobs").status_code == 401
    assert sign_in(served, secret).status_code == 401


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Origin": "OURS"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "OURS", "Sec-Fetch-Site": "same-origin"}, True),
        ({}, False),
        ({"Origin": "http://evil.example.org"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:1"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "OURS", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://evil.example.org", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Referer": "OURS"}, False),
    ],
)
def test_only_our_own_page_changes_things_by_cookie(
    served: Served, headers: dict[str, str], allowed: bool
) -> None:
    secret = session(served)
    given = {name: value.replace("OURS", served.url) for name, value in headers.items()}
    job = served.made.submit()
    answer = ask(served, secret, f"/v1/jobs/{job}/cancel", "POST", **given)
    assert answer.status_code == (202 if allowed else 403)
    assert allowed or answer.json()["code"] == "cross-site"
    assert ask(served, secret, f"/v1/jobs/{job}", **given).status_code == 200
    with served.http() as http:  # a token that a program sends needs none of this
        assert http.post(f"/v1/jobs/{job}/cancel", headers=given).status_code == 202


def test_another_site_can_sign_nobody_in_or_out(served: Served) -> None:
    evil = {"Origin": "http://evil.example.org", "Sec-Fetch-Site": "cross-site"}
    assert sign_in(served, served.made.tokens["bob"], **evil).status_code == 403
    secret = session(served)
    assert ask(served, secret, "/logout", "POST", **evil).status_code == 403
    assert ask(served, secret, "/v1/jobs").status_code == 200


def test_signing_out_ends_the_session_at_once(served: Served) -> None:
    secret = session(served)
    assert ask(served, secret, "/v1/jobs").status_code == 200
    answer = ask(served, secret, "/logout", "POST", Origin=served.url)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert 'binworks_session=""' in answer.headers["set-cookie"]
    assert ask(served, secret, "/v1/jobs").status_code == 401


def test_a_session_ends_with_its_token(served: Served) -> None:
    token = tokens.create(served.made.database, "alice", ["read"], now=time.time())
    secret = sign_in(served, token).cookies[COOKIE]
    assert ask(served, secret, "/v1/jobs").status_code == 200
    tokens.revoke(served.made.database, tokens.token_id(token))
    time.sleep(1.1)
    assert ask(served, secret, "/v1/jobs").status_code == 401
    brief = tokens.create(served.made.database, "alice", ["read"], now=time.time(), lifetime=100.0)
    assert int(sign_in(served, brief).headers["set-cookie"].split("Max-Age=")[1].split(";")[0]) <= 100


@pytest.mark.parametrize("page", ["/v1/jobs/{}/events", "/jobs/{}/live"])
def test_an_open_stream_ends_with_its_session(served: Served, page: str) -> None:
    secret = session(served)
    job = served.made.submit()
    headers, said = {"Cookie": f"{COOKIE}={secret}"}, 0
    with httpx.stream("GET", served.url + page.format(job), headers=headers, timeout=20) as stream:
        for _ in stream.iter_raw():
            said += 1
            if said == 1:
                tokens.revoke_secret(served.made.database, secret)
                time.sleep(1.1)
                served.made.tell(job, "progress", {"rate": 1.0})
    assert said  # and no more: it has ended, although the job has not


def test_a_header_counts_before_a_cookie(served: Served) -> None:
    secret = session(served, "bob")
    headers = {"Authorization": f"Bearer {served.made.tokens['alice']}"}
    assert ask(served, secret, "/v1/usage", **headers).json()["owner"] == "alice"
    assert ask(served, secret, "/v1/jobs", Authorization="Bearer bw_wrong").status_code == 401


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example.org",
        "/\\evil.example.org",
        "https://evil.example.org",
        "evil",
        "",
        "/\t/evil",
        "/" * 3000,
    ],
)
def test_signing_in_leads_to_no_other_site(to: str) -> None:
    assert inside(to) == "/"
    assert inside("/jobs/a?x=1#y") == "/jobs/a?x=1#y"
