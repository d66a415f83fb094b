"""The interface does what its own OpenAPI document says, whatever is sent, and shows nobody what is another's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from hand_made_service import Served, filled
from test_api_jobs import problem

from binworks.api import examples
from binworks.service.model import JobState

pytest_plugins = ["served_fixture"]

CANNOT_BE_GUESSED = """
[[operations]]
include-name = [
  "POST /v1/jobs", "GET /v1/jobs", "GET /v1/jobs/{job}/exports", "POST /v1/jobs/{job}/exports", "POST /v1/tokens"
]
checks.positive_data_acceptance.enabled = false

[[operations]]
include-name = "GET /readyz"
checks = { positive_data_acceptance.enabled = false, not_a_server_error.enabled = false }
"""
"""Names of the catalogue, cursors; that channels have different names, and a token either a role or scopes; that
no scheduler and no driver is there."""


def parameters(served: Served) -> str:
    """Return values with which the routes below a job find something."""
    found = {
        "job": served.job,
        "dataset": "Wplusmunu",
        "name": "nominal",
        "group": "mass",
        "key": "zarr.json",
        "reader": "carol",
        "export": "0" * 24,
    }
    lines = [f'"path.{name}" = "{value}"' for name, value in found.items()]
    return "\n".join(["[parameters]", *lines, '"path.n" = 1', '"query.generation" = 1', ""])


def spare(served: Served) -> str:
    """Return that one job and one token alone may go, and that only a finished job is followed to its end.

    The tool takes ids out of answers.
    """
    job = served.made.submit()
    served.made.move(job, JobState.CANCELLING, JobState.CANCELLED)
    with served.http() as http:
        token = http.post("/v1/tokens", json={"role": "fit", "days": 1}).json()["id"]
    fixed = {
        "DELETE /v1/jobs/{job}": ("job", job),
        "DELETE /v1/tokens/{token}": ("token", token),
        "GET /v1/jobs/{job}/events": ("job", served.job),
    }
    return "".join(
        f'\n[[operations]]\ninclude-name = "{name}"\nparameters = {{ "path.{parameter}" = "{value}" }}\n'
        for name, (parameter, value) in fixed.items()
    )


def run(served: Served, folder: Path, config: str, *options: str) -> str:
    """Let schemathesis do its worst and return what it says; it must find nothing."""
    (folder / "schemathesis.toml").write_text(config)
    command = [
        str(Path(sys.executable).parent / "schemathesis"),
        f"--config-file={folder / 'schemathesis.toml'}",
        "run",
        f"{served.url}/openapi.json",
        "--max-examples=3",
        "--seed=1",
        "--request-timeout=60",
        "--no-color",
        *options,
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert served.job in {job.id for job in served.made.jobs.list(limit=1000).jobs}
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("data", "phases"),
    [("anything", "examples,coverage,stateful"), ("what is there", "coverage,fuzzing,stateful")],
)
def test_every_answer_is_one_that_the_schema_promises(
    served: Served, tmp_path: Path, data: str, phases: str
) -> None:
    config = parameters(served) if data == "what is there" else ""
    config += CANNOT_BE_GUESSED + spare(served)
    header = f"--header=Authorization: Bearer {served.made.tokens['alice']}"
    found = run(served, tmp_path, config, header, f"--phases={phases}")
    assert "Tested: 36" in found, found


def test_of_two_users_neither_is_given_what_the_other_sees(served: Served, tmp_path: Path) -> None:
    users = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {token}"}]}
        for name, token in served.made.tokens.items()
        if name in ("alice", "bob")
    ]
    (tmp_path / "auth.json").write_text(json.dumps({"auth": users}))
    served.made.submit("bob")
    peers = f'\n[auth.wfc]\npath = "{tmp_path / "auth.json"}"\npeers = ["alice", "bob"]\n'
    config = peers + CANNOT_BE_GUESSED + spare(served)
    checks = "--checks=object_level_authorization,ignored_auth"
    run(served, tmp_path, config, checks, "--include-method=GET", "--phases=fuzzing,stateful")


@pytest.fixture(scope="module")
def document(served: Served) -> dict[str, Any]:
    """Return the OpenAPI document."""
    with served.http(None) as http:
        found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give method, path and description of each operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


# what another user must not find: the way there and a body that would be taken
BODIES = {"exports_ask": {"format": "uhi-zip"}}


def addressed(document: dict[str, Any], values: dict[str, str]) -> list[tuple[str, str, Any]]:
    """Return method, address and body of every operation on something of a user's."""
    found = []
    for method, path, operation in operations(document):
        if "{job}" in path or "{token}" in path:
            found.append((method, path.format(**values), BODIES.get(operation["operationId"])))
    return found


