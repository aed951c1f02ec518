"""A lean server of files by ranges on loopback, so that a benchmark measures its client.

A thread a connection, the head and body of an answer by one send and sendfile, files kept open; signatures
are not looked at, so that S3 clients may ask too. About 0.1 ms of Python a request.

    python -m benchmarks.stores.range_server FOLDER PAUSE_S     # prints its port first
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_RANGE = re.compile(rb"(?i)\r\nrange: *bytes=(\d+)-(\d*)")


@cache
def _opened(path: str) -> tuple[int, int] | None:
    """Descriptor and size of a file."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    status = os.fstat(file)
    return (file, status.st_size) if os.path.isfile(path) else None


def _answer(connection: socket.socket, folder: str, pause_s: float) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            more = connection.recv(1 << 16)
            if not more:
                return
            waiting += more
        head, _, waiting = waiting.partition(b"\r\n\r\n")
        time.sleep(pause_s)
        method, path, _ = head.split(b" ", 2)
        found = _opened(folder + path.partition(b"?")[0].decode())
        if found is None:
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            continue
        file, size = found
        asked, start, stop, status, extra = _RANGE.search(head), 0, size, b"200 OK", b""
        if asked:
            start, stop = int(asked[1]), min(size, int(asked[2] or size - 1) + 1)
            status = b"206 Partial Content"
            extra = b"Content-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, size)
        answer = (
            b'HTTP/1.1 %s\r\n%sContent-Length: %d\r\nETag: "%d"\r\n'
            b"Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n" % (status, extra, stop - start, size)
        )
        is_head = method == b"HEAD"
        connection.sendall(answer, 0 if is_head else socket.MSG_MORE)
        while not is_head and start < stop:
            start += os.sendfile(connection.fileno(), file, start, stop - start)


def _serve(folder: str, pause_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_answered, args=(connection, folder, pause_s), daemon=True).start()


def _answered(connection: socket.socket, folder: str, pause_s: float) -> None:
    with connection:
        try:
            _answer(connection, folder, pause_s)
        except (ConnectionError, BrokenPipeError):  # the client has gone
            return


@contextmanager
def serving(folder: Path, pause_s: float) -> Iterator[str]:
    """The root URL of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stores.range_server", str(folder), str(pause_s)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    _serve(sys.argv[1], float(sys.argv[2]))
