"""The index of a file: it holds what uproot finds, spares the parsing, and a damaged one is made anew."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import small_nano
import uproot
from hypothesis import given
from hypothesis import strategies as st

from binworks.processors import baskets, pages, reading
from binworks.processors.columns import Field
from binworks.processors.decoding import entry_offsets, join_planes
from binworks.processors.fileindex import DamagedIndexError, FileIndex, Files, Pieces, Shelf, identity
from binworks.processors.pieces import Jagged, PieceReader, Wanted
from binworks.processors.sources import LocalFile

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
NANO = ["nano_dy", "nano_dimuon", "nano_dy_rntuple"]
LAYOUTS = ["ttree", "rntuple"]
FIELDS = (
    Field("run", ("run",), "i8"),
    Field("muon.pt", ("Muon_pt",), "f4", "jagged"),
    Field("muon.phi", ("Muon_phi",), "f4", "jagged"),
    Field("muon.global", ("Muon_isGlobal",), "u1", "jagged"),
    Field("pdf", ("LHEPdfWeight",), "f4", "block"),
)
real = pytest.mark.skipif(
    not (SHARED / "nano_dy.root").exists(), reason="the real CMS files are not beside the project"
)


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget()


def forget() -> None:
    """Be a new process: no file open, no index in memory."""
    reading.close_files()
    reading._indexes.clear()


def write(folder: Path, layout: str, n: int = 1200, cluster: int = 500) -> str:
    suffix = ".root" if layout == "ttree" else ".rntuple.root"
    return str(small_nano.write(folder / f"good{suffix}", small_nano.events(n, 1), cluster=cluster))


def index_of(path: str) -> FileIndex:
    facts = reading.inspect(path)
    return reading._indexes[facts.uuid, facts.size]


def direct(path: str, index: FileIndex, name: str, start: int, stop: int) -> Any:
    branch = index.branches[name]
    assert branch is not None, name
    dtype = np.dtype(branch.content.code.split()[-1]).newbyteorder("=").str
    fetch = baskets.fetch if index.format == "ttree" else pages.fetch
    file = LocalFile(path)
    ((_, value),) = fetch({name: Wanted(branch, dtype)}, PieceReader(file), start, stop)
    file.close()
    return value


def assert_as_uproot_reads(path: str, index: FileIndex, *ranges: tuple[int, int]) -> None:
    with uproot.open(path) as file:
        events = file["Events"]
        n = events.num_entries
        for name in [name for name, branch in index.branches.items() if branch is not None]:
            for start, stop in ranges or ((0, n), (n // 3, 2 * n // 3 + 1), (n - 1, n), (5, 5)):
                ours = direct(path, index, name, start, stop)
                theirs = events[name].array(entry_start=start, entry_stop=stop)
                if isinstance(ours, Jagged):
                    np.testing.assert_array_equal(np.diff(ours.offsets), ak.to_numpy(ak.num(theirs)))
                    ours, theirs = ours.content, ak.flatten(theirs)
                np.testing.assert_array_equal(ours, ak.to_numpy(theirs))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_read_directly_is_what_uproot_reads(layout: str, tmp_path: Path) -> None:
    path = write(tmp_path, layout)
    index = index_of(path)
    assert None not in index.branches.values()
    assert_as_uproot_reads(path, FileIndex.from_bytes(index.to_bytes()))


@real
@pytest.mark.parametrize("name", NANO)
def test_what_is_read_directly_of_real_cms_files_is_what_uproot_reads(name: str) -> None:
    path = str(SHARED / f"{name}.root")
    index = FileIndex.from_bytes(index_of(path).to_bytes())
    left = [branch for branch, found in index.branches.items() if found is None]
    assert all(branch.startswith(("n", "_collection")) for branch in left)  # counters of an RNTuple
    assert_as_uproot_reads(path, index, (3, 38))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", [uproot.ZLIB(1), uproot.LZ4(1), uproot.LZMA(1), uproot.ZSTD(5), None])
def test_every_compression_is_read(layout: str, compression: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.root"
    x, y = np.arange(2000, dtype="f4"), ak.unflatten(np.arange(5000) // 7, [2, 3] * 1000)
    with uproot.recreate(path, compression=compression) as file:
        if layout == "ttree":
            file.mktree("Events", {"x": x, "y": y})
        else:
            file.mkrntuple("Events", ak.zip({"x": x, "y": y}, depth_limit=1))
    index = index_of(str(path))
    assert_as_uproot_reads(str(path), index)
    np.testing.assert_array_equal(direct(str(path), index, "y", 0, 2000).content, np.arange(5000) // 7)


def test_numbers_of_all_types_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    types = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"]
    columns: dict[str, Any] = {f"x_{t.strip('?') or 'b'}": rng.integers(0, 2, 999).astype(t) for t in types}
    columns |= {f"{name}s": ak.unflatten(np.tile(flat, 2), [2] * 999) for name, flat in columns.items()}
    for layout in LAYOUTS:
        path = tmp_path / f"{layout}.root"
        with uproot.recreate(path) as file:
            if layout == "ttree":
                file.mktree("Events", columns)
            else:
                file.mkrntuple("Events", ak.zip(columns, depth_limit=1))
        index = index_of(str(path))
        assert None not in index.branches.values()
        assert_as_uproot_reads(str(path), index)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_the_index_nothing_is_parsed(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, shelf = write(tmp_path, layout), Shelf(Files(tmp_path / "indexes"))
    first = reading.inspect(path, shelf)
    expected = reading.read(path, first.uuid, FIELDS, 450, 777)
    forget()
    monkeypatch.setattr(reading.uproot, "open", None)
    assert reading.inspect(path, shelf) == first
    columns = reading.read(path, first.uuid, FIELDS, 450, 777)
    for field in FIELDS:
        np.testing.assert_array_equal(columns[field.name], expected[field.name])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_address_that_only_uproot_understands_gives_the_same_bits(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, layout)
    facts = reading.inspect(path)
    expected = reading.read(path, facts.uuid, FIELDS, 450, 777)
    forget()
    monkeypatch.setattr(reading, "open_source", lambda *_: None)  # as for https://
    assert reading.inspect(path) == facts
    columns = reading.read(path, facts.uuid, FIELDS, 450, 777)
    for field in FIELDS:
        np.testing.assert_array_equal(columns[field.name], expected[field.name])
        assert columns[field.name].dtype == expected[field.name].dtype


def test_branches_of_a_collection_share_one_array_of_offsets(tmp_path: Path) -> None:
    path = write(tmp_path, "ttree")
    opened = reading._open(path, reading.inspect(path).uuid)
    values: dict[str, Any] = {}
    original = reading.build

    def look(*args: Any) -> Any:
        values.update({name: args[2](name) for name in ("Muon_pt", "Muon_phi")})
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "build", look)
        opened.columns(FIELDS, 0, 1200, "here")
    assert values["Muon_pt"].offsets is values["Muon_phi"].offsets


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_index_is_whole_after_the_way_through_a_file(layout: str, tmp_path: Path) -> None:
    made = index_of(write(tmp_path, layout))
    again = FileIndex.from_bytes(made.to_bytes())
    assert again.to_bytes() == made.to_bytes()
    assert (again.uuid, again.size, again.entries, again.clusters, again.format) == (
        made.uuid,
        made.size,
        made.entries,
        made.clusters,
        made.format,
    )
    assert list(again.branches) == list(made.branches)


@real
def test_the_index_of_1500_branches_is_small() -> None:
    assert len(index_of(str(SHARED / "nano_dy.root")).to_bytes()) < 25_000


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data[:200] + bytes([data[200] ^ 1]) + data[201:]


def older(data: bytes) -> bytes:
    return data.replace(b"index/1", b"index/0", 1)


@pytest.mark.parametrize("damage", [cut, flip, older, lambda _: b""])
def test_a_damaged_index_is_made_anew(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path, shelf = write(tmp_path, "ttree"), Shelf(Files(tmp_path / "indexes"))
    facts = reading.inspect(path, shelf)
    (kept,) = (tmp_path / "indexes").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    with pytest.raises(DamagedIndexError):
        FileIndex.from_bytes(kept.read_bytes())
    forget()
    assert reading.inspect(path, shelf) == facts
    assert [file.read_bytes() for file in (tmp_path / "indexes").iterdir()] == [whole]


def test_an_index_of_another_file_is_not_used(tmp_path: Path) -> None:
    path, shelf = write(tmp_path, "ttree"), Shelf(Files(tmp_path / "indexes"))
    old = reading.inspect(path, shelf)
    small_nano.write(Path(path), small_nano.events(700, 2))
    new = reading.inspect(path, shelf)
    assert (old.entries, new.entries) == (1200, 700)
    ((tmp_path / "indexes") / f"{old.uuid}-{old.size}").replace(
        (tmp_path / "indexes") / f"{new.uuid}-{new.size}"
    )
    forget()
    assert reading.inspect(path, shelf) == new


def test_a_shelf_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "indexes").write_text("a file where the folder should be")
    shelf = Shelf(Files(tmp_path / "indexes"))
    path = write(tmp_path, "ttree")
    assert reading.inspect(path, shelf).entries == reading.inspect(path).entries
    assert shelf.find("0", 0) is None


@pytest.mark.parametrize("name", ["small", "large"])
def test_a_files_identity_stands_in_its_first_bytes(name: str, tmp_path: Path) -> None:
    path = Path(write(tmp_path, "ttree", n=10))
    with uproot.open(path) as file:
        expected = (str(file.file.uuid), file.file.fEND)
    header = path.read_bytes()[:100]
    if name == "large":  # as of files beyond 2 GB: version + 1000000, three numbers of eight bytes
        fields = struct.unpack_from(">4siiiiiiiBiiiH16s", header)
        header = struct.pack(">4siiqqiiiBiqiH16s", fields[0], fields[1] + 1_000_000, *fields[2:]).ljust(100)
    found = identity(header)
    assert (found.uuid, found.end) == expected


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk", [100, 333, 500, 1200])
def test_no_piece_is_decompressed_twice_in_a_row_of_ranges(
    layout: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, layout)
    facts = reading.inspect(path)
    seen: Counter[int] = Counter()
    original = PieceReader._unpacked

    def count(self: PieceReader, pieces: Pieces, number: int, unpack: Any) -> Any:
        seen[int(pieces.positions[number])] += 1
        return original(self, pieces, number, unpack)

    monkeypatch.setattr(PieceReader, "_unpacked", count)
    whole = reading.read(path, facts.uuid, FIELDS, 0, 1200)
    baseline = dict(seen)
    assert set(baseline.values()) == {1}
    seen.clear()
    reading.close_files()
    parts = [
        reading.read(path, facts.uuid, FIELDS, start, min(start + chunk, 1200))
        for start in range(0, 1200, chunk)
    ]
    assert dict(seen) == baseline
    for field in FIELDS:
        np.testing.assert_array_equal(np.concatenate([part[field.name] for part in parts]), whole[field.name])


def test_at_most_one_piece_of_a_branch_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "ttree", cluster=100)
    facts = reading.inspect(path)
    opened = reading._open(path, facts.uuid)
    for start in (0, 730, 250):
        opened.columns(FIELDS, start, start + 333, "here")
        assert len(opened._reader._kept) == len(FIELDS)
        for number, pieces, basket in opened._reader._kept.values():
            memory = basket.data if basket.data.base is None else basket.data.base
            assert memory.nbytes < 2 * 100 * 8 * 8, (number, pieces)  # its own, not that of a larger one
    opened.columns(FIELDS, 0, 1200, "here")
    assert not opened._reader._kept


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    shift=st.integers(0, 3),
    key_length=st.integers(60, 90),
    base=st.integers(0, 10),
    data=st.data(),
)
def test_entry_offsets_are_those_of_the_plain_computation(
    lengths: list[int], shift: int, key_length: int, base: int, data: Any
) -> None:
    ends = np.concatenate([[0], np.cumsum(lengths)]) << shift
    low = data.draw(st.integers(0, len(lengths)))
    high = data.draw(st.integers(low, len(lengths)))
    stored = (ends + key_length).astype(">i4").view(np.uint8)[4 * low :]
    out = np.empty(high - low + 1, np.int64)
    assert entry_offsets(stored, ends[low], ends[high], key_length, shift, base, out) == 0
    np.testing.assert_array_equal(out, (ends[low : high + 1] - ends[low]) // (1 << shift) + base)


@pytest.mark.parametrize("ends", [[0, 8, 4, 12], [0, 6, 8, 12], [0, 8, 16, 12], [4, 0, 8, 12]])
def test_entries_that_do_not_follow_each_other_are_counted(ends: list[int]) -> None:
    stored = np.array(ends[:-1], ">i4").view(np.uint8)
    assert entry_offsets(stored, 0, ends[-1], 0, 2, 0, np.empty(4, np.int64)) > 0


@given(numbers=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=40), data=st.data())
@pytest.mark.parametrize("dtype", ["u2", "u4", "u8", "f4", "f8"])
def test_planes_are_joined_as_by_a_transposition(dtype: str, numbers: list[int], data: Any) -> None:
    values = np.array(numbers, dtype)
    stored = np.ascontiguousarray(values.view(np.uint8).reshape(len(values), -1).T).reshape(-1)
    first = data.draw(st.integers(0, len(values)))
    last = data.draw(st.integers(first, len(values)))
    out = np.empty(last - first, dtype)
    join_planes(stored, first, out)
    np.testing.assert_array_equal(out, values[first:last])


@given(numbers=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=40), data=st.data())
@pytest.mark.parametrize("encoding", ["zigzag", "delta", "split", "plain"])
def test_encodings_of_pages_are_undone(encoding: str, numbers: list[int], data: Any) -> None:
    values = np.array(numbers, "<i4")
    stored = {
        "zigzag": ((values << 1) ^ (values >> 31)).view("<u4"),
        "delta": np.diff(values, prepend=0).astype("<i4"),
        "split": values,
        "plain": values,
    }[encoding]
    raw = stored.view(np.uint8)
    if encoding != "plain":
        raw = np.ascontiguousarray(raw.reshape(len(values), 4).T).reshape(-1)
    first = data.draw(st.integers(0, len(values)))
    last = data.draw(st.integers(first, len(values)))
    decoded = pages._DECODERS[encoding](raw, np.dtype("<i4"), first, last)
    np.testing.assert_array_equal(decoded, values[first:last])


@given(bits=st.lists(st.booleans(), min_size=1, max_size=40), data=st.data())
def test_bits_are_unpacked_lowest_first(bits: list[bool], data: Any) -> None:
    stored = np.packbits(bits, bitorder="little")
    first = data.draw(st.integers(0, len(bits)))
    last = data.draw(st.integers(first, len(bits)))
    np.testing.assert_array_equal(
        pages._DECODERS["bit"](stored, np.dtype("u1"), first, last), bits[first:last]
    )
