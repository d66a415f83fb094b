"""What one copies from a job's page into a notebook or a terminal; the token is never in it."""

from __future__ import annotations

from binworks.service.model import JobView


def of(address: str, job: JobView) -> dict[str, str]:
    """Return pieces of code by their language.

    Parameters
    ----------
    address : str
        Of the service, as the reader knows it.
    job : JobView
    """
    dataset = job.datasets[0].name
    partial = "" if job.complete else "allow_partial=True"
    return {
        "Python": _python(address, job.id, dataset, partial),
        "Command line": _command_line(address, job.id, partial),
        "curl": _curl(address, job.id, dataset),
        "zarr": _zarr(address, job, dataset),
    }


def _python(address: str, job: str, dataset: str, partial: str) -> str:
    more = f", {partial}" if partial else ""
    return f"""from binworks.client import Client

client = Client("{address}")
job = client.job("{job}")
h = job.histogram("{dataset}"{more})  # a hist.Hist
tensor = job.tensor({partial})"""


def _command_line(address: str, job: str, partial: str) -> str:
    more = " --allow-partial" if partial else ""
    return f"""export BINWORKS_URL={address}
binworks watch {job}
binworks pull {job} --out tensor.npz{more}"""


def _curl(address: str, job: str, dataset: str) -> str:
    return f"""curl -H "Authorization: Bearer $BINWORKS_TOKEN" \\
  {address}/v1/jobs/{job}

curl -H "Authorization: Bearer $BINWORKS_TOKEN" \\
  -H "Accept: application/zip" -o {dataset}.zip \\
  {address}/v1/jobs/{job}/histograms/{dataset}/nominal"""


def _zarr(address: str, job: JobView, dataset: str) -> str:
    return f"""import os, zarr

token = os.environ["BINWORKS_TOKEN"]
group = zarr.open_group(
    "{address}/v1/jobs/{job.id}/zarr/{job.generation or 1}", mode="r",
    storage_options={{"headers": {{"Authorization": f"Bearer {{token}}"}}}},
)
values = group["{dataset}/nominal/values"][...]"""
