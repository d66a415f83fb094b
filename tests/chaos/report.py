"""What the kills cost: counted from the ledger, the store and the journals; nothing is estimated."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from binworks.service import layout
from binworks.service.database import generations, job_events, merges, units
from binworks.service.model import JobState
from binworks.service.store import Store, digest_of
from chaos.journal import Fill, redone
from chaos.kills import Kill
from chaos.upkept import Upkept

COLORS = (
    "tab:red",
    "tab:orange",
    "tab:blue",
    "tab:green",
    "tab:purple",
    "black",
    "tab:brown",
    "tab:pink",
    "tab:cyan",
)


def job_facts(service: Upkept, job: str, expected: dict[str, str], events: int) -> dict[str, Any]:
    """Return what became of a job; ``expected`` are the digests of a serial run by data set."""
    view = service.jobs.get(job)
    facts: dict[str, Any] = {"job": job, "state": str(view.state)}
    if view.state != JobState.SUCCEEDED:
        return {**facts, "error": view.error and view.error.model_dump()}
    store = Store.open(service.settings.store_url)
    n = view.generation or 0
    found = {name: digest_of(store.read_accumulator(layout.dataset(job, n, name))) for name in expected}
    manifest = store.read_json(layout.manifest(job, n))
    with service.database.read() as connection:
        counted = _counted(connection, job)
    return {
        **facts,
        "identical": found == expected,
        "complete": view.complete,
        "lost": events - counted["entries"],
        "in_manifest": sum(unit["entries"] for unit in manifest["units"]) == events,
        "units": counted["done"],
        "units_twice": counted["done"] - counted["distinct"],
        "not_done": counted["rows"] - counted["done"],
        "snapshots_in_order": counted["snapshots"] == sorted(set(counted["snapshots"])),
    }


def _counted(connection: Connection, job: str) -> dict[str, Any]:
    done = (units.c.job == job, units.c.state == "done")
    kinds = (job_events.c.job == job, job_events.c.kind == "snapshot")
    query = select(
        func.count(), func.count(units.c.unit.distinct()), func.coalesce(func.sum(units.c.entries), 0)
    ).where(*done)
    count, distinct, entries = connection.execute(query).one()
    rows = connection.execute(select(func.count()).where(units.c.job == job)).scalar_one()
    told = connection.execute(select(job_events.c.data).where(*kinds).order_by(job_events.c.id)).scalars()
    snapshots = [data["n"] for data in told]
    return {"done": count, "distinct": distinct, "entries": entries, "rows": rows, "snapshots": snapshots}


def sound(facts: dict[str, Any]) -> bool:
    """Whether a job came to its end with every event once and the bits of a serial run."""
    good = all(
        facts.get(name) is True for name in ("identical", "complete", "in_manifest", "snapshots_in_order")
    )
    return good and all(facts.get(name) == 0 for name in ("lost", "units_twice", "not_done"))


def losses(kills: Sequence[Kill], fills: Sequence[Fill]) -> list[dict[str, Any]]:
    """Return what each kill cost: the fills that were under way or not yet committed, and came to nothing."""
    lost: dict[int, list[Fill]] = defaultdict(list)
    for fill in redone(fills):
        later = [i for i, kill in enumerate(kills) if kill.struck >= fill.begun]
        lost[later[0] if later else -1].append(fill)
    table = []
    for i, kill in enumerate(kills):
        cut = [fill for fill in lost[i] if fill.ended is None]
        seconds = sum((fill.ended or max(kill.time, fill.begun)) - fill.begun for fill in lost[i])
        table.append(
            {
                "what": kill.what,
                "at": round(kill.time - kills[0].time, 3),
                "victims": kill.victims,
                "units_redone": len(lost[i]),
                "cut_short": len(cut),
                "seconds_redone": round(seconds, 3),
                "recovery": None if kill.recovery is None else round(kill.recovery, 3),
                "back": round(kill.back, 3),
                **kill.notes,
            }
        )
    if lost[-1]:
        table.append({"what": "no kill", "victims": [], "units_redone": len(lost[-1])})
    return table


def by_victim(table: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the costs for each kind of kill."""
    kinds: dict[str, dict[str, float]] = {}
    for what in dict.fromkeys(row["what"] for row in table):
        rows = [row for row in table if row["what"] == what]
        recoveries = [row["recovery"] for row in rows if row.get("recovery") is not None]
        kinds[what] = {
            "kills": len(rows),
            "units_redone": sum(row["units_redone"] for row in rows),
            "most_units_redone": max(row["units_redone"] for row in rows),
            "median_recovery": median(recoveries) if recoveries else 0.0,
            "longest_recovery": max(recoveries, default=0.0),
        }
    return kinds


