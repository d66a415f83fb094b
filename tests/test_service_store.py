"""What is stored is whole, checked, never changed, and readable by plain zarr, hist and uhi."""

from __future__ import annotations

import errno
import os
import time
import warnings
from pathlib import Path

import hist
import numpy as np
import pytest
import uhi.schema
import zarr

from binworks.service import layout, store
from binworks.service.store import Store, digest_of
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import RequestError, TransientError
from binworks.tensors.histogram import Histogram

NAME = "ab" * 32


def sums(seed: int = 0, columns: int = 40) -> Accumulator:
    rng = np.random.default_rng(seed)
    axes = (
        hist.axis.Regular(48, -2.4, 2.4, name="eta", flow=False),
        hist.axis.Variable([0, 20, 40, np.inf], name="mt", flow=False),
    )
    nominal = Histogram(axes, rng.random((48, 3)), rng.random((48, 3)))
    block_axes = (*axes, hist.axis.Integer(0, columns, name="column", flow=False))
    return Accumulator(
        {"nominal": nominal, "pdf": Histogram(block_axes, rng.random((48, 3, columns)))}, {"entries": 7}
    )


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store.open(tmp_path.as_uri())


@pytest.mark.parametrize("columns", [1, 40, 5000], ids=["small", "one chunk", "shards"])
def test_sums_come_back_bit_for_bit(local: Store, columns: int) -> None:
    written = sums(columns=columns)
    digest = local.write_accumulator(layout.partial(NAME), written, {"note": 1})
    read = local.read_accumulator(layout.partial(NAME), digest)
    assert digest == digest_of(read) == digest_of(written)
    assert local.attributes(layout.partial(NAME))["note"] == 1
    assert read.counts == {"entries": 7}
    assert read.histograms["nominal"].axes == written.histograms["nominal"].axes
    assert not any((local.root / "tmp").iterdir())


def test_the_digest_tells_one_bit_one_count_and_one_name(local: Store) -> None:
    one, bit, count = sums(), sums(), sums()
    values = bit.histograms["pdf"].values
    values.flat[5] = np.nextafter(values.flat[5], 2)
    count.counts["entries"] += 1
    renamed = Accumulator(
        {"nominal": one.histograms["nominal"], "other": one.histograms["pdf"]}, {"entries": 7}
    )
    assert len({digest_of(a) for a in (one, bit, count, renamed)}) == 4


def test_the_first_writer_wins(local: Store) -> None:
    first = local.write_accumulator(layout.partial(NAME), sums(1))
    local.write_accumulator(layout.partial(NAME), sums(2))
    assert digest_of(local.read_accumulator(layout.partial(NAME))) == first


@pytest.mark.parametrize("victim", ["pdf/values/c.0.0.0", "nominal/variances/c.0.0"])
@pytest.mark.parametrize("damage", ["flip", "remove", "cut"])
def test_damage_is_noticed_when_sums_are_read(local: Store, victim: str, damage: str) -> None:
    local.write_accumulator(layout.partial(NAME), sums())
    path = local.key_path(layout.partial(NAME)) / victim
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
    with pytest.raises(TransientError, match="partials") as caught:
        local.read_accumulator(layout.partial(NAME))
    assert caught.value.code == "damaged"


def test_a_full_disk_is_a_passing_failure_and_leaves_nothing(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_sync", full)
    for write in (
        lambda: local.write_accumulator(layout.partial(NAME), sums()),
        lambda: local.create_json(layout.manifest("j", 1), {}),
    ):
        with pytest.raises(TransientError, match="No space left") as caught:
            write()
        assert caught.value.code == "store-write-failed"
    assert not local.exists(layout.partial(NAME))
    assert not local.exists(layout.manifest("j", 1))
    assert not any((local.root / "tmp").iterdir())


def test_a_manifest_is_created_once(local: Store) -> None:
    assert local.create_json(layout.manifest("j", 1), {"a": 1})
    assert not local.create_json(layout.manifest("j", 1), {"a": 2})
    assert local.read_json(layout.manifest("j", 1)) == {"a": 1}


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", "./a", ".hidden", "a/.b", "a\\..\\b", "a\0b"]
)
def test_keys_cannot_leave_the_store(local: Store, key: str) -> None:
    with pytest.raises(RequestError, match="not the key") as caught:
        local.key_path(key)
    assert caught.value.code == "bad-key"


