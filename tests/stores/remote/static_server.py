"""A web server of files on loopback, with ranges or without, that fails as a test says."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[str, int], str | int | None]
"""Of the path and the number of the request: an HTTP status, "cut", "wrong range", "short" or None."""


@dataclass
class StaticServer:
    """Serves a folder; `url` is its root."""

    folder: Path
    url: str = ""
    ranges: bool = True
    fault: Fault | None = None
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """Method, path, Range and If-Match of each request."""

    def ranges_of(self, part: str) -> list[str]:
        """The ranges that were asked of paths with `part` in them."""
        return [asked for _, path, asked, _ in self.requests if asked and part in path]


@contextmanager
def serving(folder: Path) -> Iterator[StaticServer]:
    state = StaticServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            _answer(self, state, with_body=False)

        def do_GET(self) -> None:
            _answer(self, state, with_body=True)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request: BaseHTTPRequestHandler, state: StaticServer, *, with_body: bool) -> None:
    asked, match = request.headers.get("Range"), request.headers.get("If-Match")
    state.requests.append((request.command, request.path, asked, match))
    fault = state.fault(request.path, len(state.requests)) if state.fault else None
    path = state.folder / request.path.lstrip("/")
    if isinstance(fault, int):
        _send(request, fault, b"<Error><AWSAccessKeyId>AKIDSECRET</AWSAccessKeyId></Error>", {})
    elif not path.is_file():
        _send(request, 404, b"", {})
    else:
        data = path.read_bytes()
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        if match not in (None, etag):
            _send(request, 412, b"", {})
            return
        headers, status, body = {"ETag": etag}, 200, data
        if asked and state.ranges:
            first, last = map(int, re.findall(r"\d+", asked))
            if first >= len(data):
                _send(request, 416, b"", {})
                return
            last = min(last, len(data) - 1)
            if fault == "wrong range":
                first, last = first + 1, last + 1
            body, status = data[first : last + 1], 206
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            if fault == "short":
                body = body[:-1]
        _send(request, status, body if with_body else b"", headers, len(body), cut=fault == "cut")


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str],
    length: int | None = None,
    *,
    cut: bool = False,
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body[: len(body) // 2] if cut else body)
    request.wfile.flush()
    if cut:
        request.close_connection = True