def shares(service: Upkept) -> dict[str, float]:
    """Return the seconds of workers for filling, committing, merging and snapshots, and the share of the last three."""
    with service.database.read() as connection:

        def total(column: Any, *where: Any) -> float:
            return float(
                connection.execute(select(func.coalesce(func.sum(column), 0.0)).where(*where)).scalar_one()
            )

        fresh = units.c.reused.is_(False)
        seconds, commit = total(units.c.seconds, fresh), total(units.c.commit_seconds, fresh)
        merge, snapshot = total(merges.c.seconds), total(generations.c.seconds)
        known = connection.execute(select(func.count(units.c.commit_seconds))).scalar_one()
    all_ = seconds + merge + snapshot
    share = (commit + merge + snapshot) / all_ if all_ else 0.0
    parts = {"units": seconds, "commit": commit, "merge": merge, "snapshot": snapshot}
    return {
        **{name: round(value, 3) for name, value in parts.items()},
        "share": round(share, 4),
        "measured": known,
    }


def summary(table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all kills."""
    recoveries = [row["recovery"] for row in table if row.get("recovery") is not None]
    per_worker = [row["units_redone"] / max(1, _workers(row["victims"])) for row in table]
    return {
        "kills": sum(row["what"] != "no kill" for row in table),
        "median_recovery": round(median(recoveries), 3) if recoveries else None,
        "longest_recovery": max(recoveries, default=None),
        "units_redone": sum(row["units_redone"] for row in table),
        "kills_by_units_redone": dict(sorted(Counter(row["units_redone"] for row in table).items())),
        "most_units_redone_a_worker_killed": max(per_worker, default=0),
    }


def _workers(victims: Sequence[str]) -> int:
    """Return how many workers died: with their nanny, or without."""
    found = Counter(victims)
    return max(found["worker"] + found["frozen worker"], found["nanny"])


def plot(service: Upkept, kills: Sequence[Kill], target: Path) -> None:
    """Draw the units committed over time, with a mark for each kill."""
    with service.database.read() as connection:
        query = select(units.c.finished).where(units.c.state == "done").order_by(units.c.finished)
        times = list(connection.execute(query).scalars())
    start = min([*times[:1], *(kill.time for kill in kills[:1])])
    with mpl.rc_context({"svg.hashsalt": "chaos", "font.size": 11}):
        figure = Figure((11, 5), layout="constrained")
        axes = figure.add_subplot()
        axes.step([t - start for t in times], range(1, len(times) + 1), where="post", color="0.3", lw=2)
        kinds = list(dict.fromkeys(kill.what for kill in kills))
        for color, what in zip(COLORS, kinds, strict=False):
            mine = [kill.time - start for kill in kills if kill.what == what]
            heights = [sum(t - start <= at for t in times) for at in mine]
            axes.scatter(mine, heights, color=color, s=40, zorder=3, label=f"{what} ({len(mine)})")
        axes.set_xlabel("time / s")
        axes.set_ylabel("units committed")
        axes.legend(title="killed or frozen", loc="upper left")
        axes.grid(alpha=0.3)
        figure.savefig(target, dpi=110)
