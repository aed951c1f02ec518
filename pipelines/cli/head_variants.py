"""Several heads in one command: the words of each head's own run, out of those of the whole.

`--head fpn,bifpn1`, `--lr 1e-3,2e-3` (both: every head with every rate), or a `--config` file with

    heads:
      narrow: {head: fpn, head_settings.width: 256}
      fast:   {head: fpn, lr: 4.0e-3}

beside the settings they share. `--resume --run FOLDER` goes on with all the runs of a folder of several.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pipelines.cli.arguments import parse, with_home
from pipelines.config import GROUP_RECORD, TrainConfig, VerbConfig
from pipelines.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_HEAD, _RATE = ("head",), ("lr", "optimizer.lr")


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyHeadsConfig(VerbConfig):
    """Several runs side by side on one stream of batches."""

    run: str | None
    """Folder of the runs' folders; None: runs/<store>-<number of heads>-heads-<n>."""
    resume: bool
    """Continue all of them."""
    heads: dict[str, TrainConfig]
    """Each head's run by its name, which is its folder's; as it would be trained alone."""


def parse_command(config_class: type[VerbConfig], words: Sequence[str]) -> VerbConfig:
    """What `parse` makes of the words, or the configs of several heads.

    Raises UsageError as `parse`, and for names that cannot be folders'.
    """
    variants = head_variants(words) if config_class is TrainConfig else {}
    if not variants:
        return parse(config_class, words)
    heads = {name: parse(TrainConfig, each) for name, each in variants.items()}
    first = next(iter(heads.values()))
    return ManyHeadsConfig(
        json=first.json,
        debug=first.debug,
        run=_last_flag(words, ("run",)),
        resume=first.resume,
        heads=heads,
    )


def head_variants(words: Sequence[str]) -> dict[str, list[str]]:
    """By name, the words that train each head alone; empty where `words` describe one run.

    >>> head_variants(["--head", "fpn,bifpn1", "--batch-size", "8"])["fpn"][-2:]
    ['--head=fpn', '--run=null']
    >>> list(head_variants(["--head", "fpn,linear", "--lr", "1e-3,2e-3"]))
    ['fpn-lr1e-3', 'fpn-lr2e-3', 'linear-lr1e-3', 'linear-lr2e-3']
    >>> head_variants(["--head", "fpn"])
    {}
    """
    if (group := _group_to_resume(words)) is not None:
        return {name: [*words, f"--run={group / name}"] for name in _names_to_resume(group)}
    document = _config_document(words)
    if "heads" in document:
        entries = dict(_entries(document["heads"]))
    else:
        entries = {name: [f"--head={name}"] for name in _values(words, document, _HEAD)}
    rates = _values(words, document, _RATE)
    if len(entries) < 2 and len(rates) < 2 and "heads" not in document:
        return {}
    if len(rates) > 1:
        entries = {
            f"{name}-lr{rate}": [*settings, f"--lr={rate}"]
            for (name, settings), rate in product(entries.items(), rates)
        }
    for name in entries:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a run's folder: letters, digits and ._+- may")
    return {name: [*words, *settings, "--run=null"] for name, settings in entries.items()}


def _group_to_resume(words: Sequence[str]) -> Path | None:
    run = _last_flag(words, ("run",))
    resumes = any(word.partition("=")[0] == "--resume" for word in words)
    if run is None or not resumes or not (Path(run) / GROUP_RECORD).is_file():
        return None
    return Path(run)


def _names_to_resume(group: Path) -> list[str]:
    path = group / GROUP_RECORD
    try:
        record = json.loads(path.read_text())
        going = [str(name) for name in record["heads"] if name not in record["stopped"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is not the record of several runs: {type(error).__name__} {error}"
        ) from None
    if not going:
        raise UsageError(f"{group}: every head was stopped; resume one by itself with --run {group}/<name>")
    return going


def _entries(heads: Any) -> Iterator[tuple[str, list[str]]]:
    if not isinstance(heads, dict) or not all(isinstance(each, dict) for each in heads.values()):
        raise UsageError(f"heads: expected `name: {{setting: value}}` for each head, found {heads!r}")
    for name, settings in heads.items():
        yield str(name), [f"--{key}={value}" for key, value in _flat(settings, "")]


def _flat(settings: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _config_document(words: Sequence[str]) -> Mapping[str, Any]:
    """The last `--config` file; empty without one, or where `parse` will say what is wrong with it."""
    path = _last_flag(words, ("config",))
    if path is None or not Path(path).is_file():
        return {}
    import yaml  # late, so that doctor can say that it is missing

    try:
        document = yaml.safe_load(Path(path).read_text())
    except (UnicodeDecodeError, yaml.YAMLError):
        return {}
    return document if isinstance(document, dict) else {}


def _values(words: Sequence[str], document: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The values of a setting that may be given several, as text: a list, or words with commas between."""
    found: Any = _last_flag(words, names)
    if found is None:
        nested = document.get("optimizer")
        inner = nested if isinstance(nested, dict) else {}  # `parse` says what is wrong with another
        known = {**document, **{f"optimizer.{k}": v for k, v in inner.items()}}
        found = next((known[name] for name in names if known.get(name) is not None), None)
    if found is None:
        return []
    items = found if isinstance(found, list) else str(found).split(",")
    texts = [str(item).strip() for item in items]
    if len(texts) > 1 and not all(texts):
        kind = "names" if names == _HEAD else "values"
        raise UsageError(f"--{names[0]}: expected {kind} with commas between, found {found!r}")
    return list(dict.fromkeys(texts))


def _last_flag(words: Sequence[str], names: Sequence[str]) -> str | None:
    """The value of the last of these flags; None where none is given."""
    found = None
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") in names:
            found = value if equals else next(iter(words[place + 1 : place + 2]), None)
    return None if found is None else with_home(found)
