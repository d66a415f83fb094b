"""What every route works with: the settings, the jobs, their snapshots and the store, opened once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from binworks.api.bearers import Bearers
from binworks.api.cached import Changes, Shelf, Views
from binworks.api.exporting import Exporting
from binworks.api.feed import Feed
from binworks.api.upstream import Upstream
from binworks.service.database import Database
from binworks.service.exports import Exports
from binworks.service.jobs import Jobs
from binworks.service.oidc import Oidc
from binworks.service.pins import Pins
from binworks.service.quotas import Limits
from binworks.service.settings import Settings
from binworks.service.store import Store


@dataclass(frozen=True)
class Context:
    """The parts of the service behind the routes."""

    settings: Settings
    database: Database
    jobs: Jobs
    pins: Pins
    store: Store
    bearers: Bearers
    changes: Changes
    views: Views
    feed: Feed
    shelf: Shelf
    exports: Exports
    exporting: Exporting
    dashboard: Upstream

    @classmethod
    def open(cls, settings: Settings) -> Context:
        """Open the job database and the store that the settings name."""
        database = Database(settings.database_url)
        database.create_tables()
        jobs = Jobs(database, limits=Limits.of(settings))
        store = Store.open(settings.store_url)
        bearers, changes = Bearers(database, Oidc.of(settings)), Changes(database)
        views, feed = Views(changes), Feed(jobs, changes)
        exports = Exports(database, limit=settings.max_exports, limits=jobs.limits)
        return cls(
            settings,
            database,
            jobs,
            Pins(database),
            store,
            bearers,
            changes,
            views,
            feed,
            Shelf(),
            exports,
            Exporting(settings, exports),
            Upstream(settings),
        )

    async def close(self) -> None:
        """Give back what is open."""
        await self.dashboard.close()
        await self.exporting.close()
        await self.feed.close()
        self.changes.close()
        self.database.close()


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Ctx = Annotated[Context, Depends(_context)]
