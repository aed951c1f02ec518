"""The help of the program and of a verb, built from the verb table and the texts under the config's fields.

jsonargparse could print one, but would need another package for the texts under fields and show underscores.
"""

from __future__ import annotations

import textwrap

from pipelines.cli.settings import Setting, settings_of
from pipelines.cli.verbs import VERBS

_COMMAND = "python -m pipelines"
_INDENT = 26
WORDS = {
    "record": "an image or video of the data set",
    "view": "one crop or size of a record, as the backbone sees it",
    "row": "what a store holds of one view: its features, and its targets",
    "bin": "the rows whose views have one padded size",
    "shard": "some rows of a bin, written as a whole: an extraction continues after the last one",
}
"""The words of stores, for readers who meet them first."""
_EXPLAINED = ("plan", "extract")
"""Verbs whose help explains them."""
_GENERAL = ("json", "debug")


def program_help() -> str:
    """The verbs, one line each."""
    verbs = "\n".join(f"  {name:<12}{verb.text}" for name, verb in VERBS.items())
    usage = f"usage: {_COMMAND} VERB [--flag value ...]"
    return f"{usage}\n\n{verbs}\n\n{_COMMAND} VERB --help lists the flags of a verb.\n"


def verb_help(name: str) -> str:
    """The flags of one verb, in the order of its config."""
    verb = VERBS[name]
    settings = settings_of(verb.config_class)
    flags = "\n".join(_flag_help(setting) for setting in settings.values() if setting.name not in _GENERAL)
    general = "\n".join(
        (
            *(_flag_help(settings[name]) for name in _GENERAL),
            _paragraph("--config FILE", "YAML file of settings, names with underscores; flags override it."),
            _paragraph("--print-config", "Print the resulting settings as such a file and exit."),
        )
    )
    example = f"\nfor example: {_COMMAND} {name} {verb.example}".rstrip()
    words = "\n".join(["", *word_lines(), ""]) if name in _EXPLAINED else ""
    usage = f"usage: {_COMMAND} {name} [--flag value ...]\n{example}\n\n{verb.text}\n"
    return f"{usage}{words}\n{flags}\n{general}\n"


def word_lines() -> list[str]:
    """WORDS, one a line."""
    return [f"  {word:<10}{text}" for word, text in WORDS.items()]


def _flag_help(setting: Setting) -> str:
    value = "" if setting.is_switch else " " + _placeholder(setting)
    note = ""
    if setting.is_required:
        note = " (required)"
    elif not setting.is_switch and setting.default not in (None, {}, ()):
        default = setting.default
        note = f" (default: {','.join(map(str, default)) if isinstance(default, tuple) else default})"
    return _paragraph(setting.flag + value, setting.text + note)


def _placeholder(setting: Setting) -> str:
    if setting.choices:
        return "|".join(setting.choices)
    if setting.is_list:
        return "A,B"
    if setting.is_mapping:
        return "MAPPING"
    return "N" if setting.types[0] in (int, float) else "TEXT"


def _paragraph(flag: str, text: str) -> str:
    lines = textwrap.wrap(text, width=110 - _INDENT)
    first = f"  {flag:<{_INDENT - 2}}"
    if len(first) > _INDENT:
        return "\n".join([first, *(" " * _INDENT + line for line in lines)])
    return "\n".join([first + lines[0], *(" " * _INDENT + line for line in lines[1:])])