def sent(http: httpx.Client, method: str, address: str, body: Any) -> httpx.Response:
    return http.request(method, address, json=body, headers={"Accept": "*/*"})


def test_nobody_finds_what_is_anothers_by_any_way_there_is(served: Served, document: dict[str, Any]) -> None:
    made = served.made
    job = made.finished({"Wplusmunu": filled(41, groups=())})
    with served.http() as alice, served.http("bob") as bob:
        token = alice.post("/v1/tokens", json={"role": "fit", "days": 1}).json()["id"]
        export = alice.post(f"/v1/jobs/{job}/exports", json=BODIES["exports_ask"]).json()["id"]
        ids = {"job": job, "token": token, "export": export}
        names = {"dataset": "Wplusmunu", "name": "nominal", "group": "mass", "n": "1", "key": "zarr.json"}
        ways = addressed(document, {**names, **ids, "reader": "bob"})
        assert len(ways) > 20
        before = alice.get(f"/v1/jobs/{job}").content
        for method, address, body in ways:
            refused = sent(bob, method, address, body)
            assert refused.status_code == 404, f"{method} {address}: {refused.status_code} {refused.text}"
            nobodys = address.replace(job, "nosuchjob2").replace(token, "0" * len(token))
            absent = sent(bob, method, nobodys, body)
            assert absent.status_code == 404
            assert absent.json()["detail"] == refused.json()["detail"], (
                "what is hidden looks like what is not"
            )
        assert alice.get(f"/v1/jobs/{job}").content == before
        assert alice.get(f"/v1/tokens/{token}").status_code == 200
        assert alice.get(f"/v1/jobs/{job}/exports/{export}").status_code == 200
        assert alice.get(f"/v1/jobs/{job}/shares").json()["readers"] == []
        for path in ("/v1/jobs?limit=200", "/v1/tokens", "/v1/usage"):
            assert not any(secret in bob.get(path).text for secret in (job, token, export))


def test_without_a_token_there_is_no_way_to_anything(served: Served, document: dict[str, Any]) -> None:
    names = {"dataset": "Wplusmunu", "name": "nominal", "group": "mass", "n": "1", "key": "zarr.json"}
    values = {**names, "job": served.job, "token": "0" * 12, "export": "0" * 24, "reader": "bob"}
    with served.http(None) as http:
        for method, address, body in addressed(document, values):
            problem(sent(http, method, address, body), 401, "no-token")


def test_every_get_can_be_asked_for_its_head_alone(served: Served, document: dict[str, Any]) -> None:
    names = {"dataset": "Wplusmunu", "name": "nominal", "group": "mass", "n": "1", "key": "zarr.json"}
    values = {**names, "job": served.job}
    with served.http() as http:
        for method, path, _ in operations(document):
            if method != "GET" or "{export}" in path or "{token}" in path or "{reader}" in path:
                continue
            address = path.format(**values)
            whole, head = http.get(address), http.head(address)
            assert (head.status_code, head.content) == (whole.status_code, b""), address
            changing = path in ("/metrics", "/readyz")
            for name in ("content-type", "etag", "cache-control", *(() if changing else ("content-length",))):
                if address != "/metrics" or name != "content-length":  # each request is counted there
                    assert head.headers.get(name) == whole.headers.get(name), f"{address} {name}"


def test_every_operation_has_a_name_and_a_tag_that_is_described(document: dict[str, Any]) -> None:
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    ids = [operation["operationId"] for *_, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for _, path, operation in operations(document):
        (tag,) = operation["tags"]
        assert tag in described, path
        assert operation["operationId"].startswith(f"{tag}_")
        assert operation["summary"], path
        assert operation["description"], path
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_every_body_and_answer_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for part in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media_type, content in part.get("content", {}).items():
                schema = content.get("schema", {})
                if schema.get("format") == "binary":
                    continue
                assert "example" in content, f"{method} {path} {media_type}"
                if media_type.endswith("json"):
                    whole = {**schema, "components": document["components"]}
                    jsonschema.Draft202012Validator(whole).validate(content["example"])


def test_the_links_lead_to_operations_that_are_there(document: dict[str, Any]) -> None:
    known = {operation["operationId"]: operation for *_, operation in operations(document)}
    links = [
        link
        for operation in known.values()
        for answer in operation["responses"].values()
        for link in answer.get("links", {}).values()
    ]
    assert links
    for link in links:
        wanted = {parameter["name"] for parameter in known[link["operationId"]]["parameters"]}
        assert link["parameters"].keys() <= wanted


def test_the_example_of_a_histogram_is_one() -> None:
    import hist
    import uhi.io.json
    import uhi.schema

    uhi.schema.validate(examples.UHI)
    hist.Hist(examples.UHI)
