"""Samples in tars as webdataset lays them out: the members of one key are one sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extract.sources.tar_index import HostileTarError, TarMember, tar_members


def find_tars(data: str, split: str) -> list[Path]:
    """The tars that `data` names, none where it names none.

    Args:
        data: a tar, a brace pattern of tars (`ade-{000..019}.tar`), or a folder with `<split>/*.tar` or
        `*<split>*.tar`.
        split: picks the tars of a folder.

    Raises:
        HostileTarError: a URL or a `pipe:`, which webdataset would fetch or run.
        FileNotFoundError: a tar of the pattern that is not there.
    """
    if data.startswith("pipe:") or "://" in data:
        raise HostileTarError(f"{data[:200]!r}: only tars on a disk are read, no URLs and no pipes")
    if not data.endswith(".tar"):
        folder = Path(data)
        return sorted(folder.glob(f"{split}/*.tar")) or sorted(folder.glob(f"*{split}*.tar"))
    tars = [Path(name) for name in _webdataset_shards().expand_urls(data)]
    missing = [tar for tar in tars if not tar.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(tars)} tars of {data!r} are missing: {missing[0]}"
        )
    return tars


def _webdataset_shards() -> Any:
    os.environ["WDS_SECURE"] = "1"  # before the import: without it webdataset runs code found in data
    from webdataset import shardlists  # late, because it may be imported only now

    return shardlists


def tar_samples(tars: Sequence[Path]) -> dict[str, dict[str, TarMember]]:
    """The members of every sample by their ending, by key: `a/b.seg.png` is member `seg.png` of `b`.

    Raises:
        HostileTarError: see tar_members; a key that occurs in two tars or folders, or an ending twice.
    """
    samples: dict[str, dict[str, TarMember]] = {}
    homes: dict[str, tuple[Path, str]] = {}
    for tar in tars:
        for member in tar_members(tar):
            folder, _, name = member.name.rpartition("/")
            key, _, ending = name.partition(".")
            if not key or not ending:
                continue  # webdataset passes over names without key or ending too
            if homes.setdefault(key, (tar, folder)) != (tar, folder):
                raise HostileTarError(f"{tar}: key {key[:200]!r} stands in {homes[key][0]} too")
            if ending.lower() in samples.setdefault(key, {}):
                raise HostileTarError(f"{tar}: key {key[:200]!r} has {ending[:80]!r} twice")
            samples[key][ending.lower()] = member
    return samples
