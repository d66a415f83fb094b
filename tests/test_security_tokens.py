"""Tokens: made once, listed without their secrets, never more than the one that made them, ended within a second."""

from __future__ import annotations

import json
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import httpx
import pytest
from hand_made_service import Served

from binworks.client import cli
from binworks.service import tokens
from binworks.service.database import Database
from binworks.service.tokens import Bearer
from binworks.tensors.errors import ConflictError, RequestError

pytest_plugins = ["served_fixture"]


@dataclass
class Ran:
    returncode: int
    stdout: str
    stderr: str


def run(served: Served, *words: str) -> Ran:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            cli.main(["token", *words, "--home", str(served.made.settings.home)])
        except SystemExit as end:
            code = end.code
    return Ran(int(code or 0), out.getvalue(), err.getvalue())


def opens(served: Served, token: str, path: str = "/v1/jobs") -> int:
    return httpx.get(served.url + path, headers={"Authorization": f"Bearer {token}"}).status_code


def make(served: Served, user: str = "alice", **body: Any) -> httpx.Response:
    with served.http(user) as http:
        return http.post("/v1/tokens", json=body)


def closed_within_a_second(served: Served, token: str) -> bool:
    end = time.monotonic() + 1.2
    while opens(served, token) == 200:
        assert time.monotonic() < end, "it still opens"
        time.sleep(0.05)
    return True


def test_the_command_makes_lists_and_revokes(served: Served) -> None:
    made = run(served, "create", "--owner", "dora", "--role", "fit", "--days", "2", "--label", "fits")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    assert secret.startswith("bw_")
    assert secret not in made.stderr
    listed = run(served, "list", "--owner", "dora", "--json")
    (row,) = json.loads(listed.stdout)
    assert (row["owner"], row["scopes"], row["label"], row["kind"]) == ("dora", ["read"], "fits", "token")
    assert secret not in listed.stdout
    assert row["id"] in run(served, "list", "--owner", "dora").stdout
    assert opens(served, secret) == 200
    assert run(served, "revoke", row["id"]).returncode == 0
    assert closed_within_a_second(served, secret)
    again = run(served, "revoke", row["id"])
    assert (again.returncode, "no such token" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("create", "--owner", "a b"),
        ("create", "--owner", "*"),
        ("create", "--owner", "x", "--scope", "write"),
        ("create", "--owner", "x", "--days", "-1"),
        ("create", "--owner", "x", "--role", "root"),
        ("revoke", "%"),
        ("revoke", "____________"),
    ],
)
def test_the_command_refuses_what_cannot_be(served: Served, words: tuple[str, ...]) -> None:
    assert run(served, *words).returncode == 2


def test_scopes_say_what_a_token_may_do(served: Served) -> None:
    answer = run(served, "create", "--owner", "alice", "--scope", "submit", "--json")
    secret = json.loads(answer.stdout)["token"]
    assert opens(served, secret) == 403
    for user, path, expected in (
        ("reader", "/v1/jobs", 200),
        ("alice", "/v1/usage?owner=bob", 403),
        ("admin", "/v1/usage?owner=bob", 200),
        ("expired", "/v1/jobs", 401),
    ):
        assert opens(served, served.made.tokens[user], path) == expected
    for method, path in (
        ("POST", "/v1/jobs"),
        ("POST", "/v1/tokens"),
        ("POST", f"/v1/jobs/{served.job}/cancel"),
        ("POST", f"/v1/jobs/{served.job}/retry"),
        ("DELETE", f"/v1/jobs/{served.job}"),
    ):
        with served.http("reader") as http:
            refused = http.request(method, path, json={"processor": "w_mass", "datasets": ["Wplusmunu"]})
        assert (refused.status_code, refused.json()["code"]) == (403, "missing-scope"), path


def test_one_s_own_tokens_are_listed_and_others_are_not(served: Served) -> None:
    made = make(served, role="fit", label="mine").json()
    with served.http() as alice, served.http("bob") as bob, served.http("admin") as admin:
        assert {token["owner"] for token in alice.get("/v1/tokens").json()} == {"alice"}
        assert {"alice", "bob", "root"} <= {token["owner"] for token in admin.get("/v1/tokens").json()}
        assert "token" not in alice.get(f"/v1/tokens/{made['id']}").json()
        assert made["token"] not in alice.get("/v1/tokens").text
        for method in ("GET", "DELETE"):
            absent = bob.request(method, f"/v1/tokens/{made['id']}")
            assert (absent.status_code, absent.json()["code"]) == (404, "unknown-token")
        assert opens(served, made["token"]) == 200
        assert admin.delete(f"/v1/tokens/{made['id']}").status_code == 204
    assert opens(served, made["token"]) == 401  # at once, in the process that was asked


