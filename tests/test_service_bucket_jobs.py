"""A whole service on a bucket: the same bits as on a folder, read over HTTP by plain zarr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import service_toys
import zarr
from bucket_server import SECRET, BucketServer
from service_toys import Running, registered, serial, write_all

from binworks.service import layout

pytest_plugins = ["bucket_fixture"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, data: Path, bucket_server: BucketServer
) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    places = {"data_roots": (str(data),), "store": bucket_server.new_bucket()}
    with (
        registered(home / "toys"),
        service_toys.service(home / "home", workers=2, snapshot_seconds=0.5, **places) as service,
    ):
        yield service


@pytest.fixture(scope="module")
def job(running: Running, data: Path) -> str:
    files = {"A": write_all(data / "a", 4, 3600), "B": write_all(data / "b", 2, 1300)}
    view = running.wait(running.submit(files, options={"pause": 0.05}).id, 120)
    assert view.complete, view
    return view.id


@pytest.fixture
def web(running: Running, job: str) -> Iterator[httpx.Client]:
    generation = running.jobs.get(job).generation
    token = (running.settings.home / "token").read_text().strip()
    with httpx.Client(
        base_url=f"{running.settings.url}/v1/jobs/{job}/zarr/{generation}/",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    ) as client:
        yield client


def test_a_job_on_a_bucket_gives_the_bits_of_a_folder(running: Running, job: str, tmp_path: Path) -> None:
    digests = running.digests(job)
    _, resolved = running.service_ledger().load(job)
    for dataset in resolved.datasets:
        assert digests[dataset.name] == serial(tmp_path / dataset.name, dataset, resolved)
    assert not (running.settings.home / "store").exists()
    assert len(running.store.children("indexes")) == 6


def test_a_second_job_finds_the_partials_of_the_first(running: Running, job: str, data: Path) -> None:
    files = {name: [str(path) for path in sorted((data / name.lower()).iterdir())] for name in ("A", "B")}
    again = running.wait(running.submit(files, options={"pause": 0.05}).id, 120)
    assert all(unit.reused for unit in running.units(again.id))
    assert running.digests(again.id) == running.digests(job)


def test_plain_zarr_reads_a_snapshot_in_a_bucket_through_the_api(
    running: Running, job: str, web: httpx.Client
) -> None:
    generation = running.jobs.get(job).generation or 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(
            str(web.base_url).rstrip("/"), mode="r", storage_options={"headers": dict(web.headers)}
        )
        values = group["A/nominal/values"][...]  # type: ignore[index]
    expected = running.store.read_histogram(layout.dataset(job, generation, "A"), "nominal").values
    assert np.array_equal(values, expected)


def test_stored_bytes_come_in_ranges_with_a_tag(running: Running, job: str, web: httpx.Client) -> None:
    key = "A/nominal/values/c.0"
    prefix = layout.generation(job, running.jobs.get(job).generation or 0)
    stored = running.store.read_bytes(f"{prefix}/{key}")
    answer = web.get(key)
    assert (answer.status_code, answer.content) == (200, stored)
    for asked, expected in [
        ("bytes=3-9", stored[3:10]),
        ("bytes=-5", stored[-5:]),
        ("bytes=7-", stored[7:]),
    ]:
        part = web.get(key, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, expected)
    assert web.get(key, headers={"Range": f"bytes={len(stored)}-"}).status_code == 416
    assert web.get(key, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    head = web.head(key)
    assert (head.headers["Content-Length"], head.content) == (str(len(stored)), b"")


@pytest.mark.parametrize(
    "key", ["", "A", "A/", "nothing", "../../m/1.json", "A/../zarr.json", "%2e%2e/1/zarr.json"]
)
def test_nothing_else_in_the_bucket_can_be_reached(web: httpx.Client, key: str) -> None:
    assert web.get(key.replace("..", "%2e%2e")).status_code == 404


def test_a_lost_chunk_is_an_error_and_not_zeros(running: Running, job: str, web: httpx.Client) -> None:
    generation = running.jobs.get(job).generation or 0
    running.store.remove(f"{layout.dataset(job, generation, 'B')}/nominal/values/c.0")
    answer = web.get("B/nominal/values/c.0")
    assert (answer.status_code, answer.json()["code"]) == (503, "damaged")
    assert web.get("B/nominal/values/c.1").status_code == 404
    assert web.get("B/nominal/c.0").status_code == 404


def test_no_credentials_are_written_down(running: Running, job: str) -> None:
    files = [path for path in running.settings.home.rglob("*") if path.is_file()]
    assert any(path.name == "driver.log" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
