"""Whether an object store keeps two writers apart, found by trying: conditional creation, and copies."""

from __future__ import annotations

import os
import time
import uuid

from stores.errors import RemoteError
from stores.remote.object_client import client_of
from stores.remote.store_url import StoreUrl

CONDITIONAL_PUT = "conditional put"


def remote_way(folder: StoreUrl) -> str | None:
    """CONDITIONAL_PUT where an object is created only once, by If-None-Match; None where the server ignores
    that condition.

    Raises RemoteError where nothing can be written, or objects are not copied on the server.
    """
    if not folder.is_writable:
        raise RemoteError(
            f"{folder} is read only: a web server takes no files; write to s3://, gs:// or az://"
        )
    client, name = client_of(folder.place), f".permafrost-probe-{uuid.uuid4().hex}"
    key, copy = (folder / name).key, (folder / f"{name}-copy").key
    try:
        client.put_new(key, b"1")
        client.copy(key, copy)
        try:
            client.put_new(key, b"2")
        except FileExistsError:
            return CONDITIONAL_PUT
        return None
    finally:
        client.delete([key, copy])


_PROBE_BYTES = 16 << 20  # 16 MiB


def transfer_rates(folder: StoreUrl) -> dict[str, float]:
    """Bytes a second of an upload and of a download, and the seconds of one processor that an uploaded
    gigabyte takes, measured with one object of 16 MiB. Raises as `remote_way`."""
    client, key = client_of(folder.place), (folder / f".permafrost-probe-{uuid.uuid4().hex}").key
    data = os.urandom(_PROBE_BYTES)
    try:
        began, busy = time.perf_counter(), time.process_time()
        client.put(key, data)
        written_s, busy_s = time.perf_counter() - began, time.process_time() - busy
        began = time.perf_counter()
        client.read(key)
        read_s = time.perf_counter() - began
    finally:
        client.delete([key])
    return {
        "write_bytes_per_s": _PROBE_BYTES / written_s,
        "write_processor_s_per_gb": busy_s / _PROBE_BYTES * 1e9,
        "download_bytes_per_s": _PROBE_BYTES / read_s,
    }
