"""Downloads of published weights: whole, or an error that says what to do and leaves no broken file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import torch

from extract.backbones.loading import WeightsUnavailable, backbone_card, weights_sha256
from extract.backbones.weights import get_weights
from extract.swin.timm_swin import probe
from tests.extract.backbones.small import SMALL

INTERRUPTED = r"the download was interrupted \(.*\); run the command again\. Pass WEIGHTS=<path>"


class Published(BaseHTTPRequestHandler):
    """Serves one file; /chunked does not state its length beforehand."""

    content = b""
    sent_bytes = 0
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        part, chunked = self.content[: self.sent_bytes], self.path.startswith("/chunked")
        self.send_response(200)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        if chunked:
            part = b"%x\r\n" % len(self.content) + part
            part += b"\r\n0\r\n\r\n" if self.sent_bytes == len(self.content) else b""
        self.wfile.write(part)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The address of a server of weights for `card()`; torch's cache is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = io.BytesIO()
    trunk = probe(card().timm_id, card().constructor_args)
    torch.save(dict(get_weights(card(), "random:3", trunk).tensors), file)
    monkeypatch.setattr(Published, "content", file.getvalue())
    with HTTPServer(("127.0.0.1", 0), Published) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def card():
    return backbone_card("swinv2-t", SMALL)


@pytest.mark.parametrize("path", ["of-known-length/weights.pth", "chunked/weights.pth"])
def test_an_interrupted_download_is_reported_and_can_be_rerun(
    address: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = SimpleNamespace(hf_hub_id=None, url=f"{address}/{path}")
    monkeypatch.setattr("extract.backbones.hub.require_published", lambda _: published)
    monkeypatch.setattr(Published, "sent_bytes", 1000)
    with pytest.raises(WeightsUnavailable, match=INTERRUPTED):
        weights_sha256(card(), "timm")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    monkeypatch.setattr(Published, "sent_bytes", len(Published.content))
    expected = weights_sha256(card(), "random:3")
    assert weights_sha256(card(), "timm") == expected
    monkeypatch.setattr(Published, "sent_bytes", 0)
    assert weights_sha256(card(), "timm") == expected, "it is in the cache now"


def test_an_interrupted_download_from_the_hub_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class RemoteProtocolError(Exception):
        """As the hub's client has it: no OSError."""

    def broken(*_: object, **__: object) -> None:
        raise RemoteProtocolError("peer closed connection without sending complete message body")

    monkeypatch.setattr("extract.backbones.hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("extract.backbones.hub._require_host", lambda _: None)
    monkeypatch.setattr("extract.backbones.hub.hf_hub_download", broken)
    with pytest.raises(WeightsUnavailable, match=INTERRUPTED):
        weights_sha256(backbone_card("swinv2-t"), "timm")
