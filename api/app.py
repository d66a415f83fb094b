"""The application: settings in, routes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import binworks
from binworks.api import (
    catalogue,
    events,
    expansions,
    health,
    histograms,
    jobs,
    problems,
    sharing,
    tokens,
    usage,
    zarrfiles,
)
from binworks.api.context import Context
from binworks.service.settings import Settings

DESCRIPTION = """Submit a job, watch it run, pull its histograms.

Every error is a problem document (RFC 9457) with a stable `code`. Snapshots are immutable: name a
`generation`, and the answer never changes."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application over the job database and the store that the settings name."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.context = Context.open(settings)
        yield
        await app.state.context.close()

    app = FastAPI(title="binworks", version=binworks.__version__, description=DESCRIPTION, lifespan=lifespan)
    routers = [
        noun.router
        for noun in (
            health,
            catalogue,
            usage,
            jobs,
            sharing,
            tokens,
            events,
            histograms,
            expansions,
            zarrfiles,
        )
    ]
    for router in routers:
        app.include_router(router)
    problems.install(app, [*app.routes, *(route for router in routers for route in router.routes)])
    return app
