"""A bucket keeps the promises of a folder, whatever replies are lost and whoever is killed."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from bucket_server import SECRET, BucketServer
from lying_bucket import LOST, UNCONDITIONAL, LyingBucket
from test_service_store import NAME, sums

from binworks.service import buckets, failures, layout, up
from binworks.service.buckets import Bucket
from binworks.service.retry import Kind
from binworks.service.store import Store, digest_of
from binworks.tensors.errors import BinworksError, RequestError, TransientError

pytest_plugins = ["bucket_fixture"]

KEY = layout.partial(NAME)
CHUNK = f"{KEY}/pdf/values/c.0.0.0"
DENIED = (
    b"<Error><Code>AccessDenied</Code><Message>no</Message>"
    b"<StringToSign>moto-takes-any-secret</StringToSign></Error>"
)


@pytest.fixture
def bucket(bucket_url: str) -> Store:
    return Store.open(bucket_url)


@pytest.fixture
def lying(
    bucket_server: BucketServer, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LyingBucket]:
    with LyingBucket(bucket_server.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.url)
        yield between


@pytest.fixture
def deceived(lying: LyingBucket, bucket_url: str) -> Store:
    """A store that sees the bucket through the liar."""
    return Store.open(bucket_url)


def first(method: str, wish: object, count: int = 1) -> Callable[[str, str], object]:
    """Do mischief to the first requests of a kind."""
    numbers = itertools.count()
    return lambda asked, _path: wish if asked == method and next(numbers) < count else None


def told(error: BaseException) -> str:
    """Return all that a log would say of an error."""
    return "".join(traceback.format_exception(error)) + repr(error)


def test_of_writers_at_the_same_moment_one_hears_that_the_key_was_free(bucket_url: str) -> None:
    stores = [Store.open(bucket_url) for _ in range(8)]
    with ThreadPoolExecutor(len(stores)) as pool:
        for n in range(20):
            key = layout.manifest("j", n)
            won = list(pool.map(lambda pair, key=key: pair[1].create_json(key, pair[0]), enumerate(stores)))
            assert won.count(True) == 1
            assert stores[0].read_json(key) == won.index(True)


def test_twins_with_the_same_document_do_not_both_win(bucket: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda _: bucket.create_json(layout.plan("j"), {"same": 1}), range(4)))
    assert sorted(won) == [False, False, False, True]


@pytest.mark.parametrize("lost", [1, 2])
def test_a_document_whose_reply_is_lost_is_ours(lying: LyingBucket, deceived: Store, lost: int) -> None:
    lying.mischief = first("PUT", LOST, lost)
    assert deceived.create_json(layout.manifest("j", 1), {"a": 1})
    assert not deceived.create_json(layout.manifest("j", 1), {"a": 1})
    lying.mischief = first("PUT", LOST, lost)
    assert not deceived.create_json(layout.manifest("j", 1), {"a": 1})


def test_a_document_that_was_refused_for_a_while_is_put_in_the_end(
    lying: LyingBucket, deceived: Store
) -> None:
    lying.mischief = first("PUT", (503, b"<Error><Code>SlowDown</Code></Error>"), 2)
    assert deceived.create_json(layout.manifest("j", 1), {"a": 1})


def test_a_conflict_with_nothing_there_is_tried_again(lying: LyingBucket, deceived: Store) -> None:
    lying.mischief = first("PUT", (409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"))
    assert deceived.create_json(layout.manifest("j", 1), {"a": 1})
    assert not deceived.create_json(layout.manifest("j", 1), {"a": 1})


def test_in_a_storm_of_lost_replies_every_group_is_whole_or_absent(
    lying: LyingBucket, deceived: Store, bucket_server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(3)
    wishes = [LOST, (500, b""), (503, b"")]
    lying.mischief = lambda _method, _path: rng.choice(wishes) if rng.random() < 0.25 else None
    written, codes = 0, set()
    for seed in range(12):
        name = layout.partial(f"{seed:064x}")
        try:
            written += deceived.write_accumulator(name, sums(seed)) == digest_of(sums(seed))
        except TransientError as error:
            codes.add(error.code)
    assert written > 3
    assert codes <= {"store-write-failed", "store-read-failed"}
    lying.mischief = lambda _method, _path: None
    for seed in range(12):
        name = layout.partial(f"{seed:064x}")
        if deceived.exists(name):
            assert digest_of(deceived.read_accumulator(name)) == digest_of(sums(seed))
        deceived.write_accumulator(name, sums(seed))
        assert digest_of(deceived.read_accumulator(name)) == digest_of(sums(seed))


def test_twins_that_write_the_same_group_agree(bucket_url: str) -> None:
    written = sums()
    stores = [Store.open(bucket_url) for _ in range(4)]
    with ThreadPoolExecutor(len(stores)) as pool:
        digests = set(pool.map(lambda store: store.write_accumulator(KEY, written), stores))
    assert digests == {digest_of(stores[0].read_accumulator(KEY))} == {digest_of(written)}
    assert stores[0].children("tmp") == []


def test_what_a_dead_twin_wrote_is_taken_over_if_it_is_the_same(bucket: Store) -> None:
    bucket.write_accumulator(KEY, sums())
    bucket.remove(f"{KEY}/zarr.json")
    before = bucket.objects.found(CHUNK)
    assert not bucket.exists(KEY)
    bucket.write_accumulator(KEY, sums())
    assert digest_of(bucket.read_accumulator(KEY)) == digest_of(sums())
    assert bucket.objects.found(CHUNK) == before


@pytest.mark.parametrize("left", [sums(5), None], ids=["other sums", "rubbish"])
def test_what_a_dead_twin_wrote_is_never_mixed_with_other_bytes(bucket: Store, left: object) -> None:
    if left is None:
        bucket.objects.create(CHUNK, b"rubbish")
    else:
        bucket.write_accumulator(KEY, sums(5))
        bucket.remove(f"{KEY}/zarr.json")
    with pytest.raises(TransientError) as caught:
        bucket.write_accumulator(KEY, sums())
    assert caught.value.code == "store-write-failed"
    assert not bucket.exists(KEY)
    bucket.write_accumulator(KEY, sums())
    assert digest_of(bucket.read_accumulator(KEY)) == digest_of(sums())


def test_a_group_whose_removal_was_cut_short_is_gone_and_swept_up_later(
    bucket: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class DeathError(BaseException):
        pass

    def die(self: Bucket, keys: list[str]) -> None:
        delete(self, keys)
        raise DeathError

    delete = Bucket._delete
    bucket.write_accumulator(KEY, sums())
    with monkeypatch.context() as dying:
        dying.setattr(Bucket, "_delete", die)
        with pytest.raises(DeathError):
            bucket.remove(KEY)
    assert not bucket.exists(KEY)
    assert bucket.nbytes(KEY) > 0
    bucket.remove_stale_drafts()
    assert bucket.nbytes(KEY) > 0
    monkeypatch.setattr(buckets, "STALE_SECONDS", -5.0)
    bucket.remove_stale_drafts()
    assert bucket.nbytes(KEY) == 0
    assert bucket.children("tmp") == []


def test_sweeping_spares_what_exists_and_what_is_being_written_again(
    bucket: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = bucket.objects
    assert isinstance(objects, Bucket)
    other = layout.partial("cd" * 32)
    bucket.write_accumulator(KEY, sums())
    objects.replace("tmp/draft-old", KEY.encode())
    objects.create(f"{other}/nominal/values/c.0.0", b"1")
    objects.replace("tmp/draft-dead", other.encode())
    time.sleep(2.1)
    monkeypatch.setattr(buckets, "STALE_SECONDS", 1.0)
    with objects._marked(other):
        bucket.remove_stale_drafts()
        assert bucket.nbytes(other) == 1
    assert digest_of(bucket.read_accumulator(KEY)) == digest_of(sums())
    assert bucket.children("tmp") == []


WRITERS = """
import os, random, sys, time, signal
from test_service_store import Store, layout, sums
url, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
written = [sums(n, columns=2000) for n in range(ROUNDS)]

