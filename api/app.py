"""The application: settings in, routes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.types import ASGIApp

import binworks
from binworks.api import (
    catalogue,
    dashboard,
    docs_page,
    events,
    expansions,
    exports,
    health,
    histograms,
    jobs,
    metrics,
    openapi,
    pages,
    problems,
    sessions,
    sharing,
    tokens,
    usage,
    zarrfiles,
)
from binworks.api.checks import Checks
from binworks.api.context import Context
from binworks.api.headers import SecureHeaders
from binworks.api.limits import Limits
from binworks.api.observed import Observed, Requests
from binworks.api.watch import Watched
from binworks.service.logs import Lines
from binworks.service.settings import Settings

DESCRIPTION = """Submit a job, watch it run, pull its histograms.

Every error is a problem document (RFC 9457) with a stable `code`. Snapshots are immutable: name a
`generation`, and the answer never changes."""


class Guarded(FastAPI):
    """The application behind what guards it: outermost, as an answer to a mistake of ours is guarded, too."""

    settings: Settings
    requests: Requests
    access: Lines

    def build_middleware_stack(self) -> ASGIApp:
        """Return the application as requests meet it."""
        guarded = SecureHeaders(Limits(Watched(super().build_middleware_stack()), self.settings))
        return Observed(guarded, self.requests, self.access)


def create_app(settings: Settings) -> FastAPI:
    """Return the application over the job database and the store that the settings name."""
    registry = metrics.new_registry()
    access = Lines(settings.logs / "access.log" if settings.log_to == "files" else None)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.context = context = Context.open(settings)
        app.state.checks = Checks(settings, context.database, context.store)
        counts = metrics.Ledger(context.database, app.state.checks)
        registry.register(counts)
        writing = asyncio.create_task(_flush(access), name="access log")
        context.exporting.start()
        yield
        await context.close()
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        access.close()
        registry.unregister(counts)

    app = Guarded(
        title="binworks",
        version=binworks.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # our own, without scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=openapi.operation_id,
    )
    app.settings = settings
    app.state.registry = registry
    app.requests, app.access = Requests(registry), access
    routers = [
        noun.router
        for noun in (  # those that are asked for most come first
            jobs,
            events,
            zarrfiles,
            histograms,
            health,
            metrics,
            catalogue,
            usage,
            sharing,
            tokens,
            sessions,
            dashboard,
            expansions,
            exports,
            pages,
            docs_page,
        )
    ]
    for router in routers:
        app.include_router(router)
    problems.install(app, [*app.routes, *(route for router in routers for route in router.routes)])
    openapi.install(app)
    pages.install(app)
    return app


async def _flush(access: Lines) -> None:
    """Write the access log each second."""
    while True:
        await asyncio.sleep(1.0)
        access.flush()
