"""Shell completion: the verbs, flags and choices of the console script `permafrost`, written by shtab."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from pipelines.cli.settings import Setting, settings_of
from pipelines.cli.verbs import VERBS
from pipelines.config import CompletionConfig

PROGRAM = "permafrost"


def run(config: CompletionConfig) -> dict[str, Any]:
    """Prints the script on stdout."""
    import shtab  # late: no other verb needs it

    print(shtab.complete(verb_parser(), config.shell))
    return {"shell": config.shell}


def verb_parser() -> ArgumentParser:
    """An argparse parser of all verbs, for their names and flags only: words are read by cli/given.py."""
    parser = ArgumentParser(PROGRAM)
    verbs = parser.add_subparsers()
    for name, verb in VERBS.items():
        flags = verbs.add_parser(name, help=verb.text)
        for setting in settings_of(verb.config_class).values():
            _add_flag(flags, setting)
        flags.add_argument("--config", help="YAML file of settings").complete = _FILES  # type: ignore[attr-defined]
        flags.add_argument("--print-config", action="store_true", help="Print the settings and exit.")
    return parser


_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


def _add_flag(parser: ArgumentParser, setting: Setting) -> None:
    text = setting.text.partition(". ")[0].replace("%", "%%")
    if setting.is_switch:
        parser.add_argument(setting.flag, action="store_true", help=text)
        return
    action = parser.add_argument(setting.flag, choices=setting.choices or None, help=text)
    if not setting.choices:  # a path, or a value that shells complete as one
        action.complete = _FILES  # type: ignore[attr-defined]