def write(n):
    child = os.fork()
    if child == 0:
        Store.open(url).write_accumulator(layout.partial(f"{n:064x}"), written[n])
        os._exit(0)
    return child

begin = time.monotonic()
os.waitpid(write(0), 0)
longest = 1.2 * (time.monotonic() - begin)
for n in range(1, ROUNDS):
    child = write(n)
    time.sleep(rng.uniform(0, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_group_or_none(
    kind: str, tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = 25
    url = tmp_path.as_uri() if kind == "folder" else bucket_url
    places = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    program = WRITERS.replace("ROUNDS", str(rounds))
    subprocess.run(
        [sys.executable, "-c", program, url, "1"], check=True, env={**os.environ, "PYTHONPATH": places}
    )
    store = Store.open(url)
    there = [n for n in range(rounds) if store.exists(layout.partial(f"{n:064x}"))]
    assert 0 in there
    assert len(there) < rounds
    for n in range(rounds):
        key, written = layout.partial(f"{n:064x}"), sums(n, columns=2000)
        if n not in there:
            with suppress(
                TransientError
            ):  # moto keeps the first part of an object whose sender died; S3 does not
                store.write_accumulator(key, written)
            store.write_accumulator(key, written)
        assert digest_of(store.read_accumulator(key)) == digest_of(written)


def refused(url: str, act: Callable[[Store], object]) -> BinworksError:
    with pytest.raises(BinworksError) as caught:
        act(Store.open(url))
    assert SECRET not in told(caught.value)
    return caught.value


def test_a_bucket_that_is_not_there_is_named(bucket_server: BucketServer) -> None:
    for act in (Store.probe, lambda s: s.write_accumulator(KEY, sums()), lambda s: s.read_json("a")):
        error = refused("s3://nobody-has-this", act)
        assert (type(error), error.code) == (RequestError, "bad-store")
        assert "s3://nobody-has-this" in str(error)


def test_credentials_that_are_refused_are_said_so_and_not_shown(lying: LyingBucket, bucket_url: str) -> None:
    lying.mischief = lambda _method, _path: (403, DENIED)
    for act in (
        Store.probe,
        lambda s: s.create_json("a", 1),
        lambda s: s.read_json("a"),
        lambda s: s.exists("a"),
    ):
        error = refused(bucket_url, act)
        assert (type(error), error.code) == (RequestError, "store-denied")
        assert bucket_url.split("/")[2] in str(error)


def test_credentials_that_have_expired_may_be_renewed(lying: LyingBucket, bucket_url: str) -> None:
    lying.mischief = lambda _method, _path: (403, b"<Error><Code>ExpiredToken</Code></Error>")
    error = refused(bucket_url, lambda store: store.read_bytes("a"))
    assert (type(error), error.code) == (TransientError, "store-read-failed")


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda store: store.read_bytes("a"), "store-read-failed"),
        (lambda store: store.children("a"), "store-read-failed"),
        (lambda store: store.read_accumulator("a"), "store-read-failed"),
        (lambda store: store.put_aside("a"), "store-read-failed"),
        (
            lambda store: store.cache("a").put("b", b"") or store.objects.replace("a", b""),
            "store-write-failed",
        ),
    ],
    ids=["read", "list", "sums", "aside", "write"],
)
def test_a_bucket_that_cannot_be_reached_is_a_passing_failure(
    bucket_url: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[Store], object], code: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(buckets.RETRY, "max_retries", 1)
    error = refused(bucket_url, act)
    assert (type(error), error.code) == (TransientError, code)
    assert "cannot be reached" in error.message


