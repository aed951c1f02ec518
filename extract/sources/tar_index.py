"""Index of a tar of samples, read without unpacking; hostile members are refused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from extract.sources.byte_sources import MAX_SOURCE
from extract.sources.record import DatasetLayoutError

_MAX_HEADER_BYTES = 1 << 20  # 1 MiB: tar headers that name a longer path or attribute are no sample's
_PICKLES = (".pkl", ".pickle", ".pth", ".pt", ".pyd", ".ten", ".npy", ".npz")
"""Kinds that webdataset's decoders unpickle or that may hold pickles. No data set here needs them."""


class HostileTarError(ValueError):
    """A tar holds what no data set needs and an attack might; nothing of it is used."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file inside an uncompressed tar; a ByteSource."""

    tar: Path
    name: str
    offset: int
    """Of its first byte in the tar."""
    size: int

    def read(self, limit: int | None = None) -> bytes:
        """All its bytes, or the first `limit`; fewer where the tar has shrunk. Raises OSError; SourceError
        where it is longer than MAX_SOURCE allows."""
        if limit is None:
            MAX_SOURCE.check(self.size)
        with open(self.tar, "rb", buffering=0) as file:
            file.seek(self.offset)
            length = self.size if limit is None else min(limit, self.size)
            return b"".join(iter(_pieces(file, length)))


def _pieces(file: io.RawIOBase, length: int) -> Iterator[bytes]:
    while length and (piece := file.read(length)):  # a raw read may return less than asked for
        length -= len(piece)
        yield piece


class _SmallReads(io.FileIO):
    """A file that gives no more than a header at once: tarfile reads attributes of any declared length."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise HostileTarError(f"a tar header of {size} bytes, at most {_MAX_HEADER_BYTES} are read")
        return super().read(size)


def tar_members(tar: Path) -> list[TarMember]:
    """The regular files of a tar, in its order; directories are passed over.

    Raises:
        HostileTarError: a link, a device, a sparse file, an absolute name or one with `..`, a pickle, a name
        that occurs twice, or bytes that are not an uncompressed tar.
        DatasetLayoutError: a tar without a file.
        OSError: the tar could not be read.
    """
    length = tar.stat().st_size
    members: dict[str, TarMember] = {}
    try:
        with _SmallReads(tar, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                if info.isdir():
                    continue
                problem = _problem(info, length)
                if problem or info.name in members:
                    raise HostileTarError(f"{tar}: member {info.name[:200]!r} {problem or 'occurs twice'}")
                members[info.name] = TarMember(tar, info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise HostileTarError(f"{tar} is not an uncompressed, undamaged tar: {error}") from None
    if not members:
        raise DatasetLayoutError(f"{tar} is an empty tar: no file is in it; remove it, or copy it again")
    return list(members.values())


def _problem(info: tarfile.TarInfo, length: int) -> str | None:
    parts = info.name.replace("\\", "/").split("/")
    if not info.isreg() or info.issparse():
        return "is a link, a device or a sparse file; only regular files are read"
    if info.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
        return "has a name that leaves the tar"
    if any(ending in _PICKLES for ending in _endings(parts[-1])):
        return "may run code when it is decoded (a pickle)"
    if info.size < 0 or info.offset_data + info.size > length:
        return f"ends beyond the {length} bytes of the tar"
    return None


def _endings(name: str) -> list[str]:
    return ["." + ending.lower() for ending in name.split(".")[1:]]
