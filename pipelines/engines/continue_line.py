"""The command that continues an unfinished store: from its log or, where that names none, from its plan."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.catalog.stores import FoundStore, describe_store, description_file
from pipelines.config import ExtractConfig
from pipelines.engines.process_progress import PIPE
from pipelines.next_step import PROGRAM, same_extraction
from pipelines.pages.store_log import read_store_log


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinueLine:
    """A command, and what of it is not known."""

    command: str
    unknown: str = ""
    """What the reader has to see to; empty: the command can be typed as it is."""


def settings_to_continue(config: ExtractConfig, *, is_handed_shards: bool = False) -> list[str]:
    """The words after `python -m pipelines` that fill all of the store that `config` fills a part of.

    Args: is_handed_shards: of an actor, whose device and threads its parent chose.
    """
    whole = replace(config, part=None, stop_after=None, max_shards=None)
    if is_handed_shards or PIPE in os.environ:
        kind = config.device.partition(":")[0]  # which decides the precision, and so the store
        whole = replace(whole, device=kind, workers=None)
    return shlex.split(same_extraction(whole).removeprefix(PROGRAM))


def continue_line(path: Path) -> ContinueLine:
    """The command that continues the store, from the settings of its last run."""
    begun = read_store_log(path).last_begin
    settings, place = begun.get("settings"), begun.get("cwd")
    if isinstance(settings, list) and settings:
        elsewhere = place is not None and place != str(Path.cwd())
        return ContinueLine(
            command=f"{PROGRAM} {shlex.join(map(str, settings))}",
            unknown=f"its folders are relative to {place}, where it was typed" if elsewhere else "",
        )
    return _from_plan(describe_store(path))


def _from_plan(store: FoundStore) -> ContinueLine:
    words = [word for name, value in _planned(store) for word in (f"--{name}", value)]
    weights = f"--weights of sha256 {store.weights_sha256[:12]}"
    return ContinueLine(
        command=f"{PROGRAM} extract {shlex.join(words)}",
        unknown=f"the log names no settings: check --data, {weights}, and unusual sizes of views",
    )


def _planned(store: FoundStore) -> Iterator[tuple[str, str]]:
    """Flags that the identity of a store decides, of a plan of any release."""
    identity = store.identity
    dataset, backbone, views = identity["dataset"], identity["backbone"], identity.get("views", {})
    yield "dataset", description_file(dataset) or store.dataset
    yield "model", store.model
    yield "split", store.split
    yield "stores", str(store.path.parent)
    yield "levels", ",".join(store.levels)
    yield "codec", str(identity["codec"]["name"])
    yield from _view_flags(views)
    for name, value in backbone.get("args", {}).items():
        plain = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        yield f"model-args.{name}", plain
    if (subset := dataset.get("subset")) is not None:
        yield "subset", f"<the file or share of {subset['count']} records>"


def _view_flags(views: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if views.get("seed"):
        yield "seed", str(views["seed"])
    if isinstance(views.get("count"), int) and "ratios" not in views:
        yield "views", str(views["count"])
    if isinstance(views.get("crop_px"), int):
        yield "crop-size", str(views["crop_px"])
