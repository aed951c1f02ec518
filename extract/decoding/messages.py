"""Messages between an extraction and its decoders: a pipe for headers, anonymous shared memory for the bytes.

A message is a length, a JSON header and the bytes that the header counts. Where both sides have the same
memory (memfd_create: no name, so that nothing is left of it however a process ends, and no part of /dev/shm,
which containers limit to 64 MB), the bytes are handed over there, in one system call on each side; otherwise,
and where it cannot grow, they follow in the pipe, 64 KiB a call.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_MAX_HEADER_BYTES = 64 << 20  # 64 MiB
_KEPT_BYTES = 16 << 20
"""16 MiB: memory that stays with a decoder between two messages; that of larger ones is given back."""


def shared_memory() -> int | None:
    """A descriptor of new memory for one pair of processes; None where the system has none."""
    if not hasattr(os, "memfd_create"):  # Linux 3.17
        return None
    try:
        return os.memfd_create("permafrost-decoder")
    except OSError:  # as where a sandbox forbids it
        return None


def send(
    file: IO[bytes], header: Mapping[str, Any], blobs: Sequence[Any] = (), memory: int | None = None
) -> None:
    """Writes a message. Raises BrokenPipeError without a reader.

    Args:
        file: the pipe, unbuffered or flushed.
        header: what JSON can hold.
        blobs: bytes or contiguous arrays.
        memory: shared with the reader, who has read what the last message left in it.
    """
    views = [memoryview(blob).cast("B") for blob in blobs]
    is_shared = memory is not None and any(map(len, views)) and _in_memory(memory, views)
    text = json.dumps({**header, "bytes": [len(view) for view in views], "shared": is_shared}).encode()
    for part in (struct.pack("<Q", len(text)) + text, *([] if is_shared else views)):
        left = memoryview(cast(bytes, part))
        while left:
            left = left[file.write(left) :]  # a pipe may take less at once
    file.flush()


def _in_memory(memory: int, views: Sequence[memoryview]) -> bool:
    """Puts the bytes into the memory; False where it has no room for them."""
    try:
        at = 0
        for view in views:
            while view:
                written = os.pwrite(memory, view, at)
                view, at = view[written:], at + written
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            raise
        return False
    return True


def receive(file: IO[bytes], memory: int | None = None) -> tuple[dict[str, Any], list[Bytes]] | None:
    """Reads a message: its header and uint8 arrays. None where the other side has ended."""
    length = _exactly(file, 8)
    if length is None:
        return None
    size = int.from_bytes(bytes(length), "little")
    if size > _MAX_HEADER_BYTES:
        raise ValueError(f"a message header of {size} bytes, expected at most {_MAX_HEADER_BYTES}")
    text = _exactly(file, size)
    if text is None:
        return None
    header = json.loads(bytes(text))
    sizes, is_shared = header.pop("bytes"), header.pop("shared", False)
    if is_shared:
        if memory is None:
            raise ValueError("a message in shared memory, which this side does not have")
        return header, list(_from_memory(memory, sizes))
    blobs = []
    for size in sizes:
        blob = _exactly(file, size)
        if blob is None:
            return None
        blobs.append(blob)
    return header, blobs


def _from_memory(memory: int, sizes: Sequence[int]) -> Iterator[Bytes]:
    at = 0
    for size in sizes:
        blob = np.empty(size, np.uint8)
        view = blob.data
        while view:
            count = os.preadv(memory, [view], at)
            if not count:
                raise ValueError(f"shared memory ends after {at} bytes, expected {sum(sizes)}")
            view, at = view[count:], at + count
        yield blob
    if at > _KEPT_BYTES:
        os.ftruncate(memory, 0)


def _exactly(file: IO[bytes], size: int) -> Bytes | None:
    data = np.empty(size, np.uint8)
    view, done = data.data, 0
    while done < size:
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            return None
        done += count
    return data
