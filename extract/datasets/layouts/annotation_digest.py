"""One digest of all annotations of a data set, for identities."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from extract.sources.byte_sources import retried
from extract.sources.record import READ_THREADS


class Annotated(Protocol):
    """What has an annotation for every record, such as a data set."""

    def read_annotation(self, index: int) -> bytes:
        """The annotation of a record, as it stands in its file. Raises OSError."""


def digest_of(sha256_by_key: Iterable[tuple[str, str]]) -> str:
    """One digest of all annotations: sha256 over the sorted lines `key sha256`."""
    lines = sorted(f"{key} {digest}\n" for key, digest in sha256_by_key)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def annotation_digest(dataset: Annotated, keys: Sequence[str]) -> str:
    """`digest_of` the annotations of a data set, read by a few threads."""

    def one(index: int) -> tuple[str, str]:
        data = retried(lambda: dataset.read_annotation(index), f"annotation of {keys[index]}")
        return keys[index], hashlib.sha256(data).hexdigest()

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return digest_of(pool.map(one, range(len(keys))))
