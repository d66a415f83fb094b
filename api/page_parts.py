"""The parts of a page that change while one looks at it: each is rendered alike for the page and for its stream."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from binworks.api import page_facts
from binworks.api.auth import User
from binworks.api.context import Context
from binworks.api.page_templates import render
from binworks.service.model import JobState, JobView
from binworks.tensors import incomplete

PAGE = 50
JOB_PARTS = ("status", "actions", "datasets", "failures")
_ENDING = (JobState.CANCELLING, JobState.CANCELLED)


@dataclass(frozen=True)
class Allowed:
    """What one may do to a job, in its present state.

    Parameters
    ----------
    cancel, retry, delete : bool
    """

    cancel: bool
    retry: bool
    delete: bool

    @classmethod
    def of(cls, view: JobView, user: User) -> Allowed:
        """Return what this user may do."""
        if not may_change(view, user):
            return cls(cancel=False, retry=False, delete=False)
        over = view.state.finished
        return cls(
            cancel=not over and view.state not in _ENDING,
            retry=over and not view.complete and view.state not in _ENDING,
            delete=over,
        )


def may_change(view: JobView, user: User) -> bool:
    """Whether a job is one's own, with a token that may change it."""
    return not user.scopes.isdisjoint(("submit", "admin")) and user.sees in (None, view.owner)


def completeness(view: JobView) -> tuple[str, str]:
    """Return a word for the style, and how far the latest snapshot can be trusted."""
    if view.generation is None:
        return "none", "no snapshot yet"
    if view.complete:
        return "complete", "complete"
    if not view.state.finished:
        return "partial", f"snapshot {view.generation}"
    facts = {
        "complete": False,
        "fraction": view.counts.fraction,
        "missing": {"files": [entry.path for entry in view.missing.files if entry.unit is None]},
    }
    return "incomplete", incomplete.mark(facts)


def rows(context: Context, user: User, state: JobState | None, cursor: str | None) -> str:
    """Return the table of a page of jobs."""
    page = context.jobs.list(viewer=user.sees, state=state, cursor=cursor, limit=PAGE, shelf=context.shelf)
    owners = user.sees is None or any(view.owner != user.name for view in page.jobs)
    shown = [(view, *completeness(view)) for view in page.jobs]
    return render("_jobs.html", jobs=shown, owners=owners, next=page.next, state=state, first=cursor is None)


def job_parts(context: Context, user: User, job: str) -> tuple[JobView, dict[str, str]]:
    """Return a job, and the parts of its page by name.

    Raises
    ------
    RequestError
        Code ``unknown-job``.
    """
    view = context.jobs.get(job, user.sees)
    word, said = completeness(view)
    parts = {
        "status": render("_status.html", job=view, word=word, said=said),
        "actions": render("_actions.html", job=view, allowed=Allowed.of(view, user)),
        "datasets": render("_datasets.html", job=view),
        "failures": render("_failures.html", job=view, failures=page_facts.failures(context, view)),
    }
    return view, parts


def marks(parts: Mapping[str, str]) -> str:
    """Return what tells whether the parts are the same: it goes into the address of the stream."""
    return "-".join(mark(parts[name]) for name in JOB_PARTS)


def changed(parts: Mapping[str, str], seen: Sequence[str]) -> list[str]:
    """Return the names of the parts that differ from those that were seen."""
    known = dict(zip(JOB_PARTS, seen, strict=False))
    return [name for name in JOB_PARTS if known.get(name) != mark(parts[name])]


def mark(part: str) -> str:
    """Return a short digest of a part."""
    return hashlib.sha256(part.encode()).hexdigest()[:8]
