"""What one copies from a job's page into a notebook or a terminal; the token is never in it."""

from __future__ import annotations

from binworks.api.snapshots import NOMINAL
from binworks.service.model import JobView


def of(address: str, job: JobView, histogram: str = NOMINAL) -> dict[str, str]:
    """Return pieces of code by their language.

    Parameters
    ----------
    address : str
        Of the service, as the reader knows it.
    job : JobView
    histogram : str
        One that the job has.
    """
    dataset = job.datasets[0].name
    pieces = {
        "Python": _python(address, job, dataset, histogram),
        "Command line": _command_line(address, job, histogram),
        "curl": _curl(address, job.id, dataset, histogram),
    }
    if job.generation is not None:
        pieces["zarr"] = _zarr(address, job.id, job.generation, dataset, histogram)
    return pieces


def _python(address: str, job: JobView, dataset: str, histogram: str) -> str:
    partial = "" if job.complete else "allow_partial=True"
    given = [
        f'"{dataset}"',
        *([] if histogram == NOMINAL else [f'"{histogram}"']),
        *([partial] if partial else []),
    ]
    tensor = f"\ntensor = job.tensor({partial})  # for a fit" if histogram == NOMINAL else ""
    return f"""from binworks.client import Client

client = Client("{address}")
job = client.job("{job.id}")
h = job.histogram({", ".join(given)})  # a hist.Hist{tensor}"""


def _command_line(address: str, job: JobView, histogram: str) -> str:
    more = "" if job.complete else " --allow-partial"
    export = f"\nbinworks export {job.id} --format rabbit --out fit.hdf5"
    return f"""export BINWORKS_URL={address}
binworks watch {job.id}
binworks pull {job.id} --out histograms.zip{more}{export if histogram == NOMINAL and job.complete else ""}"""


def _curl(address: str, job: str, dataset: str, histogram: str) -> str:
    return f"""curl -H "Authorization: Bearer $BINWORKS_TOKEN" \\
  {address}/v1/jobs/{job}

curl -H "Authorization: Bearer $BINWORKS_TOKEN" \\
  -H "Accept: application/zip" -o {dataset}.zip \\
  {address}/v1/jobs/{job}/histograms/{dataset}/{histogram}"""


def _zarr(address: str, job: str, generation: int, dataset: str, histogram: str) -> str:
    return f"""import os, zarr

token = os.environ["BINWORKS_TOKEN"]
group = zarr.open_group(
    "{address}/v1/jobs/{job}/zarr/{generation}", mode="r",
    storage_options={{"headers": {{"Authorization": f"Bearer {{token}}"}}}},
)
values = group["{dataset}/{histogram}/values"][...]"""
