"""Settings as a command line gives them: flags and `--config` files brought to one form, (setting, text).

The one reader of the words: one run and several heads side by side (pipelines/cli/head_variants.py) both
start from what it returns. Types are checked later, by jsonargparse.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cli.settings import Setting, settings_of
from pipelines.config import TrainConfig, VerbConfig
from pipelines.errors import UsageError
from stores.small_files import read_parsed

_TRUTH = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
_FORMER_SWITCHES = {"tensorboard": "logger"}
"""Switches of earlier versions, which stand in the files of their runs -> the list that names them now."""
_HEADS = "heads"
"""The one key of a train-head file that is no setting: several heads by name."""


@dataclass(frozen=True, slots=True)
class Given:
    """One setting as it was given."""

    name: str
    """Dotted name of the setting, or of a key inside a mapping."""
    text: str
    source: str
    """What to call it in an error: the flag, or the file and key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandLine:
    """What the words after a verb give."""

    given: tuple[Given, ...] = ()
    """Of the files, then of the flags: a later one wins."""
    heads: Mapping[str, tuple[Given, ...]] | None = None
    """Of a train-head file with `heads`: each head's own settings by name; None without."""

    def last(self, name: str) -> Given | None:
        """The setting `name` that wins; None where it is not given, or given as null."""
        return next(
            (item for item in reversed(self.given) if item.name == name and item.text != "null"), None
        )


def read_command_line(config_class: type[VerbConfig], words: Sequence[str]) -> CommandLine:
    """What `words`, those after the verb without --help and --print-config, give.

    Raises UsageError for an unknown flag or key (names the nearest), a missing value, or an unreadable file.
    """
    settings = settings_of(config_class)
    paths, flags = _read_words(words, settings)
    given: list[Given] = []
    heads = None
    for path in paths:
        document = _document(path)
        if config_class is TrainConfig and _HEADS in document:
            heads = dict(_read_heads(document.pop(_HEADS), path, settings))
        given += _flatten(document, "", path, settings)
    return CommandLine(given=(*given, *flags), heads=heads)


def read_settings(config_class: type[VerbConfig], path: Path) -> list[Given]:
    """The settings of one YAML file. Raises UsageError as `read_command_line`."""
    return list(_flatten(_document(path), "", path, settings_of(config_class)))


def _read_heads(
    heads: Any, path: Path, settings: Mapping[str, Setting]
) -> Iterator[tuple[str, tuple[Given, ...]]]:
    if not isinstance(heads, dict) or not all(isinstance(each, dict) for each in heads.values()):
        raise UsageError(f"{path}: heads: expected `name: {{setting: value}}` for each head, found {heads!r}")
    for name, own in heads.items():
        yield str(name), tuple(_flatten(own, "", path, settings))


def _read_words(words: Sequence[str], settings: Mapping[str, Setting]) -> tuple[list[Path], list[Given]]:
    files: list[Path] = []
    flags: list[Given] = []
    runs: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if "data" in settings and settings["data"].is_required and not word.startswith("--"):
            flags.append(_given("data", word, settings["data"], "the folder named"))
            continue
        takes_folders = "run" in settings and settings["run"].is_list
        if takes_folders and word.strip() and not word.startswith("--"):
            runs.append(with_home(word))  # report runs/a runs/b
            continue
        if not word.startswith("--"):
            raise UsageError(f"unexpected {word!r}: write flags as --name value{_as_flag(word)}")
        flag, has_value, value = word.partition("=")
        if flag == "--config":
            path = value if has_value else _next_value(flag, rest)
            if not path.strip():
                raise UsageError(f"--config: expected a file, found {path!r}")
            files.append(Path(with_home(path)))
            continue
        name, setting = _resolve(flag[2:], settings, flag)
        if not has_value:
            switch = setting.is_switch and not (rest and rest[0].lower() in _TRUTH)
            value = "true" if switch else _next_value(flag, rest)
        flags.append(_given(name, value, setting, flag))
    if runs:
        flags.append(Given("run", json.dumps(runs), "the folders named"))
    return files, flags


