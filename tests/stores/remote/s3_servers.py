"""S3 on loopback: ministack and moto as processes, and a proxy that ignores conditions."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore

BUCKET = "bucket"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server(name: str) -> Iterator[str]:
    """The endpoint of a server with an empty bucket."""
    port = _free_port()
    program = str(Path(sys.executable).with_name({"moto": "moto_server"}.get(name, name)))
    command = [program, "-H", "127.0.0.1", "-p", str(port)] if name == "moto" else [program]
    process = subprocess.Popen(
        command,
        env={**os.environ, "GATEWAY_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _make_bucket(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _make_bucket(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("PUT", f"/{BUCKET}", headers={"Host": f"127.0.0.1:{port}"})
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


def environment(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIDSECRET",
        "AWS_SECRET_ACCESS_KEY": "secret-key",
        "AWS_REGION": "us-east-1",
    }


def keys(prefix: str) -> set[str]:
    """Of the objects below a prefix of the bucket, by the environment."""
    store = obstore.store.from_url(
        f"s3://{BUCKET}", endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True}
    )
    return {meta["path"] for batch in obstore.list(store, prefix) for meta in batch}


@contextmanager
def proxy_without_conditions(
    endpoint: str, fails_every: int = 0, failed: list[int] | None = None
) -> Iterator[str]:
    """Passes requests on without If-None-Match and If-Match, as servers do that ignore them; or, with
    `fails_every`, whole but for every n-th, which is answered with 503 and whose number joins `failed`."""
    address = endpoint.removeprefix("http://")
    count = iter(range(1, 1 << 40))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                number = next(count)
            if fails_every and number % fails_every == 0:
                if failed is not None:
                    failed.append(number)
                self._answer(503, {}, b"")
                return
            headers = dict(self.headers.items())
            if not fails_every:
                headers = {k: v for k, v in headers.items() if k.lower() not in ("if-none-match", "if-match")}
            upstream = http.client.HTTPConnection(address, timeout=60)
            upstream.request(self.command, self.path, body or None, headers)
            response = upstream.getresponse()
            data = response.read()
            kept = {
                k: v
                for k, v in response.getheaders()
                if k.lower() not in ("transfer-encoding", "connection", "server", "date")
            }
            upstream.close()
            self._answer(response.status, kept, data)

        def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            if self.command != "HEAD":
                headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
                headers["Content-Length"] = str(len(data))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
