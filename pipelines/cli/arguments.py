"""From the words of a command line to a config: flags, `--config` files and recipes, then jsonargparse.

jsonargparse by itself takes neither `--max-steps` for `max_steps` nor `p4,p5` for a list nor `--full` alone,
lets a `--config` overrule flags that stand before it, and replaces a mapping where a recipe and a flag set
a key each. So every source is first brought to one form, (setting, text), later ones winning; jsonargparse
checks the types.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipelines.cli.given import Given, read_command_line, read_settings
from pipelines.cli.recipes import base_file, recipe_name
from pipelines.cli.settings import Setting, settings_of
from pipelines.cli.verbs import VERBS, Verb
from pipelines.config import RUN_CONFIG, TrainConfig, VerbConfig
from pipelines.errors import UsageError

Config = TypeVar("Config", bound=VerbConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneralFlags:
    """The flags every verb has, and the words that are left; known before a word is judged."""

    help: bool
    print_config: bool
    json: bool
    debug: bool
    rest: tuple[str, ...]


_OF_THIS_MACHINE = {"out", "run", "data", "input"}
"""Settings that are paths, and no URLs."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


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
    """The verb of that name. Raises UsageError, suggesting the nearest one, for an unknown name."""
    if name in VERBS:
        return VERBS[name]
    near = difflib.get_close_matches(name, VERBS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"available: {', '.join(VERBS)}"
    raise UsageError(f"unknown verb {name!r}; {hint}")


def parse(config_class: type[Config], words: Sequence[str]) -> Config:
    """The config that `words` describe, over the files they name.

    Args:
        words: the command line after the verb, without --help and --print-config.

    Raises:
        UsageError: an unknown flag or key (names the nearest), a missing or ill-typed value, no such file.
    """
    return config_of(config_class, read_command_line(config_class, words).given)


def config_of(config_class: type[Config], given: Sequence[Given]) -> Config:
    """The config of the settings given, a later one winning, over those of the recipe.

    Raises UsageError as `parse`.
    """
    settings = settings_of(config_class)
    if config_class is TrainConfig:
        given = _with_one_length([*_base_settings(given), *given])
    _require(settings, given)
    # What is overruled is left out: a list of rates is, in favour of one, where several heads are trained.
    return _typed(config_class, settings, list({item.name: item for item in given}.values()))


def _base_settings(given: Sequence[Given]) -> list[Given]:
    """The settings of the recipe or resumed run beneath those `given` to train-head."""
    base = base_file({item.name: item.text for item in given if item.text != "null"})
    if base is None:
        return []
    named = [] if base.name == RUN_CONFIG else [Given("recipe", recipe_name(base), "the default recipe")]
    return named + read_settings(TrainConfig, base)


def _with_one_length(given: list[Given]) -> list[Given]:
    """Without epochs where max_steps was given after them, as by a flag over a recipe: else epochs count."""
    lengths = [item.name for item in given if item.name in ("max_steps", "epochs") and item.text != "null"]
    if lengths[-1:] != ["max_steps"]:
        return given
    return [item for item in given if item.name != "epochs"]


def _require(settings: Mapping[str, Setting], given: Sequence[Given]) -> None:
    names = {item.name for item in given}
    missing = [
        setting.flag for setting in settings.values() if setting.is_required and setting.name not in names
    ]
    if missing:
        raise UsageError(f"{' and '.join(missing)} must be given; --help explains them")


def _typed(config_class: type[Config], settings: Mapping[str, Setting], given: Sequence[Given]) -> Config:
    if not given:
        return config_class()
    # Late, after the words are understood: it takes a tenth of a second to load.
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class, "config")
    try:
        namespace = parser.parse_args([f"--config.{item.name}={item.text}" for item in given])
    except argparse.ArgumentError as error:
        raise UsageError(_type_error(str(error), settings, given)) from error
    config: Config = parser.instantiate(namespace).config
    _require_paths(config, settings)
    return config


def _require_paths(config: Config, settings: Mapping[str, Setting]) -> None:
    """Raises UsageError for a URL where a path of this machine is meant; a folder `s3:` would be made."""
    for name in _OF_THIS_MACHINE & settings.keys():
        value = getattr(config, name, None)
        for text in value if isinstance(value, tuple) else [value]:
            if isinstance(text, str) and _URL.match(text):
                raise UsageError(
                    f"{settings[name].flag} {text}: expected a path of this machine; of URLs only stores are "
                    "read and written (docs/remote.md)"
                )


def _type_error(message: str, settings: Mapping[str, Setting], given: Sequence[Given]) -> str:
    """jsonargparse's message in terms of the flag or file that gave the value."""
    found = re.search(r'Parser key "config\.([^"]+)"', message)
    setting = settings.get(found.group(1)) if found else None
    if setting is None:
        return message
    last = next(item for item in reversed(given) if item.name == setting.name)
    return f"{last.source}: expected {setting.expected}, found {last.text!r}"
