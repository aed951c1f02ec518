"""Stamps of source files: what changes whenever a file does, without reading it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from extract.sources.byte_sources import ByteSource, FileSource
from extract.sources.tar_index import TarMember


def stamps_digest(sources: Iterable[tuple[str, ByteSource]]) -> str:
    """sha256 over the key, place and stamp of each source. Raises OSError where a file is gone.

    A stamp is length, inode, and the times of the last change of content and of the entry, in nanoseconds:
    the last one no program can set. Tars are looked at once each.
    """
    of_tar = cache(_stamp)
    whole = hashlib.sha256()
    for key, source in sources:
        if isinstance(source, FileSource):
            place: tuple[object, ...] = (str(source.path), *_stamp(source.path))
        elif isinstance(source, TarMember):
            place = (str(source.tar), source.offset, source.size, *of_tar(source.tar))
        else:
            place = (repr(source),)
        whole.update(f"{key!r} {place!r}\n".encode(errors="backslashreplace"))
    return whole.hexdigest()


def _stamp(path: str | Path) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
