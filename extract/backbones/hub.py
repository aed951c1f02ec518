"""Published weights by timm's names, from the local cache or the network."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from tqdm import tqdm

from extract.swin.timm_import import timm

_FILE = "model.safetensors"


def published_file(timm_id: str) -> Path:
    """The file of a timm model's published weights, downloaded if the cache lacks it.

    Raises OSError where nothing is published, or where it cannot be downloaded.
    """
    published = require_published(timm_id)
    if published.hf_hub_id:
        return Path(_from_hugging_face(published.hf_hub_id))
    return _from_url(published.url)


def require_published(timm_id: str) -> Any:
    """timm's record of a model's published weights. Raises FileNotFoundError where there are none."""
    published = timm.get_pretrained_cfg(timm_id, allow_unregistered=False)
    if published is None or not published.has_weights:
        raise FileNotFoundError("no weights were published under this name")
    return published


def pretrained_tags(name: str) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """The mean and deviation of RGB by the tags of a timm model's published weights; asks nobody.

    >>> pretrained_tags("vit_base_patch16_224")["mae"]
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    """
    found = {}
    for full in timm.list_pretrained(f"{name}.*"):
        cfg = timm.get_pretrained_cfg(full)
        found[full.partition(".")[2]] = (tuple(cfg.mean), tuple(cfg.std))
    return found


def _from_hugging_face(repository: str) -> str:
    repository, _, revision = repository.partition("@")
    cached = try_to_load_from_cache(repository, _FILE, revision=revision or None)
    if isinstance(cached, str):
        return cached
    if constants.HF_HUB_OFFLINE:
        raise OSError(f"{repository} is not in the local cache and HF_HUB_OFFLINE is set")
    _require_host(constants.ENDPOINT)
    with _interruption_as_os_error():
        path: str = hf_hub_download(repository, _FILE, revision=revision or None)
    return path


def _from_url(url: str) -> Path:
    # Not torch.hub, which would keep a truncated file and reuse it in every later run.
    path = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[-1])
    if path.exists():
        return path
    _require_host(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    request = Request(url, headers={"User-Agent": "permafrost"})  # some servers refuse urllib's default
    try:
        with _interruption_as_os_error(), urlopen(request) as reply, partial.open("wb") as file:
            with tqdm.wrapattr(file, "write", total=reply.length, desc=path.name) as counted:
                shutil.copyfileobj(reply, counted)
            if reply.length:  # bytes still missing; None without a Content-Length
                raise EOFError(f"{reply.length} bytes are missing")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


@contextmanager
def _interruption_as_os_error() -> Iterator[None]:
    """Turns any error of a download client into OSError: each client and version has classes of its own."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise OSError(f"the download was interrupted ({reason}); run the command again") from error


def _require_host(url: str) -> None:
    # The hub's client retries a name that does not resolve for 45 s; one look-up answers at once.
    host = urlsplit(url).hostname or url
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise OSError(
            f"the weights are not in the local cache and {host} cannot be reached ({error})"
        ) from error