def test_what_lies_below_a_key_is_listed_and_weighed(local: Store) -> None:
    assert local.children("jobs") == []
    assert local.nbytes("jobs") == 0
    local.create_json(layout.manifest("b", 1), {})
    local.write_accumulator(layout.dataset("a", 1, "W"), sums())
    assert local.children("jobs") == ["a", "b"]
    assert local.children(layout.dataset("a", 1, "W")) == ["nominal", "pdf", "zarr.json"]
    assert local.children(layout.manifest("b", 1)) == []
    files = [path for path in local.key_path("jobs/a").rglob("*") if path.is_file()]
    assert local.nbytes("jobs/a") == sum(path.stat().st_size for path in files)
    assert local.nbytes(layout.manifest("b", 1)) == local.size(layout.manifest("b", 1)) == 3


def test_a_group_says_when_it_was_written(local: Store) -> None:
    begin = time.time()
    local.write_accumulator(layout.partial(NAME), sums())
    written = local.modified(layout.partial(NAME))
    assert written is not None
    assert begin - 2 < written < time.time() + 2
    assert local.modified("partials") is None
    assert local.modified(layout.partial("cd" * 32)) is None


def test_what_is_removed_is_gone_and_can_be_written_again(local: Store) -> None:
    key = layout.partial(NAME)
    digest = local.write_accumulator(key, sums())
    local.create_json(layout.manifest("j", 1), {})
    for victim in (key, layout.manifest("j", 1), key):
        local.remove(victim)
        assert not local.exists(victim)
    assert local.nbytes("partials") == 0
    assert not any((local.root / "tmp").iterdir())
    assert local.write_accumulator(key, sums()) == digest


@pytest.mark.parametrize(("start", "stop"), [(None, None), (1, 3), (None, 2), (2, None), (2, 99), (99, None)])
def test_stored_bytes_come_whole_or_in_part(local: Store, start: int | None, stop: int | None) -> None:
    local.create_json("jobs/j/x.json", [1, 2])
    content = local.key_path("jobs/j/x.json").read_bytes()
    assert local.read_bytes("jobs/j/x.json", start, stop) == content[start:stop]
    assert local.size("jobs/j/x.json") == len(content)


def test_what_is_put_aside_is_kept_for_a_day(local: Store) -> None:
    local.write_accumulator(layout.partial(NAME), sums())
    os.utime(local.key_path(layout.partial(NAME)), (0, 0))
    local.put_aside(layout.partial(NAME))
    local.put_aside(layout.partial(NAME))
    local.remove_stale_drafts()
    (aside,) = (local.root / "tmp").iterdir()
    os.utime(aside, (0, 0))
    local.remove_stale_drafts()
    assert not any((local.root / "tmp").iterdir())


def test_what_is_not_there_is_said_so(local: Store) -> None:
    reads = (local.read_json, local.group, local.read_accumulator, local.attributes)
    for read in (*reads, local.read_bytes, local.size):
        with pytest.raises(RequestError) as caught:
            read("jobs/none/m/1.json")
        assert caught.value.code == "no-such-key"


def test_a_snapshot_is_one_group_for_plain_zarr_hist_and_uhi(local: Store) -> None:
    for name in ("W", "Z"):
        local.write_accumulator(layout.dataset("j", 1, name), sums(), {"group": name})
    local.seal(layout.generation("j", 1), {"job": "j"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = zarr.open_consolidated(local.key_path(layout.generation("j", 1)), mode="r")
    assert dict(root.attrs) == {"job": "j"}
    assert root["W/nominal/values"].shape == (48, 3)
    described = dict(root["Z/nominal"].attrs)["uhi"]
    uhi.schema.validate(
        {
            "nominal": described
            | {"storage": {**described["storage"], "values": [[0.0] * 3] * 48, "variances": [[0.0] * 3] * 48}}
        }
    )
    plain = local.read_histogram(layout.dataset("j", 1, "W"), "nominal").to_hist()
    assert np.array_equal(plain.values(flow=True), sums().histograms["nominal"].values)
    assert local.histogram_names(layout.dataset("j", 1, "W")) == ["nominal", "pdf"]


def test_only_folders_can_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="s3://"):
        Store.open("s3://bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError) as caught:
        Store.open(str(tmp_path / "file"))
    assert caught.value.code == "bad-store"
