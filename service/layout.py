"""The keys of the store: where everything of a job lies."""

from __future__ import annotations


def partial(name: str) -> str:
    """Return the group of a partial or of a merged node."""
    return f"partials/{name}"


def partial_of(key: str) -> str | None:
    """Return the name of the partial that a key is of; None if it is of something else."""
    folder, _, name = key.partition("/")
    return name.split("/")[0] if folder == "partials" and name else None


def job(job_id: str) -> str:
    """Return the folder of a job."""
    return f"jobs/{job_id}"


def description(job_id: str) -> str:
    """Return the document that says what was asked, resolved."""
    return f"jobs/{job_id}/job.json"


def plan(job_id: str, retried_after: int = 0) -> str:
    """Return the document that lists the units of work; a job that is tried again after a snapshot may get another."""
    return f"jobs/{job_id}/plan-{retried_after}.json" if retried_after else f"jobs/{job_id}/plan.json"


def expansion(job_id: str, group: str) -> str:
    """Return the group that holds how a variation group expands."""
    return f"jobs/{job_id}/expansions/{group}"


def generation(job_id: str, n: int) -> str:
    """Return the group of a snapshot."""
    return f"jobs/{job_id}/g/{n}"


def dataset(job_id: str, n: int, name: str) -> str:
    """Return the group of a data set within a snapshot."""
    return f"jobs/{job_id}/g/{n}/{name}"


def manifest(job_id: str, n: int) -> str:
    """Return the document whose creation publishes a snapshot."""
    return f"jobs/{job_id}/m/{n}.json"


def exports(job_id: str, export: str | None = None) -> str:
    """Return the folder of the files that were made for fits, or those of one export."""
    return f"jobs/{job_id}/x/{export}" if export else f"jobs/{job_id}/x"


def export(job_id: str, export_id: str, fence: int) -> str:
    """Return the file that one attempt at an export made."""
    return f"{exports(job_id, export_id)}/{fence}"
