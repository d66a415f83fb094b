"""What the OpenAPI document says beyond the routes: names of operations, tags, examples, and what leads to what."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from binworks.api import examples
from binworks.api.problems import MEDIA_TYPE as PROBLEM

JSON = "application/json"
TAGS = {
    "service": "Whether it is there, and what it can do.",
    "catalogue": "What can be asked for.",
    "usage": "What you use, and may use.",
    "jobs": "Submit, watch, end, try again.",
    "sharing": "Who else may read a job.",
    "tokens": "Who may ask.",
    "session": "The web page's way in.",
    "events": "What happens to a job, as it happens.",
    "histograms": "Sums of a snapshot, and named variations of them.",
    "expansions": "How compact sums become named variations.",
    "exports": "Files for fits.",
    "zarr": "The stored bytes, for any zarr client.",
}
EXAMPLES = {
    "text/event-stream": examples.EVENT,
    "text/plain": examples.METRICS,
    PROBLEM: examples.PROBLEM,
}
"""Of what is no JSON with a schema of its own."""
_PROBLEM = {"$ref": "#/components/schemas/ProblemDocument"}
_ABOUT = {HTTPStatus.NOT_MODIFIED: "It is what `If-None-Match` names."}
_PROBLEM = {"$ref": "#/components/schemas/ProblemDocument"}
_JOB = {"job": "$response.body#/id"}
_TOKEN = {"token": "$response.body#/id"}
_EXPORT = {"job": "$response.body#/job", "export": "$response.body#/id"}
LINKS: dict[tuple[str, str], dict[str, dict[str, str]]] = {
    ("jobs_submit", "201"): dict.fromkeys(("jobs_status", "jobs_units", "jobs_cancel"), _JOB),
    ("jobs_cancel", "202"): {"jobs_status": _JOB},
    ("catalogue_processors", "200"): {"catalogue_processor": {"name": "$response.body#/0/name"}},
    ("exports_ask", "201"): dict.fromkeys(("exports_status", "exports_file", "exports_delete"), _EXPORT),
    ("tokens_create", "201"): dict.fromkeys(("tokens_one", "tokens_revoke"), _TOKEN),
}
"""After an operation with this status: what can follow, and from where in the answer its parameters are."""


def operation_id(route: APIRoute) -> str:
    """Return the name of an operation: its first tag, and the function behind it."""
    return "_".join([*map(str, route.tags[:1]), route.name])


def install(app: FastAPI) -> None:
    """Let the application describe itself in full; after all its routes are there."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete(plain())
        document: dict[str, Any] = app.openapi_schema or {}
        return document

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to change it


def complete(document: dict[str, Any]) -> None:
    """Add tags, examples, links, and the answers that all operations of a kind may give to a document."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            _add_answers(operation["responses"], _common(path, method, operation))
    operations = {operation["operationId"]: operation for operation in _operations(document)}
    used = {tag for operation in operations.values() for tag in operation.get("tags", ())}
    document["tags"] = [{"name": tag, "description": about} for tag, about in TAGS.items() if tag in used]
    for operation in operations.values():
        for media_type, content in _contents(operation):
            if not content.keys() & {"example", "examples"}:
                _exemplify(media_type, content)
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    for (name, status), following in LINKS.items():
        operations[name]["responses"][status]["links"] = {
            other: {"operationId": other, "parameters": parameters} for other, parameters in following.items()
        }


def _common(path: str, method: str, operation: dict[str, Any]) -> list[HTTPStatus]:
    """Return the statuses that an operation may answer with because it is of its kind."""
    common = [HTTPStatus.NOT_MODIFIED] if method == "get" and path.startswith("/v1/jobs") else []
    if "requestBody" in operation:
        common += [HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE]
    return [*common, HTTPStatus.TOO_MANY_REQUESTS] if path.startswith("/v1/") else common


def _add_answers(answers: dict[str, Any], common: list[HTTPStatus]) -> None:
    for status in common:
        answers.setdefault(str(int(status)), {"description": _ABOUT.get(status, status.phrase)})
    for number, answer in answers.items():
        if number >= "400":  # FastAPI describes errors as plain JSON, some in a shape of its own
            given = answer.get("content", {}).get(PROBLEM)
            answer["content"] = {PROBLEM: given or {"schema": dict(_PROBLEM)}}


def _operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from methods.values()


def _contents(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the media types of an operation's body and answers."""
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from part.get("content", {}).items()


def _exemplify(media_type: str, content: dict[str, Any]) -> None:
    example = EXAMPLES.get(media_type) or _example(content.get("schema", {}))
    if media_type == JSON and example is None and content.get("schema") == {"type": "object"}:
        example = examples.UHI
    if example is not None:
        content["example"] = example


def _example(schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return examples.BY_SCHEMA.get(schema["$ref"].rpartition("/")[2])
    one = _example(schema["items"]) if "items" in schema else None
    return None if one is None else [one]
