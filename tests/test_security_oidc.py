"""Tokens of an issuer: only those that he signed, for this service, now; and nobody takes a local owner's name."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hand_made_service import ApiProcess, HandMade
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from oidc_issuer import AUDIENCE, LocalIssuer

from binworks.service import oidc, tokens
from binworks.service.oidc import Oidc
from binworks.service.settings import Settings
from binworks.tensors.errors import RequestError, TransientError


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    local = LocalIssuer()
    yield local
    local.close()


@pytest.fixture(scope="module")
def api(issuer: LocalIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    made = HandMade.make(tmp_path_factory.mktemp("oidc") / "home")
    changed = {
        "oidc_issuer": issuer.url,
        "oidc_audience": AUDIENCE,
        "oidc_roles": {"analyst": "user", "fitter": "fit", "operator": "admin"},
        "oidc_owners": {"the-real-alice": "alice"},
    }
    made.settings.model_copy(update=changed).save()
    with (
        ApiProcess(made.settings.home, made.settings.port) as process,
        httpx.Client(base_url=process.url, timeout=30) as http,
    ):
        yield http
        process.stop()
    made.database.close()


def status(api: httpx.Client, token: str) -> tuple[int, str | None]:
    answer = api.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.json().get("code")


def unsigned(issuer: LocalIssuer, algorithm: str) -> str:
    parts = [{"alg": algorithm, "kid": "first", "typ": "JWT"}, issuer.claims()]
    return ".".join([*(encoded(json.dumps(part).encode()) for part in parts), ""])


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def test_a_good_token_opens_the_service_in_the_role_that_it_names(
    api: httpx.Client, issuer: LocalIssuer
) -> None:
    def usage(**claims: Any) -> httpx.Response:
        token = issuer.token(**claims)
        return api.get("/v1/usage?owner=alice", headers={"Authorization": f"Bearer {token}"})

    assert status(api, issuer.token()) == (200, None)
    assert usage().status_code == 403
    assert usage(roles=["operator", "fitter"]).status_code == 200
    assert status(api, issuer.token(aud=["other", AUDIENCE])) == (200, None)
    for roles in ([], ["root"], None, {"analyst": 1}):
        assert status(api, issuer.token(roles=roles)) == (403, "missing-scope")
    token = issuer.token(roles="fitter")
    refused = api.post("/v1/jobs", json={}, headers={"Authorization": f"Bearer {token}"})
    assert refused.json()["code"] in ("missing-scope", "invalid-request")


def test_an_issuer_s_alice_is_not_ours_unless_she_is_mapped(api: httpx.Client, issuer: LocalIssuer) -> None:
    def owner(sub: str) -> str:
        headers = {"Authorization": f"Bearer {issuer.token(sub=sub)}"}
        found: str = api.get("/v1/usage", headers=headers).json()["owner"]
        return found

    assert owner("alice") == "oidc:alice"
    assert owner("oidc:alice") == "oidc:oidc:alice"
    assert owner("the-real-alice") == "alice"
    for sub in ("", "a b", "a/b", "x" * 300, "\x00", 7, None, ["alice"]):
        assert status(api, issuer.token(sub=sub)) == (401, "bad-token")


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "another"},
        {"aud": ["another"]},
        {"aud": None},
        {"iss": "https://issuer.example.org"},
        {"iss": None},
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"exp": "never"},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
    ],
)
def test_a_token_for_another_service_or_time_is_refused(
    api: httpx.Client, issuer: LocalIssuer, changed: dict[str, Any]
) -> None:
    assert status(api, issuer.token(**changed)) == (401, "bad-token")


def test_only_a_signature_with_a_published_key_counts(api: httpx.Client, issuer: LocalIssuer) -> None:
    stranger = RSAKey.generate_key(2048)
    header = {"alg": "RS256", "kid": "first"}
    assert status(api, jwt.encode(header, issuer.claims(), stranger)) == (401, "bad-token")
    for named in ({"jwk": stranger.as_dict(private=False)}, {"jku": "http://127.0.0.1:1/keys"}):
        forged = jwt.encode({**header, **named}, issuer.claims(), stranger)
        assert status(api, forged) == (401, "bad-token")
    for secret in (issuer.keys["first"].as_pem(private=False), json.dumps(issuer.published[0]).encode(), b""):
        signed = unsigned(issuer, "HS256")[:-1]
        signature = hmac.digest(secret, signed.encode(), "sha256")
        assert status(api, f"{signed}.{encoded(signature)}") == (401, "bad-token")
    for algorithm in ("none", "None", "HS256", "RS256", ""):
        assert status(api, unsigned(issuer, algorithm)) == (401, "bad-token")
    good = issuer.token()
    head, body, signature = good.split(".")
    assert status(api, f"{head}.{body}.{signature[:-8]}AAAAAAAA") == (401, "bad-token")
    for odd in ("..", "a.b.c", f"{good}.x", f"{head}.{body}", "é.é.é", "x" * 9000):
        headers = {"Authorization": f"Bearer {odd}".encode("latin-1")}
        assert api.get("/v1/jobs", headers=headers).status_code == 401


def test_a_flood_of_unknown_keys_does_not_reach_the_issuer(api: httpx.Client, issuer: LocalIssuer) -> None:
    assert status(api, issuer.token()) == (200, None)
    before = len(issuer.requests)
    stranger = RSAKey.generate_key(2048)
    for i in range(50):
        forged = jwt.encode({"alg": "RS256", "kid": f"key-{i}"}, issuer.claims(), stranger)
        assert status(api, forged) == (401, "bad-token")
    assert len(issuer.requests) - before <= 2


def test_no_token_of_the_issuer_is_written_down(api: httpx.Client, issuer: LocalIssuer, home: Path) -> None:
    token = issuer.token()
    assert status(api, token) == (200, None)
    assert status(api, f"{token}x") == (401, "bad-token")
    for path in home.rglob("*"):
        assert not path.is_file() or token.split(".")[2][:40].encode() not in path.read_bytes(), path


@pytest.fixture
def home(api: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(tmp_path_factory.getbasetemp().glob("oidc*")) / "home"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def own() -> Iterator[LocalIssuer]:
    local = LocalIssuer()
    yield local
    local.close()


def checker(local: LocalIssuer, home: Path, clock: Clock) -> Oidc:
    settings = Settings(home=home, oidc_issuer=local.url, oidc_audience=AUDIENCE, oidc_role="fit")
    return Oidc(settings, steady=clock)


def test_a_new_key_is_found_and_an_old_one_forgotten(own: LocalIssuer, tmp_path: Path) -> None:
    clock = Clock()
    check = checker(own, tmp_path, clock).check
    old = own.token()
    held = check(old)
    assert held is not None
    assert (held.owner, held.role) == ("oidc:carol", "fit")
    own.rotate("second")
    new = own.token("second")
    with pytest.raises(RequestError, match="publishes"):
        check(new)
    clock.now += oidc.FLOOR_SECONDS
    held = check(new)
    assert held is not None
    assert held.owner == "oidc:carol"
    with pytest.raises(RequestError, match="publishes"):
        check(old)


def test_a_withdrawn_key_is_forgotten_without_a_new_one_being_asked_for(
    own: LocalIssuer, tmp_path: Path
) -> None:
    clock = Clock()
    check = checker(own, tmp_path, clock).check
    old = own.token()
    assert check(old)
    own.rotate("second")
    clock.now += oidc.REFRESH_SECONDS + 1
    with pytest.raises(RequestError, match="publishes"):
        check(old)


def test_an_issuer_that_is_away_is_waited_for_a_day(own: LocalIssuer, tmp_path: Path) -> None:
    clock = Clock()
    check = checker(own, tmp_path, clock).check
    own.broken = True
    with pytest.raises(TransientError, match="keys are not known"):
        check(own.token())
    own.broken = False
    clock.now += oidc.FIRST_FLOOR_SECONDS
    assert check(own.token())
    own.broken = True
    clock.now += oidc.STALE_SECONDS / 2
    assert check(own.token())
    clock.now += oidc.STALE_SECONDS
    with pytest.raises(TransientError, match="keys are not known"):
        check(own.token())


def kept_waiting(check: Oidc, shown: Sequence[str]) -> list[float]:
    """Return how long each of many who ask at once waits to hear that the issuer does not answer."""

    def ask(token: str) -> float:
        begin = time.monotonic()
        with pytest.raises(TransientError, match="keys are not known"):
            check.check(token)
        return time.monotonic() - begin

    with ThreadPoolExecutor(len(shown)) as threads:
        return sorted(threads.map(ask, shown))


def test_an_issuer_that_does_not_answer_holds_one_thread_and_is_left_alone_after(
    own: LocalIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "FETCH_SECONDS", 3.0)
    own.answers.clear()
    check = Oidc(Settings(home=tmp_path, oidc_issuer=own.url, oidc_audience=AUDIENCE, oidc_role="fit"))
    token = own.token()
    waited = kept_waiting(check, [token] * 20)
    assert waited[-2] < oidc.WAIT_SECONDS + 1 < waited[-1]
    assert kept_waiting(check, [token] * 20)[-1] < 1, "asked again only some seconds after he gave no answer"
    assert len(own.requests) == 1


def test_known_keys_go_on_while_the_issuer_is_asked_for_new_ones(own: LocalIssuer, tmp_path: Path) -> None:
    clock = Clock()
    check = checker(own, tmp_path, clock)
    old = own.token()
    assert check.check(old)
    own.add("second", RSAKey.generate_key(2048))
    new = own.token("second")
    own.answers.clear()
    clock.now += oidc.FLOOR_SECONDS
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(check.check, new)
        while len(own.requests) < 3:
            time.sleep(0.01)
        assert kept_waiting(check, [new] * 5)[-1] < 1
        begin = time.monotonic()
        assert check.check(old)
        assert time.monotonic() - begin < 1
        own.answers.set()
        assert asking.result()
    assert check.check(new)


def test_local_tokens_are_answered_while_the_issuer_hangs(own: LocalIssuer, tmp_path: Path) -> None:
    own.answers.clear()
    made = HandMade.make(tmp_path / "home")
    changed = {"oidc_issuer": own.url, "oidc_audience": AUDIENCE, "oidc_role": "fit"}
    made.settings.model_copy(update=changed).save()
    ours = [tokens.create(made.database, "alice", ["read"], now=time.time()) for _ in range(10)]
    theirs = [own.token(sub=f"carol{number}") for number in range(60)]

    def ask(token: str) -> tuple[int, float]:
        begin = time.monotonic()
        answer = httpx.get(f"{api.url}/v1/jobs", headers={"Authorization": f"Bearer {token}"}, timeout=60)
        return answer.status_code, time.monotonic() - begin

    with ApiProcess(made.settings.home, made.settings.port) as api, ThreadPoolExecutor(70) as threads:
        asked = [threads.submit(ask, token) for token in theirs]
        time.sleep(0.3)
        answers = list(threads.map(ask, ours))
        assert [status for status, _ in answers] == [200] * len(ours)
        assert max(seconds for _, seconds in answers) < 4
        assert {future.result()[0] for future in asked} == {503}
    made.database.close()


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS512", RSAKey.generate_key(2048)),
        ("PS256", RSAKey.generate_key(2048)),
        ("ES256", ECKey.generate_key("P-256")),
        ("ES384", ECKey.generate_key("P-384")),
        ("Ed25519", OKPKey.generate_key("Ed25519")),
    ],
)
def test_keys_of_each_kind_are_understood(
    own: LocalIssuer, tmp_path: Path, algorithm: str, key: RSAKey | ECKey | OKPKey
) -> None:
    own.add("other", key)
    own.published += [{"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}, {"kty": "new"}, 3]  # type: ignore[list-item]
    assert checker(own, tmp_path, Clock()).check(own.token("other", algorithm))


def test_a_document_of_another_issuer_is_not_believed(own: LocalIssuer, tmp_path: Path) -> None:
    for document in (
        {"issuer": "https://issuer.example.org", "jwks_uri": f"{own.url}/keys"},
        {"issuer": own.url, "jwks_uri": "http://issuer.example.org/keys"},
        {"issuer": own.url},
    ):
        own.document = document
        with pytest.raises(TransientError):
            checker(own, tmp_path, Clock()).check(own.token())


@pytest.mark.parametrize(
    "given",
    [
        {"oidc_issuer": "https://issuer.example.org"},
        {"oidc_audience": "binworks"},
        {"oidc_issuer": "http://issuer.example.org", "oidc_audience": "binworks"},
        {"oidc_issuer": "file:///etc", "oidc_audience": "binworks"},
    ],
)
def test_settings_that_are_not_safe_are_refused(tmp_path: Path, given: dict[str, str]) -> None:
    with pytest.raises(RequestError) as error:
        Oidc.of(Settings(home=tmp_path, **given))  # type: ignore[arg-type]
    assert error.value.code == "bad-settings"


def test_roles_may_lie_deeper(own: LocalIssuer, tmp_path: Path) -> None:
    common = {"oidc_issuer": own.url, "oidc_audience": AUDIENCE, "oidc_roles": {"a": "user"}}
    for name, claims in (
        ("realm_access.roles", {"realm_access": {"roles": ["a"]}}),
        ("https://x.org/r", {"https://x.org/r": "b a"}),
    ):
        settings = Settings(home=tmp_path, oidc_roles_claim=name, **common)  # type: ignore[arg-type]
        held = Oidc(settings).check(own.token(**claims))
        assert held is not None
        assert held.role == "user"
