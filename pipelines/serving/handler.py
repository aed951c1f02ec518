"""HTTP requests of `serve`: GET and HEAD of pages, with a token where others can reach the port."""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from pipelines.serving.served_folder import NotServed, ServedFolder

logger = logging.getLogger(__name__)
REFRESH_S = 15
"""Between two looks at a run that is being trained."""
CLIENT_TIMEOUT_S = 30
"""After which a client that neither sends nor takes bytes is dropped."""
_COOKIE = "permafrost_token"


class PageServer(ThreadingHTTPServer):
    """A thread a client, so that a slow one stops no other."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], folder: ServedFolder, token: str | None) -> None:
        """Args: token: that every request must carry; None: this machine alone can reach the port."""
        self.folder, self.token = folder, token
        super().__init__(address, PageHandler)


class PageHandler(BaseHTTPRequestHandler):
    """One request."""

    server: PageServer
    timeout = CLIENT_TIMEOUT_S
    server_version, sys_version = "permafrost", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if not self._is_allowed(query.get("token", [""])[0]):
            self._refuse(
                HTTPStatus.FORBIDDEN, "open the address that `serve` printed, with its token", with_body
            )
            return
        try:
            page, refresh = self._page(unquote(url.path), query.get("run", []))
        except NotServed as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error), with_body)
            return
        except Exception as error:  # a damaged store must not end the server
            logger.warning("%s: %s", self.path.partition("?")[0], error)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}", with_body)
            return
        headers = {"Refresh": str(REFRESH_S)} if refresh else {}
        if self.server.token and "token" in query:
            headers["Set-Cookie"] = f"{_COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        self._send(HTTPStatus.OK, page, with_body, headers)

    def _page(self, path: str, runs: list[str]) -> tuple[bytes, bool]:
        """The page, and whether what it shows is changing."""
        folder = self.server.folder
        kind, _, name = path.lstrip("/").partition("/")
        pages: dict[str, Callable[[], tuple[bytes, bool]]] = {
            "": lambda: (folder.index(), True),
            "store": lambda: (folder.store(name), folder.changing([name])),
            "run": lambda: (folder.runs([name]), folder.changing([name])),
            "runs": lambda: (folder.runs(runs or folder.run_names()), folder.changing(runs)),
        }
        if kind not in pages or (not kind and name):
            raise NotServed(f"no such page: {path!r}")
        return pages[kind]()

    def _is_allowed(self, given: str) -> bool:
        if self.server.token is None:
            # Another site's page may have its name resolve to this machine: it cannot fake the header.
            host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get("Host") or ""
            return host == "localhost" or _is_loopback(host.strip("[]"))
        try:
            cookie = SimpleCookie(self.headers.get("Cookie") or "").get(_COOKIE)
        except CookieError:
            cookie = None
        tokens = [given, cookie.value if cookie else ""]
        return any(hmac.compare_digest(each.encode(), self.server.token.encode()) for each in tokens)

    def _refuse(self, status: HTTPStatus, text: str, with_body: bool) -> None:
        body = f"<!doctype html><meta charset=utf-8><title>{status.phrase}</title><p>{escape(text)}"
        self._send(status, body.encode("utf-8", "replace"), with_body, {})

    def _send(self, status: HTTPStatus, body: bytes, with_body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Without the query, which may hold the token."""
        logger.debug("%s %s", self.client_address[0], getattr(self, "path", "").partition("?")[0])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def needs_token(host: str) -> bool:
    """Whether others than this machine can reach a port of that address.

    >>> needs_token("127.0.0.1"), needs_token("localhost"), needs_token("0.0.0.0"), needs_token("")
    (False, False, True, True)
    """
    return not (host == "localhost" or _is_loopback(host))
