"""`serve`: the pages of a folder's stores and runs over HTTP, until it is interrupted."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Any

from pipelines.config.serving import ServeConfig
from pipelines.errors import UsageError
from pipelines.serving.handler import PageServer, needs_token
from pipelines.serving.served_folder import ServedFolder


def run(config: ServeConfig) -> dict[str, Any]:
    """Prints the address and serves until Ctrl-C.

    Raises UsageError for a folder that is not there or an address that cannot be listened on.
    """
    server, address = open_server(config)
    print(f"{address}\nserving {server.folder.root}, read-only; Ctrl-C ends it", flush=True)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return {"address": address, "root": str(server.folder.root)}


def open_server(config: ServeConfig) -> tuple[PageServer, str]:
    """A server that listens, and the address to open. Raises as `run`."""
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise UsageError(f"--root {config.root}: no such folder; pass one that holds stores and runs")
    token = secrets.token_urlsafe(16) if needs_token(config.host) else None
    try:
        server = PageServer((config.host, config.port), ServedFolder(root.resolve()), token)
    except OSError as error:
        raise UsageError(f"--host {config.host} --port {config.port}: {error.strerror or error}") from error
    everywhere = config.host in ("", "0.0.0.0", "::")
    host = socket.gethostname() if everywhere else config.host
    named = f"[{host}]" if ":" in host else host
    return server, f"http://{named}:{server.server_address[1]}/" + (f"?token={token}" if token else "")
