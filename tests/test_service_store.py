"""What is stored is whole, checked, never changed, and readable by plain zarr, hist and uhi."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import hist
import numpy as np
import pytest
import uhi.schema
import zarr

from binworks.service import folders, layout, store
from binworks.service.store import Store, digest_of
from binworks.tensors.accumulator import Accumulator
from binworks.tensors.errors import RequestError, TransientError
from binworks.tensors.histogram import Histogram

pytest_plugins = ["bucket_fixture"]

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


@pytest.fixture(params=["folder", "bucket"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store.open(tmp_path.as_uri())
    return Store.open(request.getfixturevalue("bucket_url"))


@pytest.mark.parametrize("columns", [1, 40, 5000], ids=["small", "one chunk", "shards"])
def test_sums_come_back_bit_for_bit(anywhere: Store, columns: int) -> None:
    written = sums(columns=columns)
    digest = anywhere.write_accumulator(layout.partial(NAME), written, {"note": 1})
    read = anywhere.read_accumulator(layout.partial(NAME), digest)
    assert digest == digest_of(read) == digest_of(written)
    assert anywhere.attributes(layout.partial(NAME))["note"] == 1
    assert read.counts == {"entries": 7}
    assert read.histograms["nominal"].axes == written.histograms["nominal"].axes
    assert anywhere.children("tmp") == []


def test_the_digest_tells_one_bit_one_count_and_one_name(local: Store) -> None:
    one, bit, count = sums(), sums(), sums()
    values = bit.histograms["pdf"].values
    values.flat[5] = np.nextafter(values.flat[5], 2)
    count.counts["entries"] += 1
    renamed = Accumulator(
        {"nominal": one.histograms["nominal"], "other": one.histograms["pdf"]}, {"entries": 7}
    )
    assert len({digest_of(a) for a in (one, bit, count, renamed)}) == 4


def test_the_first_writer_wins(anywhere: Store) -> None:
    first = anywhere.write_accumulator(layout.partial(NAME), sums(1))
    anywhere.write_accumulator(layout.partial(NAME), sums(2))
    assert digest_of(anywhere.read_accumulator(layout.partial(NAME))) == first


@pytest.mark.parametrize("victim", ["pdf/values/c.0.0.0", "nominal/variances/c.0.0"])
@pytest.mark.parametrize("damage", ["flip", "remove", "cut"])
def test_damage_is_noticed_when_sums_are_read(anywhere: Store, victim: str, damage: str) -> None:
    key = f"{layout.partial(NAME)}/{victim}"
    anywhere.write_accumulator(layout.partial(NAME), sums())
    content = bytearray(anywhere.read_bytes(key))
    anywhere.remove(key)
    if damage == "flip":
        content[len(content) // 2] ^= 1
        anywhere.objects.create(key, bytes(content))
    elif damage == "cut":
        anywhere.objects.create(key, bytes(content[: len(content) // 2]))
    with pytest.raises(TransientError, match="partials") as caught:
        anywhere.read_accumulator(layout.partial(NAME))
    assert caught.value.code == "damaged"


def test_a_full_disk_is_a_passing_failure_and_leaves_nothing(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folders, "_sync", full)
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


def test_a_manifest_is_created_once(anywhere: Store) -> None:
    assert anywhere.create_json(layout.manifest("j", 1), {"a": 1})
    assert not anywhere.create_json(layout.manifest("j", 1), {"a": 2})
    assert anywhere.read_json(layout.manifest("j", 1)) == {"a": 1}


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", "./a", ".hidden", "a/.b", "a\\..\\b", "a\0b"]
)
def test_keys_cannot_leave_the_store(anywhere: Store, key: str) -> None:
    with pytest.raises(RequestError, match="not the key") as caught:
        anywhere.read_bytes(key)
    assert caught.value.code == "bad-key"


def test_what_lies_below_a_key_is_listed_and_weighed(anywhere: Store) -> None:
    assert anywhere.children("jobs") == []
    assert anywhere.nbytes("jobs") == 0
    anywhere.create_json(layout.manifest("b", 1), {})
    anywhere.write_accumulator(layout.dataset("a", 1, "W"), sums())
    assert anywhere.children("jobs") == ["a", "b"]
    assert anywhere.children(layout.dataset("a", 1, "W")) == ["nominal", "pdf", "zarr.json"]
    assert anywhere.children(layout.manifest("b", 1)) == []
    stored = sum(size for _, size in anywhere.objects.walk("jobs/a"))
    assert anywhere.nbytes("jobs/a") == stored > 4000
    facts = anywhere.attributes(layout.dataset("a", 1, "W"))
    assert facts["stored"] == stored - anywhere.size(f"{layout.dataset('a', 1, 'W')}/zarr.json")
    assert anywhere.nbytes(layout.manifest("b", 1)) == anywhere.size(layout.manifest("b", 1)) == 3


def test_a_group_says_when_it_was_written(anywhere: Store) -> None:
    begin = time.time()
    anywhere.write_accumulator(layout.partial(NAME), sums())
    written = anywhere.modified(layout.partial(NAME))
    assert written is not None
    assert begin - 2 < written < time.time() + 2  # a bucket tells whole seconds
    assert anywhere.modified("partials") is None
    assert anywhere.modified(layout.partial("cd" * 32)) is None


def test_what_is_removed_is_gone_and_can_be_written_again(anywhere: Store) -> None:
    key = layout.partial(NAME)
    digest = anywhere.write_accumulator(key, sums())
    anywhere.create_json(layout.manifest("j", 1), {})
    for victim in (key, layout.manifest("j", 1), key):
        anywhere.remove(victim)
        assert not anywhere.exists(victim)
    assert anywhere.nbytes("partials") == 0
    assert anywhere.children("tmp") == []
    assert anywhere.write_accumulator(key, sums()) == digest


@pytest.mark.parametrize(
    ("start", "stop"),
    [(None, None), (1, 3), (None, 2), (2, None), (2, 99), (99, None), (99, 100), (2, 2), (-3, None)],
)
def test_stored_bytes_come_whole_or_in_part(anywhere: Store, start: int | None, stop: int | None) -> None:
    anywhere.create_json("jobs/j/x.json", [1, 2])
    content = anywhere.read_bytes("jobs/j/x.json")
    assert anywhere.read_bytes("jobs/j/x.json", start, stop) == content[start:stop]
    assert anywhere.size("jobs/j/x.json") == len(content)


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


def test_what_is_not_there_is_said_so(anywhere: Store) -> None:
    reads = (anywhere.read_json, anywhere.group, anywhere.read_accumulator, anywhere.attributes)
    for read in (*reads, anywhere.read_arrays, anywhere.read_bytes, anywhere.size):
        with pytest.raises(RequestError) as caught:
            read("jobs/none/m/1.json")
        assert caught.value.code == "no-such-key"


def test_a_snapshot_is_one_group_for_plain_zarr_hist_and_uhi(anywhere: Store, tmp_path: Path) -> None:
    for name in ("W", "Z"):
        anywhere.write_accumulator(layout.dataset("j", 1, name), sums(), {"group": name})
    anywhere.seal(layout.generation("j", 1), {"job": "j"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        root = zarr.open_consolidated(
            copied(anywhere, layout.generation("j", 1), tmp_path / "copy"), mode="r"
        )
    assert dict(root.attrs) == {"job": "j"}
    assert root["W/nominal/values"].shape == (48, 3)
    described = dict(root["Z/nominal"].attrs)["uhi"]
    uhi.schema.validate(
        {
            "nominal": described
            | {"storage": {**described["storage"], "values": [[0.0] * 3] * 48, "variances": [[0.0] * 3] * 48}}
        }
    )
    plain = anywhere.read_histogram(layout.dataset("j", 1, "W"), "nominal").to_hist()
    assert np.array_equal(plain.values(flow=True), sums().histograms["nominal"].values)
    assert anywhere.histogram_names(layout.dataset("j", 1, "W")) == ["nominal", "pdf"]


def copied(there: Store, prefix: str, folder: Path) -> Path:
    """Copy all that lies below a key into a folder."""
    for key, _ in there.objects.walk(prefix):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(there.read_bytes(key))
    return folder / prefix


def test_no_chunk_that_is_lost_reads_as_zeros(anywhere: Store) -> None:
    anywhere.write_accumulator(layout.partial(NAME), sums())
    group = anywhere.group(layout.partial(NAME))
    anywhere.remove(f"{layout.partial(NAME)}/pdf/values/c.0.0.0")
    with pytest.raises(TransientError) as caught:
        group["pdf/values"][0, 0, 0]  # type: ignore[index]
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("text", [b"", b"{", b'{"zarr_format": 3, "node_type": "group"'])
def test_a_group_whose_root_is_torn_is_damaged(anywhere: Store, text: bytes) -> None:
    key = layout.partial(NAME)
    anywhere.write_accumulator(key, sums())
    anywhere.remove(f"{key}/zarr.json")
    anywhere.objects.create(f"{key}/zarr.json", text)
    for read in (anywhere.read_accumulator, anywhere.attributes, anywhere.read_arrays):
        with pytest.raises(TransientError) as caught:
            read(key)
        assert (caught.value.code, caught.value.where) == ("damaged", key)


def test_a_group_that_lost_its_root_is_written_again(anywhere: Store) -> None:
    digest = anywhere.write_accumulator(layout.partial(NAME), sums())
    anywhere.remove(f"{layout.partial(NAME)}/zarr.json")
    with pytest.raises(RequestError, match="Nothing is stored"):
        anywhere.read_accumulator(layout.partial(NAME))
    assert anywhere.write_accumulator(layout.partial(NAME), sums()) == digest
    assert digest_of(anywhere.read_accumulator(layout.partial(NAME))) == digest


def test_too_little_memory_is_no_damage(anywhere: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(*_: object) -> None:
        raise MemoryError

    anywhere.write_accumulator(layout.partial(NAME), sums())
    monkeypatch.setattr(store, "_read_histogram", starve)
    with pytest.raises(MemoryError):
        anywhere.read_accumulator(layout.partial(NAME))


def test_arrays_come_back_with_their_facts(anywhere: Store) -> None:
    arrays = {"a": np.arange(7.0), "b": np.array([[1, 2]]), "none": np.zeros((0, 3))}
    anywhere.write_arrays(layout.expansion("j", "pdf"), arrays, {"group": "pdf"})
    facts, read = anywhere.read_arrays(layout.expansion("j", "pdf"))
    assert facts == {"group": "pdf"}
    assert {name: array.tolist() for name, array in read.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


def test_an_empty_snapshot_cannot_be_sealed(anywhere: Store) -> None:
    anywhere.write_accumulator(layout.dataset("j", 1, "W"), sums())
    anywhere.remove(layout.generation("j", 1))
    with pytest.raises(RequestError) as caught:
        anywhere.seal(layout.generation("j", 1), {})
    assert caught.value.code == "no-such-key"
    assert not anywhere.exists(layout.generation("j", 1))


def test_what_can_be_made_again_is_kept_and_replaced_and_never_an_error(anywhere: Store) -> None:
    cache = anywhere.cache("indexes")
    assert cache.get("a") is None
    cache.put("a", b"1")
    cache.put("a", b"2")
    assert cache.get("a") == b"2"
    cache.put("../b", b"3")
    assert cache.get("../b") is None


def test_a_store_that_can_be_written_says_so_and_is_left_as_it_was(anywhere: Store) -> None:
    for _ in range(2):
        anywhere.probe()
    assert anywhere.children("tmp") == []


def test_only_known_addresses_can_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="ftp://") as caught:
        Store.open("ftp://user:password@host/x")
    assert caught.value.code == "unknown-store"
    assert "password" not in str(caught.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError) as caught:
        Store.open(str(tmp_path / "file"))
    assert caught.value.code == "bad-store"


def fill_up(there: Store) -> None:
    """Write sums until there is no space, and see that none is there in part."""
    names: list[str] = []
    refused: TransientError | None = None
    while refused is None:
        names.append(f"{len(names):064x}")
        try:
            there.write_accumulator(layout.partial(names[-1]), sums(len(names), columns=500))
        except TransientError as error:
            refused = error
    assert refused.code == "store-write-failed"
    assert "No space left" in refused.message
    assert len(names) > 2
    assert not any((there.root / "tmp").iterdir())
    assert not there.exists(layout.partial(names[-1]))
    for seed, name in enumerate(names[:-1], 1):
        assert there.read_accumulator(layout.partial(name)).counts == sums(seed).counts
    there.remove(layout.partial(names[0]))
    there.write_accumulator(layout.partial(names[-1]), sums(columns=500))


def test_on_a_disk_that_is_full_sums_are_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=8m none {tmp_path} && exec {sys.executable} -c "
    program = f"import test_service_store as t; t.fill_up(t.Store.open({str(tmp_path)!r})); print('sound')"
    if subprocess.run(["unshare", "-rm", "sh", "-c", f"{mount} ''"], capture_output=True).returncode:
        pytest.skip("a disk cannot be mounted here (unshare -rm, mount -t tmpfs)")
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} "$0"', program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert done.stdout == "sound\n", done.stderr
