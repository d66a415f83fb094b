"""Objects in a bucket that speaks S3.

There is no rename and no folder in a bucket, but a put is seen whole or not at all, and a conditional put creates an
object only if its key is free. All objects here are created like that and none is ever overwritten, so of a group that
exists no byte changes: the root document is created after all others, and two attempts at the same group share
the objects that they agree on.

A reply can get lost after the bucket has taken an object; whoever asks again hears that it is there already. So every
create carries a nonce in the object's metadata, and it was ours if the nonce is.

What a writer that died left behind is found by its mark: an object in ``tmp/`` that names the group, put before the
group's first object and deleted after its root.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from binworks.service.objects import ROOT, STALE_SECONDS, TMP, Draft, Found, Objects, Opened, absent, parts
from binworks.tensors.errors import BinworksError, RequestError, TransientError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

BLOCK = 8 << 20
PAUSES = (0.0, 0.2, 1.0)
"""Seconds before each try at a conditional put whose outcome is not known."""
CLIENT: ClientConfig = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}
RETRY: RetryConfig = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
}
AT_ONCE = 8
PARTS_AT_ONCE = 4
"""Of a file; so many are in memory."""
_MARK = "draft-"
_NONCE = "binworks-nonce"
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_UNKNOWN_BUCKET = {"NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "AuthorizationHeaderMalformed"}
_PASSING_DENIALS = {"ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired"}
_NO_SPACE = {"XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity", "InsufficientStorage"}


class Bucket(Objects):
    """Objects below a prefix of a bucket; endpoint and credentials come from the usual ``AWS_*`` variables.

    Parameters
    ----------
    url : str
        ``s3://bucket/prefix``, nothing else: no user, no query.

    Raises
    ------
    RequestError
        Code ``bad-store`` if the address or the environment cannot be understood.
    """

    def __init__(self, url: str) -> None:
        found = urlsplit(url)
        prefix = found.path.strip("/")
        self.name = f"s3://{found.hostname or ''}"
        if found.netloc != found.hostname or found.query or found.fragment:
            raise RequestError(
                "The address of a bucket has a name and a prefix, nothing else.",
                code="bad-store",
                where=self.name,
                hint="Write s3://bucket/prefix; credentials belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            )
        if prefix:
            parts(prefix)
        self._exclusive = False
        insecure = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
        with self._answering("read", prefix):
            self._store = S3Store(
                found.netloc,
                prefix=prefix or None,
                client_options={**CLIENT, "allow_http": insecure},
                retry_config=RETRY,
            )

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> bytes:
        """Get an object, or a range of it."""
        path = _path(key)
        with self._answering("read", key):
            if start is None and stop is None:
                return bytes(obstore.get(self._store, path).bytes())
            if start is not None and start < 0 and stop is None:
                return bytes(obstore.get(self._store, path, options={"range": {"suffix": -start}}).bytes())
            size = obstore.head(self._store, path)["size"] if stop is None else stop
            first, last, _ = slice(start, stop).indices(size)
            try:
                return (
                    bytes(obstore.get_range(self._store, path, start=first, end=last))
                    if first < last
                    else b""
                )
            except BaseError as error:
                if _status(error) == "416":  # it begins behind the end
                    return b""
                raise

    def found(self, key: str) -> Found | None:
        """Ask for an object's head."""
        path = _path(key)
        try:
            with self._answering("read", key):
                facts = obstore.head(self._store, path)
        except RequestError as error:
            if error.code == "no-such-key":
                return None
            raise
        return Found(facts["size"], facts["last_modified"].timestamp())

    @contextmanager
    def opened(self, key: str, within: str) -> Iterator[Opened]:
        """Ask for an object's head; each piece is a request."""
        found = self.found(key) if key.startswith(f"{within}/") else None
        if found is None:
            raise absent(key)
        yield _OpenObject(self, key, found.size)

    def create(self, key: str, data: bytes) -> bool:
        """Put an object on condition that there is none; after a lost reply, look whose it is.

        An error leaves open whether the object is there: a reply may have been lost, and the question who wrote
        it too. The same create later returns False then.
        """
        path, nonce = _path(key), uuid.uuid4().hex
        doubt: BinworksError | None = None
        for pause in PAUSES:
            time.sleep(pause)
            try:
                with self._answering("write", key):
                    obstore.put(
                        self._store,
                        path,
                        data,
                        mode="create",
                        use_multipart=False,
                        attributes={_NONCE: nonce},
                    )
            except AlreadyExistsError:  # or a conflict (409) with another request that is under way
                pass
            except TransientError as error:
                doubt = error
            else:
                return True
            writer = self._writer(key)
            if writer is not None:
                return writer == nonce
        raise doubt or TransientError(
            f"The bucket {self.name} neither has the object nor takes it.",
            code="store-write-failed",
            where=key,
        )

    def _writer(self, key: str) -> str | None:
        """Return the nonce of an object; None if there is no object."""
        try:
            with self._answering("read", key):
                return str(obstore.get(self._store, _path(key)).attributes.get(_NONCE, ""))
        except RequestError as error:
            if error.code == "no-such-key":
                return None
            raise

    def replace(self, key: str, data: bytes) -> None:
        """Put an object, whatever there is."""
        path = _path(key)
        with self._answering("write", key):
            obstore.put(self._store, path, data, use_multipart=False)

    def scratch(self, name: str) -> Path:
        """Return a path in the folder for temporary files."""
        return Path(tempfile.gettempdir()) / f"binworks-{os.getuid()}-{name}"

    def put_file(self, key: str, path: Path) -> None:
        """Send a file in parts; it is seen when the last one is there."""
        target = _path(key)
        with path.open("rb") as file, self._answering("write", key):
            obstore.put(self._store, target, file, chunk_size=BLOCK, max_concurrency=PARTS_AT_ONCE)

    def names(self, prefix: str) -> list[str]:
        """List with a delimiter."""
        path = _path(prefix)
        with self._answering("read", prefix):
            found = obstore.list_with_delimiter(self._store, path)
        below = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return [name.rstrip("/").rpartition("/")[2] for name in below]

    def walk(self, prefix: str) -> Iterator[tuple[str, int]]:
        """List all objects below a prefix."""
        for key, size, _ in self._list(prefix):
            yield key, size

    def _list(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        path = _path(prefix)
        with self._answering("read", prefix):
            for entries in obstore.list(self._store, path, chunk_size=1000):
                for entry in entries:
                    yield entry["path"], entry["size"], entry["last_modified"].timestamp()

    @contextmanager
    def draft(self, prefix: str) -> Iterator[Draft]:
        """Begin a group under its final key; until its root is there nobody sees it."""
        with self._marked(prefix):
            yield _BucketDraft(self, prefix)

    @contextmanager
    def _marked(self, prefix: str) -> Iterator[None]:
        """Leave a mark while a prefix is neither whole nor empty; it stays if the work fails."""
        mark = f"{TMP}/{_MARK}{uuid.uuid4().hex}"
        self.replace(mark, prefix.encode())
        yield
        self._delete([mark])

    def remove(self, key: str) -> None:
        """Delete the root, then the roots below, then all else.

        Whoever writes the same group anew meanwhile may lose objects of it: reading it says so (`damaged`), as if
        they had been lost in any other way.
        """
        below = [found for found, _ in self.walk(key)]
        if not below:
            return self._delete([key])
        roots = [name for name in below if name.endswith(f"/{ROOT}")]
        with self._marked(key):
            for root in sorted(roots, key=lambda name: name.count("/")):
                self._delete([root])
            self._delete([key, *(name for name in below if name not in set(roots))])
        return None

    def _delete(self, keys: list[str]) -> None:
        with self._answering("write", keys[0]), suppress(FileNotFoundError):
            obstore.delete(self._store, keys if len(keys) > 1 else keys[0])

    def put_aside(self, prefix: str) -> None:
        """Copy a group into ``tmp/`` as far as that goes, then remove it."""
        aside = f"{TMP}/damaged-{uuid.uuid4().hex}"

        def copy(key: str) -> None:
            with suppress(BaseError, FileNotFoundError):  # the copy is for curiosity only
                obstore.copy(self._store, key, f"{aside}{key.removeprefix(prefix)}")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(copy, [key for key, _ in self.walk(prefix)]))
        self.remove(prefix)

    def tidy(self) -> None:
        """Delete what lies in ``tmp/`` for a day, and the groups named there that do not exist.

        A group is left alone if a younger mark names it too. One that is begun at this very moment, and has its
        root when the others of its objects are deleted, is removed as a whole: it would be damaged.
        """
        long_ago = time.time() - STALE_SECONDS
        entries = list(self._list(TMP))
        marks = [(key, when) for key, _, when in entries if key.startswith(f"{TMP}/{_MARK}")]
        named: dict[str, str] = {}
        for key, _ in marks:
            with suppress(RequestError):  # its writer has ended
                named[key] = self.read(key).decode()
        busy = {named[key] for key, when in marks if key in named and when > long_ago}
        for prefix in {named[key] for key, when in marks if key in named and when <= long_ago} - busy:
            if self.found(f"{prefix}/{ROOT}") is None:
                self.remove(prefix)
                if self.found(f"{prefix}/{ROOT}") is not None:
                    self.remove(prefix)
        stale = [key for key, _, when in entries if when <= long_ago]
        if stale:
            self._delete(stale)

    def probe(self) -> None:
        """Put an object and delete it; the first time, see that a second conditional put is refused."""
        key = f"{TMP}/probe-{uuid.uuid4().hex}"
        self.replace(key, b"")
        if not self._exclusive and self.create(key, b""):
            self._delete([key])
            raise RequestError(
                f"The bucket {self.name} ignores the condition of a conditional put (If-None-Match).",
                code="bad-store",
                where=self.name,
                hint="docs/howto/object-store.md says what a bucket must be able to do.",
            )
        self._exclusive = True
        self._delete([key])

    @contextmanager
    def _answering(self, doing: str, key: str) -> Iterator[None]:
        """Name what the bucket answers; its own words may hold addresses and signatures, and go nowhere."""
        try:
            yield
        except AlreadyExistsError:
            raise
        except (BaseError, FileNotFoundError) as error:
            raise self._error(error, doing, key) from _no_space(error)
        except ValueError:
            raise RequestError(
                f"The settings of the bucket {self.name} in the environment (AWS_...) are not valid.",
                code="bad-store",
                where=self.name,
            ) from None

    def _error(self, error: Exception, doing: str, key: str) -> BinworksError:
        status, code = _status(error), _code(error)
        missing = isinstance(error, FileNotFoundError)
        said = " ".join(word for word in (status, code) if word)
        if code in _UNKNOWN_BUCKET or (missing and doing == "write"):
            message = f"There is no bucket {self.name} at this endpoint ({said})."
            return RequestError(message, code="bad-store", where=self.name)
        if missing:
            return absent(key)
        if status in ("401", "403") and code not in _PASSING_DENIALS:
            return RequestError(
                f"The bucket {self.name} does not let this process {doing} ({said}).",
                code="store-denied",
                where=key,
                hint="Check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) of every process, and the "
                "bucket's policy.",
            )
        message = f"The bucket {self.name} does not answer as it should: {said or _silence(error)}."
        return TransientError(message, code=f"store-{doing}-failed", where=key)