def _next_value(flag: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise UsageError(f"{flag}: expected a value")
    return rest.pop(0)


def _as_flag(word: str) -> str:
    """Advice for somebody who writes NAME=value as for make."""
    name, equals, value = word.partition("=")
    return f", here --{name.lower().replace('_', '-')} {value}" if equals else ""


def _resolve(written: str, settings: Mapping[str, Setting], source: str) -> tuple[str, Setting]:
    """The setting a flag or key means: its name, a key of a mapping, or the end of one nested name (lr)."""
    name = written.replace("-", "_")
    if name in settings:
        return name, settings[name]
    owner = settings.get(name.partition(".")[0])
    if owner is not None and owner.is_mapping:
        return name, owner
    nested = [full for full in settings if full.endswith("." + name)]
    if len(nested) == 1:
        return nested[0], settings[nested[0]]
    is_flag = source.startswith("--")
    known = {**{full: full for full in settings}, **{full.rpartition(".")[2]: full for full in settings}}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    shown = [settings[known[match]].flag if is_flag else known[match] for match in near]
    hint = f"did you mean {shown[0]}?" if shown else "--help lists them all"
    raise UsageError(f"{source}: unknown {'flag' if is_flag else 'setting'}; {hint}")


def _document(path: Path) -> dict[str, Any]:
    import yaml  # late, so that doctor can report that it is missing

    try:
        document = read_parsed(path, yaml.safe_load)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(
            f"--config {path}: expected settings, one `name: value` a line, found {str(document)[:200]!r}"
        )
    return document


def _flatten(
    node: Mapping[str, Any], prefix: str, path: Path, settings: Mapping[str, Setting]
) -> Iterator[Given]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        source = f"{path}: {name}"
        if isinstance(value, dict) and any(full.startswith(f"{name}.") for full in settings):
            yield from _flatten(value, f"{name}.", path, settings)
            continue
        if name in _FORMER_SWITCHES and name not in settings:
            full, setting = _FORMER_SWITCHES[name], settings[_FORMER_SWITCHES[name]]
            if value:
                yield _given(full, name, setting, source)
            continue
        full, setting = _resolve(name, settings, source)
        if setting.is_mapping and full == setting.name and isinstance(value, dict):
            yield from (Given(f"{full}.{item}", _plain(inner), source) for item, inner in value.items())
        else:
            yield _given(full, _plain(value), setting, source)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _given(name: str, value: str, setting: Setting, source: str) -> Given:
    """A value from a flag or file. Raises UsageError for an empty one: it would read as None, which often
    means everything."""
    parts = value.split(",") if setting.is_list and not value.startswith("[") else [value]
    is_empty = not all(part.strip() for part in parts)
    if is_empty or (setting.is_list and setting.default is None and not value.strip("[] ")):
        advice = "it must have a value" if setting.is_required else "omit it to use the default"
        raise UsageError(f"{source}: expected {setting.expected}, found {value!r}; {advice}")
    return Given(name, _as_text(with_home(value), setting), source)


def with_home(value: str) -> str:
    """The value with ~ and ~user, first in it or in an item of a list, as the home folder they mean.

    A shell does so only for words of their own without quotes, and never for what stands in a file.
    """
    return re.sub(r'(^\[?|[,"]\s*)(~[^/,"]*)', lambda found: found[1] + os.path.expanduser(found[2]), value)


def _as_text(value: str, setting: Setting) -> str:
    """A value as jsonargparse reads it: lists as JSON, switches as true and false."""
    if setting.is_switch:
        return _TRUTH.get(value.lower(), value)
    if setting.is_list and value != "null" and not value.startswith("["):
        parts = [part.strip() for part in value.split(",")]
        return json.dumps(parts) if str in _item_types(setting) else f"[{','.join(parts)}]"
    return value


def _item_types(setting: Setting) -> tuple[Any, ...]:
    return tuple(getattr(setting.types[0], "__args__", ()))
