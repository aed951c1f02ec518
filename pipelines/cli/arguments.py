"""From the words of a command line to a config: flags, `--config` files and recipes, then jsonargparse.

jsonargparse by itself takes neither `--max-steps` for `max_steps` nor `p4,p5` for a list nor `--full` alone,
lets a `--config` overrule flags that stand before it, and replaces a mapping where a recipe and a flag set
a key each. So every source is first brought to one form, (setting, text), later ones winning; jsonargparse
checks the types.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.cli.recipes import base_file, recipe_name
from pipelines.cli.settings import Setting, settings_of
from pipelines.cli.verbs import VERBS, Verb
from pipelines.config import RUN_CONFIG, TrainConfig, VerbConfig
from pipelines.errors import UsageError

_TRUTH = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}

Config = TypeVar("Config", bound=VerbConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneralFlags:
    """The flags every verb has, and the words that are left; known before a word is judged."""

    help: bool
    print_config: bool
    json: bool
    debug: bool
    rest: tuple[str, ...]


def split_general_flags(words: Sequence[str]) -> GeneralFlags:
    """Takes --help and --print-config out of the words after the verb, and looks for --json and --debug."""
    asks_help, asks_config = {"-h", "--help"}, {"--print-config", "--print_config"}
    return GeneralFlags(
        help=not asks_help.isdisjoint(words),
        print_config=not asks_config.isdisjoint(words),
        json="--json" in words,
        debug="--debug" in words,
        rest=tuple(word for word in words if word not in asks_help | asks_config),
    )


def verb_named(name: str) -> Verb:
    """The verb of that name. Raises UsageError with the nearest one for a name that is none."""
    if name in VERBS:
        return VERBS[name]
    near = difflib.get_close_matches(name, VERBS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}"
    raise UsageError(f"no such verb; {hint}")


@dataclass(frozen=True, slots=True)
class _Given:
    """One setting as it was given."""

    name: str
    """Dotted name of the setting, or of a key inside a mapping."""
    text: str
    source: str
    """What to call it in an error: the flag, or the file and key."""


def parse(config_class: type[Config], words: Sequence[str]) -> Config:
    """The config that `words` describe, over the files they name.

    Args:
        words: the command line after the verb, without --help and --print-config.

    Raises:
        UsageError: an unknown flag or key (names the nearest), a missing or ill-typed value, no such file.
    """
    settings = settings_of(config_class)
    files, flags = _read_words(words, settings)
    of_several = (
        ("heads",) if config_class is TrainConfig else ()
    )  # pipelines/cli/head_variants.py has read them
    given = [item for file in files for item in _read_yaml(file, settings, of_several)] + flags
    if config_class is TrainConfig:
        given = _with_one_length(_base_settings(settings, given) + given)
    _require(settings, given)
    # What is overruled is left out: a list of rates is, in favour of one, where several heads are trained.
    return _typed(config_class, settings, list({item.name: item for item in given}.values()))


def _base_settings(settings: Mapping[str, Setting], given: Sequence[_Given]) -> list[_Given]:
    """What stands under the settings `given` to train-head; a recipe that nobody named is named here."""
    base = base_file({item.name: item.text for item in given if item.text != "null"})
    if base is None:
        return []
    named = [] if base.name == RUN_CONFIG else [_Given("recipe", recipe_name(base), "the default recipe")]
    return named + list(_read_yaml(base, settings))


def _with_one_length(given: list[_Given]) -> list[_Given]:
    """Without epochs where max_steps was given after them, as by a flag over a recipe: else epochs count."""
    lengths = [item.name for item in given if item.name in ("max_steps", "epochs") and item.text != "null"]
    if lengths[-1:] != ["max_steps"]:
        return given
    return [item for item in given if item.name != "epochs"]


def _read_words(words: Sequence[str], settings: Mapping[str, Setting]) -> tuple[list[Path], list[_Given]]:
    files: list[Path] = []
    flags: list[_Given] = []
    runs: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        takes_folders = "run" in settings and settings["run"].is_list
        if takes_folders and word.strip() and not word.startswith("--"):
            runs.append(with_home(word))  # report runs/a runs/b
            continue
        if not word.startswith("--"):
            raise UsageError(f"unexpected {word!r}: flags are written --name value{_as_flag(word)}")
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
        flags.append(_Given("run", json.dumps(runs), "the folders named"))
    return files, flags


def _next_value(flag: str, rest: list[str]) -> str:
    if not rest or rest[0].startswith("--"):
        raise UsageError(f"{flag} needs a value")
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
    hint = f"did you mean {shown[0]}?" if shown else "--help lists those there are"
    raise UsageError(f"{source}: no such {'flag' if is_flag else 'setting'}; {hint}")


def _read_yaml(path: Path, settings: Mapping[str, Setting], skipped: Sequence[str] = ()) -> Iterator[_Given]:
    import yaml  # late, so that doctor can say that it is missing

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"--config {path}: {error}") from error
    if not isinstance(document, dict):
        raise UsageError(f"--config {path}: expected settings, one `name: value` a line, found {document!r}")
    own = {key: value for key, value in document.items() if key not in skipped}
    yield from _flatten(own, "", path, settings)


def _flatten(
    node: Mapping[str, Any], prefix: str, path: Path, settings: Mapping[str, Setting]
) -> Iterator[_Given]:
    for key, value in node.items():
        name = f"{prefix}{key}"
        source = f"{path}: {name}"
        if isinstance(value, dict) and any(full.startswith(f"{name}.") for full in settings):
            yield from _flatten(value, f"{name}.", path, settings)
            continue
        full, setting = _resolve(name, settings, source)
        if setting.is_mapping and full == setting.name and isinstance(value, dict):
            yield from (_Given(f"{full}.{item}", _plain(inner), source) for item, inner in value.items())
        else:
            yield _given(full, _plain(value), setting, source)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _given(name: str, value: str, setting: Setting, source: str) -> _Given:
    """A value that somebody gave. Raises UsageError where it says nothing: it would read as None, and None
    often means everything."""
    parts = value.split(",") if setting.is_list and not value.startswith("[") else [value]
    says_nothing = not all(part.strip() for part in parts)
    if says_nothing or (setting.is_list and setting.default is None and not value.strip("[] ")):
        advice = "a value is missing" if setting.is_required else "to keep its default, leave it out"
        raise UsageError(f"{source}: expected {setting.expected}, found {value!r}; {advice}")
    return _Given(name, _as_text(with_home(value), setting), source)


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


def _require(settings: Mapping[str, Setting], given: Sequence[_Given]) -> None:
    names = {item.name for item in given}
    missing = [
        setting.flag for setting in settings.values() if setting.is_required and setting.name not in names
    ]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given; --help says what they are")


def _typed(config_class: type[Config], settings: Mapping[str, Setting], given: Sequence[_Given]) -> Config:
    if not given:
        return config_class()
    from jsonargparse import (
        ArgumentParser,
    )  # after the words are understood: it takes a tenth of a second to load

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class, "config")
    try:
        namespace = parser.parse_args([f"--config.{item.name}={item.text}" for item in given])
    except argparse.ArgumentError as error:
        raise UsageError(_type_error(str(error), settings, given)) from error
    config: Config = parser.instantiate(namespace).config
    return config


def _type_error(message: str, settings: Mapping[str, Setting], given: Sequence[_Given]) -> str:
    """jsonargparse's message in the words of the flag or the file that gave the value."""
    found = re.search(r'Parser key "config\.([^"]+)"', message)
    setting = settings.get(found.group(1)) if found else None
    if setting is None:
        return message
    last = next(item for item in reversed(given) if item.name == setting.name)
    return f"{last.source}: expected {setting.expected}, found {last.text!r}"
