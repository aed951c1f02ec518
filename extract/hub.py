"""Published weights by timm's names, from the local cache or the network."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from torch import Tensor, nn

from extract.checkpoints import read_checkpoint

_FILE = "model.safetensors"


def hub_tensors(timm_id: str, trunk: nn.Module) -> Mapping[str, Tensor]:
    """The published tensors of a timm model, named as in `trunk`.

    Raises OSError where nothing is published, or where the cache lacks it and the network cannot be reached.
    """
    published = require_published(timm_id)
    if published.hf_hub_id:
        return read_checkpoint(_from_hugging_face(published.hf_hub_id), trunk)
    _require_host(published.url)
    folder = f"{torch.hub.get_dir()}/checkpoints"
    name = published.url.rsplit("/", 1)[-1]
    torch.hub.load_state_dict_from_url(published.url, folder, map_location="cpu", weights_only=True)
    return read_checkpoint(f"{folder}/{name}", trunk)


def require_published(timm_id: str) -> Any:
    """timm's record of where a model's weights stand. Raises FileNotFoundError where there are none."""
    published = timm.get_pretrained_cfg(timm_id, allow_unregistered=False)
    if published is None or not published.has_weights:
        raise FileNotFoundError("no weights were published under this name")
    return published


def _from_hugging_face(repository: str) -> str:
    repository, _, revision = repository.partition("@")
    cached = try_to_load_from_cache(repository, _FILE, revision=revision or None)
    if isinstance(cached, str):
        return cached
    if constants.HF_HUB_OFFLINE:
        raise OSError(f"{repository} is not in the local cache and HF_HUB_OFFLINE is set")
    _require_host(constants.ENDPOINT)
    path: str = hf_hub_download(repository, _FILE, revision=revision or None)
    return path


def _require_host(url: str) -> None:
    # The hub's client retries a name that does not resolve for 45 s; one look-up answers at once.
    host = urlsplit(url).hostname or url
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise OSError(
            f"the weights are not in the local cache and {host} cannot be reached ({error})"
        ) from error