def test_a_bucket_that_is_full_is_waited_for(lying: LyingBucket, deceived: Store) -> None:
    lying.mischief = lambda method, _path: (507, b"") if method == "PUT" else None
    with pytest.raises(TransientError) as caught:
        deceived.write_accumulator(KEY, sums())
    assert failures.of(caught.value).kind == Kind.FULL
    lying.mischief = lambda _method, _path: None
    assert not deceived.exists(KEY)


def test_a_bucket_that_forgets_conditions_is_found_out(lying: LyingBucket, deceived: Store) -> None:
    lying.mischief = lambda _method, _path: UNCONDITIONAL
    with pytest.raises(RequestError, match="If-None-Match") as caught:
        deceived.probe()
    assert caught.value.code == "bad-store"
    lying.mischief = lambda _method, _path: None
    deceived.probe()
    assert deceived.children("tmp") == []


@pytest.mark.parametrize(
    "address",
    [
        "s3://user:moto-takes-any-secret@bucket/x",
        "s3://bucket:443/x",
        "s3://bucket/x?secret=moto-takes-any-secret",
        "s3://bucket/x#y",
        "s3://",
        "s3:///x",
    ],
)
def test_an_address_is_a_bucket_and_a_prefix_and_holds_no_secret(address: str) -> None:
    error = refused(address, lambda store: store)
    assert (type(error), error.code) == (RequestError, "bad-store")


def test_without_the_library_a_bucket_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "binworks.service.buckets")
    error = refused("s3://bucket/x", lambda store: store)
    assert error.code == "missing-extra"
    assert "binworks[s3]" in str(error)


def test_a_service_is_started_on_a_store_that_can_be_written_only(bucket_url: str, tmp_path: Path) -> None:
    settings = up.configure(tmp_path / "home", {"store": up.checked_store(bucket_url)}, 0)
    assert settings.store_url == bucket_url
    (tmp_path / "file").write_text("")
    for address in ("s3://nobody-has-this/x", "gopher://x", str(tmp_path / "file")):
        with pytest.raises(RequestError):
            up.checked_store(address)
    assert up.checked_store(str(tmp_path / "store")) == (tmp_path / "store").as_uri()


def test_a_bucket_has_no_paths(bucket: Store) -> None:
    for ask in (lambda: bucket.root, lambda: bucket.key_path("a")):
        with pytest.raises(RequestError) as caught:
            ask()
        assert caught.value.code == "no-folder"


def test_metadata_is_read_without_listing(lying: LyingBucket, deceived: Store) -> None:
    deceived.write_accumulator(KEY, sums())
    lying.seen.clear()
    deceived.read_accumulator(KEY)
    assert [method for method, _ in lying.seen] == ["GET"] * 4
    assert json.dumps(lying.seen).count("zarr.json") == 1
