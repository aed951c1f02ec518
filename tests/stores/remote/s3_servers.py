"""Object storage on loopback: ministack, moto, azurite as processes, and a proxy that ignores conditions."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pytest

BUCKET = "bucket"
AZURITE = "azurite-blob"
"""A program of npm (`npm install azurite`); tests that need it are skipped where it is not on PATH."""
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""That of every azurite, published by it."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server(name: str) -> Iterator[str]:
    """The endpoint of a server with an empty bucket."""
    port = _free_port()
    if name == AZURITE:
        command = [str(shutil.which(name)), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        command += ["--inMemoryPersistence", "--disableTelemetry", "--silent", "--skipApiVersionCheck"]
    else:
        program = str(Path(sys.executable).with_name({"moto": "moto_server"}.get(name, name)))
        command = [program, "-H", "127.0.0.1", "-p", str(port)] if name == "moto" else [program]
    process = subprocess.Popen(
        command,
        env={**os.environ, "GATEWAY_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _make_bucket(port, process, _container_request if name == AZURITE else _bucket_request)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


Request = Callable[[int], tuple[str, dict[str, str]]]
"""Path and headers of the request that makes the bucket, by the port."""


def _bucket_request(port: int) -> tuple[str, dict[str, str]]:
    return f"/{BUCKET}", {"Host": f"127.0.0.1:{port}"}


def _container_request(_: int) -> tuple[str, dict[str, str]]:
    """Signed: learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key."""
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    resource = f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    text = "PUT" + "\n" * 12 + "".join(f"{name}:{value}\n" for name, value in headers.items()) + resource
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
    return f"/{ACCOUNT}/{BUCKET}?restype=container", headers | {"Content-Length": "0"}


def _make_bucket(port: int, process: subprocess.Popen[bytes], request: Request) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            path, headers = request(port)
            connection.request("PUT", path, headers=headers)
            if connection.getresponse().status in (200, 201):
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


def bucket_of(name: str) -> str:
    """URL of the bucket of a server."""
    return f"{'az' if name == AZURITE else 's3'}://{BUCKET}"


def environment(endpoint: str, bucket: str = f"s3://{BUCKET}") -> dict[str, str]:
    if bucket.startswith("az"):
        return {
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": endpoint,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        }
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIDSECRET",
        "AWS_SECRET_ACCESS_KEY": "secret-key",
        "AWS_REGION": "us-east-1",
    }


def ask(endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sends requests for the bucket to this address from here on."""
    for name, value in environment(endpoint, bucket).items():
        monkeypatch.setenv(name, value)


def keys(prefix: str, bucket: str = f"s3://{BUCKET}") -> set[str]:
    """Of the objects below a prefix of the bucket, by the environment."""
    endpoint = {"endpoint": os.environ["AWS_ENDPOINT_URL"]} if bucket.startswith("s3") else {}
    store = obstore.store.from_url(bucket, **endpoint, client_options={"allow_http": True})
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
