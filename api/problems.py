"""Problem documents (RFC 9457): the one shape of every answer that is not what was asked for."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from binworks.api.heads import Heads
from binworks.tensors.errors import (
    BinworksError,
    ConflictError,
    InputError,
    PayloadError,
    PhysicsError,
    RequestError,
    TransientError,
)

MEDIA_TYPE = "application/problem+json"
log = logging.getLogger(__name__)


class Wrong(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="For example `body.datasets.0`.")
    message: str


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457), for people and for programs."""

    type: str = Field(description="`urn:binworks:problem:` and the code.")
    title: str = Field(description="The HTTP status in words.")
    status: int
    detail: str = Field(description="What was expected, what was found.")
    code: str = Field(description="Stable; programs match on it.")
    kind: str = Field(description="Class in the tree of errors, for example `RequestError`.")
    where: str | None = Field(None, description="The field, file, job or unit concerned.")
    hint: str | None = Field(None, description="What to do about it.")
    errors: list[Wrong] = Field(default_factory=list, description="All that is wrong with the request.")


class NotFoundError(RequestError):
    """There is nothing at this address, or nothing that the asker may see."""

    default_code = "not-found"


class UnauthorizedError(RequestError):
    """No token, or one that is not valid (any more)."""

    default_code = "unauthorized"


class ForbiddenError(RequestError):
    """The token is valid and not meant for this."""

    default_code = "forbidden"


