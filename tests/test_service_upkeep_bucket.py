"""Collecting, checking and repairing work on a bucket as on a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver_bench import Bench, HereCluster
from service_toys import registered, write_all
from sqlalchemy import select

from binworks.service import fsck, gc, layout, rim
from binworks.service.database import units
from binworks.service.store import Store

pytest_plugins = ["bucket_fixture"]


@pytest.fixture
def bench(tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(rim, "TICK_SECONDS", 0.01)
    bench = Bench(tmp_path, HereCluster(), Store.open(bucket_url))
    bench.settings = bench.rim.settings = bench.running.settings = bench.settings.model_copy(
        update={"store": bucket_url}
    )
    with registered(tmp_path / "toys"):
        yield bench
    bench.rim.thread.shutdown()
    bench.database.close()


def check(bench: Bench, *, repair: bool = False) -> fsck.Report:
    return fsck.check(bench.database, bench.rim.store, bench.settings, repair=repair)


def chunk(store: Store, key: str) -> str:
    """Return the key of the sums of a group."""
    return next(key for key, _ in store.objects.walk(f"{key}/nominal/values") if not key.endswith(".json"))


def test_damage_on_a_bucket_is_found_and_mended_and_garbage_goes(bench: Bench) -> None:
    store = bench.rim.store
    files = write_all(bench.settings.home / "data", 2, 1500)
    (view,) = bench.drive(bench.running.submit({"D": files, "E": files[:1]}).id, seconds=120.0)
    n, digests = view.generation or 0, bench.running.digests(view.id)
    assert check(bench).findings == []

    with bench.database.read() as connection:
        partial = layout.partial(str(connection.execute(select(units.c.partial)).scalars().first()))
    flipped = chunk(store, layout.dataset(view.id, n, "D"))
    content = bytearray(store.read_bytes(flipped))
    content[len(content) // 2] ^= 1
    store.objects.replace(flipped, bytes(content))
    store.objects.remove(chunk(store, layout.dataset(view.id, n, "E")))
    store.objects.remove(chunk(store, partial))
    store.objects.remove(layout.manifest(view.id, n))
    assert {"manifest-damaged", "partial-damaged"} == {finding.kind for finding in check(bench).findings}
    report = check(bench, repair=True)
    assert not report.sound, "without a manifest nobody knows what its sums were"

    again = bench.running.submit({"D": files, "E": files[:1]}).id
    (second,) = bench.drive(again, seconds=120.0)
    assert bench.running.digests(again) == digests
    for name in ("D", "E"):
        store.objects.remove(chunk(store, layout.dataset(again, second.generation or 0, name)))
    report = check(bench, repair=True)
    assert {"repaired"} == {f.outcome for f in report.findings if f.job == again and f.level == "damage"}
    assert bench.running.digests(again) == digests

    settings = bench.settings.model_copy(update={"keep_partials_days": 0.0, "keep_snapshots_seconds": 0.0})
    report = gc.collect(bench.database, store, settings, time.time() + 1, thorough=True)
    assert report.partials > 4
    assert store.children("partials") == []
    assert bench.running.digests(again) == digests