class _BucketDraft:
    """A group under its final key, without its root."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix
        self.adopted = False

    def put(self, name: str, data: bytes) -> int:
        key = f"{self._prefix}/{name}"
        if self._bucket.create(key, data):
            return len(data)
        self.adopted = True
        found = self._bucket.found(key)
        return found.size if found else len(data)

    def get(self, name: str, start: int | None, stop: int | None) -> bytes | None:
        try:
            return self._bucket.read(f"{self._prefix}/{name}", start, stop)
        except RequestError as error:
            if error.code == "no-such-key":
                return None
            raise

    def put_all(self, objects: Mapping[str, bytes]) -> int:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(self.put, objects.keys(), objects.values()))

    def commit(self, document: bytes) -> None:
        self._bucket.create(f"{self._prefix}/{ROOT}", document)

    def clear(self) -> None:
        if self._bucket.found(f"{self._prefix}/{ROOT}") is None:
            self._bucket.remove(self._prefix)


class _OpenObject:
    """An object whose size is known."""

    block = BLOCK

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        self._bucket, self._key = bucket, key
        self.size = size

    def read(self, start: int, stop: int) -> bytes:
        return self._bucket.read(self._key, start, stop)


def _path(key: str) -> str:
    return "/".join(parts(key))


def _status(error: Exception) -> str:
    found = _STATUS.search(str(error))
    return found.group(1) if found else ""


def _code(error: Exception) -> str:
    found = _CODE.search(str(error))
    return found.group(1) if found else ""


def _silence(error: Exception) -> str:
    text = str(error)
    if "TimedOut" in text or "timed out" in text:
        return "nothing came in time"
    return "it cannot be reached" if "Connect" in text else "the request failed"


def _no_space(error: Exception) -> OSError | None:
    if _status(error) == "507" or _code(error) in _NO_SPACE:
        return OSError(errno.ENOSPC, "No space left in the bucket")
    return None