_STATUS: tuple[tuple[type[BinworksError], HTTPStatus], ...] = (  # the first that fits
    (NotFoundError, HTTPStatus.NOT_FOUND),
    (UnauthorizedError, HTTPStatus.UNAUTHORIZED),
    (ForbiddenError, HTTPStatus.FORBIDDEN),
    (ConflictError, HTTPStatus.CONFLICT),
    (RequestError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InputError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (PayloadError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (PhysicsError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (TransientError, HTTPStatus.SERVICE_UNAVAILABLE),
    (BinworksError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
_STATUS_OF_CODE = {
    "bad-request": HTTPStatus.BAD_REQUEST,
    "target-too-long": HTTPStatus.REQUEST_URI_TOO_LONG,
    "head-too-large": HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "unsupported-media-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "unknown-job": HTTPStatus.NOT_FOUND,
    "unknown-token": HTTPStatus.NOT_FOUND,
    "too-many-tokens": HTTPStatus.TOO_MANY_REQUESTS,
    "not-yours": HTTPStatus.FORBIDDEN,
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "too-many-requests": HTTPStatus.TOO_MANY_REQUESTS,
    "wrong-host": HTTPStatus.MISDIRECTED_REQUEST,
    "unknown-export": HTTPStatus.NOT_FOUND,
    "too-many-exports": HTTPStatus.TOO_MANY_REQUESTS,
    "too-many-jobs": HTTPStatus.TOO_MANY_REQUESTS,
    "too-many-units": HTTPStatus.TOO_MANY_REQUESTS,
    "too-much-stored": HTTPStatus.TOO_MANY_REQUESTS,
    "too-much-cpu": HTTPStatus.TOO_MANY_REQUESTS,
}
_RETRY_SECONDS = {HTTPStatus.SERVICE_UNAVAILABLE: 2, HTTPStatus.TOO_MANY_REQUESTS: 60}
_CODE_OF_STATUS = {
    HTTPStatus.BAD_REQUEST: "bad-request",
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method-not-allowed",
    HTTPStatus.NOT_ACCEPTABLE: "not-acceptable",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-large",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "range-not-satisfiable",
}
_TREE = (ConflictError, RequestError, InputError, PayloadError, PhysicsError, TransientError, BinworksError)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI should say about the errors of a route."""
    return {
        status: {
            "model": ProblemDocument,
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        for status in statuses
    }


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Let every error of the application be answered by a problem document; ``routes`` are all there are."""
    app.state.routes = routes
    app.add_exception_handler(BinworksError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(Heads)


def answer(error: BinworksError, errors: list[Wrong] | None = None) -> JSONResponse:
    """Return the problem document of an error of ours."""
    status = _STATUS_OF_CODE.get(error.code) or next(
        status for kind, status in _STATUS if isinstance(error, kind)
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if status in _RETRY_SECONDS:
        headers["Retry-After"] = str(_RETRY_SECONDS[status])
    kind = next(kind for kind in _TREE if isinstance(error, kind))
    return _document(
        status,
        error.message,
        error.code,
        kind.__name__,
        where=error.where,
        hint=error.hint,
        errors=errors,
        headers=headers,
    )


def _document(
    status: HTTPStatus,
    detail: str,
    code: str,
    kind: str,
    *,
    where: str | None = None,
    hint: str | None = None,
    errors: list[Wrong] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    document = ProblemDocument(
        type=f"urn:binworks:problem:{code}",
        title=status.phrase,
        status=status,
        detail=detail,
        code=code,
        kind=kind,
        where=where,
        hint=hint,
        errors=errors or [],
    )
    return JSONResponse(document.model_dump(), status, headers, media_type=MEDIA_TYPE)


def _ours(_request: Request, error: Exception) -> JSONResponse:
    answered = answer(cast("BinworksError", error))
    if answered.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s", error, exc_info=error)
    return answered


def _invalid(request: Request, error: Exception) -> JSONResponse:
    found = cast("RequestValidationError", error)
    if any(item["loc"][0] == "body" for item in found.errors()) and not _is_json(request):
        sent = request.headers.get("content-type")
        return answer(
            RequestError(
                f"The body is sent as {sent or 'something without a type'}; expected is JSON.",
                code="unsupported-media-type",
                hint="Send `Content-Type: application/json`.",
            )
        )
    wrong = [Wrong(where=_place(item["loc"]), message=_printable(item["msg"])) for item in found.errors()]
    summary = "; ".join(f"{item.where}: {item.message}" for item in wrong[:3])
    hint = "The schemas are in /openapi.json, readable at /docs."
    return answer(
        RequestError(
            f"The request is not valid: {summary}.", code="invalid-request", where=wrong[0].where, hint=hint
        ),
        wrong,
    )


def _place(parts: Sequence[Any]) -> str:
    """Return where a field is; a validator that stands among its names is none of the asker's."""
    return ".".join(str(part) for part in parts if "[" not in str(part))


def _is_json(request: Request) -> bool:
    """Whether a body is sent as JSON, or none is sent at all."""
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not sent:
        return (
            request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers
        )
    return sent == "application/json" or (sent.startswith("application/") and sent.endswith("+json"))


def _printable(message: str) -> str:
    """Lone surrogates of a request's strings cannot be sent back as UTF-8."""
    return message.encode("utf-8", "backslashreplace").decode()


def _http(request: Request, error: Exception) -> JSONResponse:
    error = cast("HTTPException", error)
    status = HTTPStatus(error.status_code)
    code = _CODE_OF_STATUS.get(status, f"http-{status}")
    detail = error.detail if error.detail != status.phrase else status.description or status.phrase
    headers = error.headers
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = {"Allow": ", ".join(_allowed(request))}
    return _document(status, detail, code, "RequestError", headers=headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods of all routes at this path; the router knows only those of the first."""
    methods: set[str] = set()
    for route in request.app.state.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE:
            methods |= route.methods or set()
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


def _database(_request: Request, error: Exception) -> JSONResponse:
    log.error("the job database does not answer: %s", error)
    return answer(
        TransientError("The job database does not answer.", code="no-database", hint="Try again in a moment.")
    )


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    incident = f"incident {secrets.token_hex(6)}"
    route = getattr(request.scope.get("route"), "path", "?")
    log.error("%s: %s %s failed", incident, request.method, route, exc_info=error)
    hint = "The service's log says more under this name."
    return answer(BinworksError("The service made a mistake.", where=incident, hint=hint))
