"""Requests to one bucket or host through obstore: absolute ranges, conditions, bounded retries.

obstore repeats what failed with 429, 5xx or a lost connection; what arrived incomplete is asked for again
here. Its error texts are not passed on: they quote answers of servers, which may name keys.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import IO, Any, TypeVar

from stores.errors import IntegrityError, RemoteError, StoreError
from stores.remote.request_errors import TIMEOUT_S, TRIES, Incomplete, error_of, reason, require_all

T = TypeVar("T")
RETRIES = 5
"""How often obstore repeats a request that failed with 429, 5xx or a lost connection."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
PIECE_BYTES = 1 << 20
"""1 MiB: pieces in which a range is handed on while it arrives; they fit a core's cache."""
PART_BYTES = 8 << 20
"""8 MiB: part of a large upload; S3 takes at least 5 MiB and at most 10,000 parts."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes of an object and what the server said of it."""

    data: memoryview
    object_bytes: int
    etag: str | None


class ObjectClient:
    """One bucket or host; thread-safe. Keys are from its root.

    Args:
        place: such as s3://bucket or https://host.
        pause: waits so many seconds; for tests.
    """

    def __init__(self, place: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        self.place, self._pause = place, pause
        self._obstore = _obstore()
        self._store = _open(self._obstore, place)

    def read(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """A whole object.

        Raises FileNotFoundError; IntegrityError above `limit_bytes`; RemoteError.
        """

        def get() -> bytes:
            found = self._obstore.get(self._store, key)
            size = int(found.meta["size"])
            if limit_bytes is not None and size > limit_bytes:
                raise IntegrityError(
                    f"{self._named(key)} has {size} bytes, at most {limit_bytes} were expected"
                )
            data = bytes(found.bytes())
            if len(data) != size:
                raise Incomplete(f"{len(data)} of {size} bytes arrived")
            return data

        return self._tried(key, get)

    def read_range(self, key: str, start: int, stop: int, *, etag: str | None = None) -> Fetched:
        """Bytes start..stop-1 of an object, fewer at its end.

        Args:
            etag: that the object must still have; None where it is not known.

        Raises FileNotFoundError, ChangedObject, RemoteError.
        """

        def get() -> Fetched:
            found, size = self._answer(key, start, stop, etag)
            data = memoryview(found.bytes())
            require_all(len(data), start, stop, size)
            return Fetched(data, size, found.meta["e_tag"])

        return self._tried(key, get)

    def pass_range(
        self,
        key: str,
        start: int,
        stop: int,
        take: Callable[[int, memoryview], None],
        *,
        etag: str | None = None,
    ) -> tuple[int, str | None]:
        """As `read_range`, handing the bytes on in pieces while they arrive, which saves a copy of them all.

        Args:
            take: called with each piece and its place from `start`; again from 0 where an answer was cut off.
                What it raises is raised here.

        Returns:
            Bytes and ETag of the object.
        """

        def get() -> tuple[int, str | None]:
            found, size = self._answer(key, start, stop, etag)
            at = 0
            for piece in found.stream(min_chunk_size=PIECE_BYTES):
                data = memoryview(piece)[: stop - start - at]
                take(at, data)
                at += len(data)
            require_all(at, start, stop, size)
            return size, found.meta["e_tag"]

        return self._tried(key, get)

    def _answer(self, key: str, start: int, stop: int, etag: str | None) -> tuple[Any, int]:
        """The answer to a request for a range, not read yet, and the size of the object."""
        options: dict[str, Any] = {"range": (start, stop)}
        if etag is not None:
            options["if_match"] = etag
        found = self._obstore.get(self._store, key, options=options)
        if found.range[0] != start:
            raise Incomplete(f"bytes from {found.range[0]} arrived, expected those from {start}")
        return found, int(found.meta["size"])

    def size(self, key: str) -> int | None:
        """Bytes of an object; None where it is missing."""
        try:
            return self.head(key)[0]
        except FileNotFoundError:
            return None

    def head(self, key: str) -> tuple[int, str | None]:
        """Bytes and ETag of an object. Raises FileNotFoundError."""
        if not key:
            raise FileNotFoundError(errno.ENOENT, "is missing", self.place)
        meta = self._tried(key, lambda: self._obstore.head(self._store, key))
        return int(meta["size"]), meta["e_tag"]

    def listed(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Keys below a folder, with their bytes. Raises RemoteError where nothing is listed."""
        self._require_listing()
        found = self._obstore.list(self._store, f"{prefix}/" if prefix else None)
        while batch := self._tried(prefix, lambda: next(found, None)):
            yield from ((str(meta["path"]), int(meta["size"])) for meta in batch)

    def children(self, prefix: str) -> list[str]:
        """Names of the folders and objects directly in a folder."""
        self._require_listing()
        found = self._tried(
            prefix,
            lambda: self._obstore.list_with_delimiter(self._store, f"{prefix}/" if prefix else None),
        )
        names = [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]
        return sorted({name.rstrip("/").rpartition("/")[2] for name in names})

    def _require_listing(self) -> None:
        if self.place.startswith("http"):
            raise RemoteError(f"{self.place}: a web server does not list its files")

    def put(self, key: str, data: bytes | Callable[[], IO[bytes]]) -> None:
        """Creates or replaces an object, a large one in parts; a file is opened anew for each try."""

        def put() -> None:
            with data() if callable(data) else nullcontext(data) as given:
                self._obstore.put(self._store, key, given, chunk_size=PART_BYTES, max_concurrency=4)

        self._tried(key, put)

    def put_new(self, key: str, data: bytes) -> str:
        """Creates an object in one request; returns its ETag. Raises FileExistsError if there is one."""

        def put() -> str:
            try:
                made = self._obstore.put(self._store, key, data, mode="create", use_multipart=False)
                return str(made["e_tag"])
            except self._obstore.exceptions.AlreadyExistsError:
                raise FileExistsError(errno.EEXIST, "exists", self._named(key)) from None

        return self._tried(key, put)

    def put_over(self, key: str, data: bytes, etag: str) -> str | None:
        """Replaces the object that has this ETag; returns the new one, None where there is another or
        none."""

        def put() -> str | None:
            try:
                made = self._obstore.put(self._store, key, data, mode={"e_tag": etag}, use_multipart=False)
            except (self._obstore.exceptions.PreconditionError, FileNotFoundError):
                return None
            return str(made["e_tag"])

        return self._tried(key, put)

    def copy(self, key: str, to: str) -> None:
        """Copies an object within the bucket, on the server. Raises FileNotFoundError."""
        self._tried(key, lambda: self._obstore.copy(self._store, key, to))

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects; one that is missing is none to delete."""
        if not keys:
            return
        try:
            self._tried(keys[0], lambda: self._obstore.delete(self._store, list(keys)))
        except FileNotFoundError:  # Azure says so of one of them, S3 does not
            for key in keys:
                with suppress(FileNotFoundError):
                    self._tried(key, partial(self._obstore.delete, self._store, key))

    def _named(self, key: str) -> str:
        return f"{self.place}/{key}"

    def _tried(self, key: str, request: Callable[[], T]) -> T:
        for attempt in range(1, TRIES + 1):
            try:
                return request()
            except (self._obstore.exceptions.BaseError, Incomplete) as error:
                fault = error_of(self._obstore.exceptions, self._named(key), error)
                if attempt == TRIES or not isinstance(error, Incomplete | _generic(self._obstore)):
                    raise fault from None
                if isinstance(fault, RemoteError) and fault.status is not None:  # obstore has tried again
                    raise fault from None
            except (StoreError, FileExistsError):
                raise
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, "is missing", self._named(key)) from None
            self._pause(FIRST_PAUSE_S * 2**attempt)
        raise AssertionError  # the last attempt returns or raises


def _generic(module: Any) -> type[Exception]:
    kind: type[Exception] = module.exceptions.GenericError
    return kind


def _obstore() -> Any:
    try:
        import obstore  # late: an extra, which stores on disks do not need
        import obstore.store
    except ModuleNotFoundError:
        raise RemoteError(
            "stores at URLs need obstore: pip install --constraint constraints.txt -e '.[remote]'"
        ) from None
    return obstore


def _open(module: Any, place: str) -> Any:
    endpoints = (
        os.environ.get(f"AWS_{name}", "") for name in ("ENDPOINT_URL_S3", "ENDPOINT_URL", "ENDPOINT")
    )
    endpoint = next((value for value in endpoints if value), "")
    is_plain = place.startswith("http://") or endpoint.startswith("http://")
    config: dict[str, Any] = {}
    if place.startswith("s3://"):
        if endpoint:
            config["endpoint"] = endpoint
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        config["region"] = region or "us-east-1"
        if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes"):
            config["skip_signature"] = True
    if place.startswith("az://") and os.environ.get("AZURE_STORAGE_USE_EMULATOR"):
        is_plain = True
    try:
        return module.store.from_url(
            place,
            **config,
            client_options={
                "allow_http": is_plain,
                "timeout": timedelta(seconds=TIMEOUT_S),
                "connect_timeout": timedelta(seconds=10),
            },
            retry_config={
                "max_retries": RETRIES,
                "backoff": {
                    "init_backoff": timedelta(seconds=FIRST_PAUSE_S),
                    "max_backoff": timedelta(seconds=LONGEST_PAUSE_S),
                    "base": 2,
                },
                "retry_timeout": timedelta(seconds=TIMEOUT_S),
            },
        )
    except (module.exceptions.BaseError, ValueError) as error:
        raise RemoteError(f"{place}: {reason(str(error))}") from None


@lru_cache(maxsize=64)
def _client(place: str, environment: tuple[str | None, ...]) -> ObjectClient:
    return ObjectClient(place)


_ENVIRONMENT = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_NO_SIGN_REQUEST"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_USE_EMULATOR"),
    "AZURITE_BLOB_STORAGE_URL",
)
"""A client is used as long as these are the same."""


def client_of(place: str) -> ObjectClient:
    """The client of a bucket or host, such as s3://bucket, shared by the process."""
    return _client(place, tuple(os.environ.get(name) for name in _ENVIRONMENT))