def test_a_token_makes_none_that_may_do_more_or_lasts_longer(served: Served) -> None:
    for body in ({"role": "admin"}, {"owner": "bob"}, {"scopes": ["read", "admin"]}):
        refused = make(served, **body)
        assert (refused.status_code, refused.json()["code"]) == (403, "missing-scope")
    for body in (
        {"role": "fit", "scopes": ["read"]},
        {"owner": "a b"},
        {"days": 0},
        {"scopes": []},
        {"x": 1},
    ):
        assert make(served, **body).status_code == 422
    now = time.time()
    brief = tokens.create(served.made.database, "alice", ["read", "submit"], now=now, lifetime=3.0)
    headers = {"Authorization": f"Bearer {brief}"}
    made = httpx.post(f"{served.url}/v1/tokens", json={"role": "user", "days": 3000}, headers=headers)
    assert made.headers["cache-control"] == "no-store"
    assert opens(served, made.json()["token"]) == 200
    assert opens(served, brief) == 200
    time.sleep(max(now + 3.05 - time.time(), 0))
    assert opens(served, made.json()["token"]) == 401
    assert opens(served, brief) == 401


def test_what_a_token_made_ends_with_it(served: Served) -> None:
    first = make(served, role="user").json()
    headers = {"Authorization": f"Bearer {first['token']}"}
    second = httpx.post(f"{served.url}/v1/tokens", json={"role": "user"}, headers=headers).json()
    headers = {"Authorization": f"Bearer {second['token']}"}
    third = httpx.post(f"{served.url}/v1/tokens", json={}, headers=headers).json()
    assert opens(served, third["token"]) == 200
    tokens.revoke(served.made.database, first["id"])  # by another process
    for token in (first, second, third):
        assert closed_within_a_second(served, token["token"])


def test_an_admin_makes_tokens_for_others_that_outlive_his(served: Served) -> None:
    made = make(served, "admin", owner="eva", role="user", days=3000).json()
    assert (made["owner"], made["scopes"]) == ("eva", ["read", "submit"])
    assert made["expires"] > "2030"


def test_an_owner_cannot_fill_the_table(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST", 3)
    parent = Bearer("frank", frozenset({"read"}), time.time() + 100, "h")
    for _ in range(3):
        tokens.create(served.made.database, "frank", ["read"], now=time.time(), parent=parent)
    with pytest.raises(ConflictError, match="3 tokens") as error:
        tokens.create(served.made.database, "frank", ["read"], now=time.time(), parent=parent)
    assert error.value.code == "too-many-tokens"


@pytest.mark.parametrize("known", ["h", ""])
def test_sessions_of_one_token_end_the_oldest_and_leave_room_for_others(
    served: Served, monkeypatch: pytest.MonkeyPatch, known: str
) -> None:
    monkeypatch.setattr(tokens, "MOST", 30)
    database, owner, now = served.made.database, f"greta{known}", time.time()
    parent = Bearer(owner, frozenset({"read"}), now + 100, known)
    other = Bearer(owner, frozenset({"read"}), now + 100, "other")

    def opened(made_with: Bearer, second: float) -> str:
        return tokens.create(database, owner, ["read"], now=now + second, kind="session", parent=made_with)

    first = opened(other, 0.0)
    sessions = [opened(parent, 0.1 * number) for number in range(50)]
    found = [tokens.check(database, session, now=now + 10) is not None for session in sessions]
    assert found == [False] * 30 + [True] * 20
    assert tokens.check(database, first, now=now + 10)
    assert tokens.create(database, owner, ["read"], now=now, parent=other)


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer\tx", "Basic abc", "bearer x y", "Bearer \xe9", "Token bw_x"]
)
def test_what_is_no_token_opens_nothing(served: Served, given: str) -> None:
    answer = httpx.get(f"{served.url}/v1/jobs", headers={"Authorization": given.encode("latin-1")})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_tables_of_older_homes_get_their_new_columns(tmp_path: Any) -> None:
    database = Database(f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    with database.engine.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE tokens (hash VARCHAR(64) PRIMARY KEY, owner VARCHAR(200) NOT NULL, "
            "scopes JSON NOT NULL, created FLOAT NOT NULL, expires FLOAT NOT NULL)"
        )
        row = (tokens.digest("bw_old"), "alice", '["read"]', 0.0, 1e9)
        connection.exec_driver_sql("INSERT INTO tokens VALUES (?, ?, ?, ?, ?)", row)
        connection.exec_driver_sql("COMMIT")
    database.create_tables()
    held = tokens.check(database, "bw_old", now=1.0)
    assert held is not None
    (seen,) = tokens.listed(database, now=1.0)
    assert (seen.owner, seen.kind, seen.label, seen.id) == ("alice", "token", None, tokens.token_id("bw_old"))
    tokens.revoke(database, seen.id)
    assert tokens.check(database, "bw_old", now=1.0) is None
    with pytest.raises(RequestError, match="no such token"):
        tokens.revoke(database, seen.id)
    database.close()
