"""The application: settings in, routes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

import binworks
from binworks.api import (
    catalogue,
    dashboard,
    events,
    expansions,
    exports,
    health,
    histograms,
    jobs,
    openapi,
    pages,
    problems,
    sessions,
    sharing,
    tokens,
    usage,
    zarrfiles,
)
from binworks.api.context import Context
from binworks.api.headers import SecureHeaders
from binworks.api.limits import Limits
from binworks.service.settings import Settings

DESCRIPTION = """Submit a job, watch it run, pull its histograms.

Every error is a problem document (RFC 9457) with a stable `code`. Snapshots are immutable: name a
`generation`, and the answer never changes."""


class Guarded(FastAPI):
    """The application behind what guards it: outermost, as an answer to a mistake of ours is guarded, too."""

    settings: Settings

    def build_middleware_stack(self) -> ASGIApp:
        """Return the application as requests meet it."""
        return SecureHeaders(Limits(super().build_middleware_stack(), self.settings))


def create_app(settings: Settings) -> FastAPI:
    """Return the application over the job database and the store that the settings name."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.context = Context.open(settings)
        app.state.context.exporting.start()
        yield
        await app.state.context.close()

    app = Guarded(
        title="binworks",
        version=binworks.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=openapi.operation_id,
    )
    app.settings = settings
    routers = [
        noun.router
        for noun in (  # those that are asked for most come first
            jobs,
            events,
            zarrfiles,
            histograms,
            health,
            catalogue,
            usage,
            sharing,
            tokens,
            sessions,
            dashboard,
            expansions,
            exports,
            pages,
        )
    ]
    for router in routers:
        app.include_router(router)
    problems.install(app, [*app.routes, *(route for router in routers for route in router.routes)])
    openapi.install(app)
    pages.install(app)
    return app
