"""Samples in tars as webdataset lays them out: the members of one key are one sample."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extract.sources.listing import is_hidden, require_printable
from extract.sources.record import DatasetLayoutError
from extract.sources.tar_index import HostileTarError, TarMember, tar_members

MOST_TARS = 1_000_000
_INNER_GROUP = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\w+)\.\.(-?\w+)(?:\.\.(-?[0-9]{1,9}))?", re.ASCII)


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
    if not data.lower().endswith(".tar"):
        folder = Path(data)
        return _tars_in(folder / split) or [
            tar for tar in _tars_in(folder) if split.lower() in tar.name.lower()
        ]
    count = brace_count(data)
    if count > MOST_TARS:
        raise HostileTarError(f"{data[:200]!r} names {count} tars, at most {MOST_TARS} are read")
    tars = [Path(name) for name in _webdataset_shards().expand_urls(data)]
    missing = [tar for tar in tars if not tar.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(tars)} tars of {data!r} are missing: {missing[0]}"
        )
    return tars


def brace_count(pattern: str) -> int:
    """How many names a brace pattern stands for, at most: inner groups are counted for each outer one. Counts
    without making them.

    >>> brace_count("ade-{000..019}.tar"), brace_count("{a,b}-{1..3}.tar"), brace_count("a.tar")
    (20, 6, 1)
    >>> brace_count("{1..999999999}{1..999999999}.tar") > 10**17
    True
    """
    count = 1
    while (group := _INNER_GROUP.search(pattern)) is not None:
        bounds = _RANGE.fullmatch(group[1])
        if bounds is None:
            names = group[1].count(",") + 1
        elif bounds[1].lstrip("-").isdigit() and bounds[2].lstrip("-").isdigit():
            names = abs(int(bounds[2][:18]) - int(bounds[1][:18])) // max(1, abs(int(bounds[3] or 1))) + 1
        else:
            names = 128  # letters
        count *= names
        pattern = pattern[: group.start()] + pattern[group.end() :]
    return count


def _tars_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # not `folder_files`: it may be a folder of images
        names = [each.name for each in entries if each.name.lower().endswith(".tar") and each.is_file()]
    return sorted(folder / name for name in names if not is_hidden(name))


def _webdataset_shards() -> Any:
    os.environ["WDS_SECURE"] = "1"  # before the import: without it webdataset runs code found in data
    from webdataset import shardlists  # late, because it may be imported only now

    return shardlists


def tar_samples(tars: Sequence[Path]) -> dict[str, dict[str, TarMember]]:
    """The members of every sample by their ending, by key: `a/b.seg.png` is member `seg.png` of `b`.

    Hidden members are left out.

    Raises:
        DatasetLayoutError: an archive of folders instead of samples, no sample, or a name that
            `require_printable` refuses.
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
            require_printable(member.name, tar)
            home = homes.setdefault(key, (tar, folder))
            if home[0] == tar and home[1] != folder:
                raise HostileTarError(
                    f"{tar}: key {key[:200]!r} stands in two of its folders, {home[1][:80] or '.'} and "
                    f"{folder[:80] or '.'}: an archive of folders is no tar of samples; unpack it and pass "
                    "the folder"
                )
            if home[0] != tar:
                raise HostileTarError(
                    f"{tar}: key {key[:200]!r} stands in {home[0]} too; keep one of the tars"
                )
            if ending.lower() in samples.setdefault(key, {}):
                raise HostileTarError(f"{tar}: key {key[:200]!r} has {ending[:80]!r} twice")
            samples[key][ending.lower()] = member
    if tars and not samples:
        raise DatasetLayoutError(
            f"{', '.join(map(str, tars[:3]))}: no samples, whose members are named <key>.<ending>"
        )
    return samples
