"""Several heads in one command: the settings of each head's own run, out of those of the whole.

`--head fpn,bifpn1`, `--lr 1e-3,2e-3` (both: every head with every rate), or a `--config` file with

    heads:
      narrow: {head: fpn, head_settings.width: 256}
      fast:   {head: fpn, lr: 4.0e-3}

beside the settings they share; or `--head dinov2-grid`, the 52 linear probes of DINOv2.
`--resume --run FOLDER` resumes all runs of a folder of several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from pipelines.cli.arguments import config_of
from pipelines.cli.given import CommandLine, Given, read_command_line
from pipelines.config import GROUP_RECORD, ManyHeadsConfig, TrainConfig, VerbConfig
from pipelines.errors import UsageError
from stores.small_files import read_json

DINOV2_GRID = "dinov2-grid"
_GRID_HEADS = ("linear-cls", "linear-cls4", "linear-cls-avg", "linear-cls4-avg")
_GRID_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
"""For batches of 256 rows (dinov2@b8931f7 dinov2/eval/linear.py: learning_rates)."""
_GRID_RECIPE = "in1k-linear-dinov2"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def parse_command(config_class: type[VerbConfig], words: Sequence[str]) -> VerbConfig:
    """The config that `words` describe, or the configs of several heads.

    Raises UsageError as `pipelines.cli.arguments.parse`, and for names that cannot be folders'.
    """
    line = read_command_line(config_class, words)
    variants = head_variants(line) if config_class is TrainConfig else {}
    if not variants:
        return config_of(config_class, line.given)
    heads = {name: config_of(TrainConfig, given) for name, given in variants.items()}
    first, run = next(iter(heads.values())), line.last("run")
    return ManyHeadsConfig(
        json=first.json, debug=first.debug, run=run.text if run else None, resume=first.resume, heads=heads
    )


def head_variants(line: CommandLine) -> dict[str, list[Given]]:
    """By name, the settings that train each head alone; empty where `line` describes one run.

    >>> def heads(*words): return list(head_variants(read_command_line(TrainConfig, words)))
    >>> heads("--head", "fpn,bifpn1", "--batch-size", "8")
    ['fpn', 'bifpn1']
    >>> heads("--head", "fpn,linear", "--lr", "1e-3,2e-3")
    ['fpn-lr1e-3', 'fpn-lr2e-3', 'linear-lr1e-3', 'linear-lr2e-3']
    >>> heads("--head", "fpn")
    []
    """
    if (group := _group_to_resume(line)) is not None:
        return {
            name: [*line.given, Given("run", str(group / name), "--run")] for name in _names_to_resume(group)
        }
    entries: Mapping[str, Sequence[Given]]
    if line.heads is None:
        entries = {name: [Given("head", name, "--head")] for name in _values(line, "head", "names")}
    else:
        entries = line.heads
    rates = _values(line, "optimizer.lr", "values")
    if list(entries) == [DINOV2_GRID] and line.heads is None:
        entries, rates = _dinov2_grid(line, rates), []
    if len(entries) < 2 and len(rates) < 2 and line.heads is None:
        return {}
    if len(rates) > 1:
        entries = {
            f"{name}-lr{rate}": [*own, Given("optimizer.lr", rate, "--lr")]
            for (name, own), rate in product(entries.items(), rates)
        }
    for name in entries:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"head name {name!r}: it names a folder, so it may hold letters, digits and ._+- only, "
                "a letter or digit first"
            )
    shared = [item for item in line.given if item.name != "run"]
    return {name: [*shared, *own] for name, own in entries.items()}


def _dinov2_grid(line: CommandLine, rates: Sequence[str]) -> dict[str, list[Given]]:
    """Four features times thirteen rates, in proportion to the batch as DINOv2 scales them.

    >>> line = read_command_line(TrainConfig, ["--head", "dinov2-grid", "--batch-size", "512"])
    >>> variants = head_variants(line)
    >>> len(variants), [item.text for item in variants["linear-cls4-lr0.01"] if item.name == "optimizer.lr"]
    (52, ['0.02'])

    Raises UsageError where rates are given too.
    """
    if rates:
        raise UsageError(f"--lr {','.join(rates)}: the heads of {DINOV2_GRID} have rates of their own")
    batch, recipe = line.last("batch_size"), line.last("recipe")
    scale = (
        int(batch.text) / 256 if batch is not None and batch.text.isdecimal() else 4.0
    )  # the recipe's 1024
    shared = [] if recipe else [Given("recipe", _GRID_RECIPE, DINOV2_GRID)]
    return {
        f"{head}-lr{rate:g}": [
            *shared,
            Given("head", head, "--head"),
            Given("optimizer.lr", f"{rate * scale:.6g}", DINOV2_GRID),
        ]
        for head, rate in product(_GRID_HEADS, _GRID_RATES)
    }


def _group_to_resume(line: CommandLine) -> Path | None:
    run, resume = line.last("run"), line.last("resume")
    if run is None or resume is None or resume.text != "true":
        return None
    return Path(run.text) if (Path(run.text) / GROUP_RECORD).is_file() else None


def _names_to_resume(group: Path) -> list[str]:
    path = group / GROUP_RECORD
    try:
        record = read_json(path)
        unstopped = [str(name) for name in record["heads"] if name not in record["stopped"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not the record of several runs: {type(error).__name__} {error}"
        ) from None
    if not unstopped:
        raise UsageError(f"{group}: every head was stopped; resume one by itself with --run {group}/<name>")
    return unstopped


def _values(line: CommandLine, name: str, kind: str) -> list[str]:
    """The values of a setting that may be given several: a list in a file, words with commas in a flag."""
    item = line.last(name)
    if item is None:
        return []
    parts = json.loads(item.text) if item.text.startswith("[") else item.text.split(",")
    texts = [str(part).strip() for part in parts]
    if len(texts) > 1 and not all(texts):
        raise UsageError(f"{item.source}: expected {kind} separated by commas, found {item.text!r}")
    return list(dict.fromkeys(texts))
