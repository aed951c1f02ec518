"""`python -m pipelines VERB`: parse, run, report. Logs go to stderr; stdout holds the results."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from pipelines.cli.help_text import program_help, verb_help
from pipelines.cli.safe_output import escaping_stdout, start_logging
from pipelines.config import config_yaml
from pipelines.disk_errors import remedy
from pipelines.errors import DONE, INTERRUPTED, USAGE, exit_code, is_foreseen
from pipelines.json_output import json_text
from stores.format.printable import escaped_lines

CLOSED_PIPE = 128 + signal.SIGPIPE
"""The exit code of programs that the closed pipe kills."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code; an error becomes one line on stderr, never a traceback.

    Args:
        arguments: the words after `python -m pipelines`; None takes them from the command line.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(program_help(), end="")
        return DONE if words else USAGE
    # Late: the list of verbs needs no reader of the command line.
    from pipelines.cli.arguments import split_general_flags, verb_named
    from pipelines.cli.head_variants import parse_command

    general = split_general_flags(words[1:])
    try:
        verb = verb_named(words[0])
        if general.help:
            print(verb_help(words[0]), end="")
            return DONE
        config = parse_command(verb.config_class, general.rest)
        if general.print_config:
            print(config_yaml(config), end="")
            return DONE
        start_logging()
        with escaping_stdout():
            summary = _imported(verb.module, is_program=arguments is None).run(config)
            sys.stdout.flush()
    except BrokenPipeError:  # as of `info | head`: whoever read the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except (Exception, KeyboardInterrupt) as error:
        return _explain(error, words, general.json, general.debug)
    if config.json:
        print(json_text(summary), flush=True)
    return DONE


def _imported(name: str, *, is_program: bool) -> ModuleType:
    """A verb's module. Libraries such as torch are half a million objects that live as long as the program:
    looking through them for garbage finds nothing, and takes a seventh of the time of their import."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        module = import_module(name)
    finally:
        if was_enabled:
            gc.enable()
    if is_program:  # a caller's own garbage must not be kept
        gc.freeze()
    return module


def _explain(error: BaseException, words: Sequence[str], as_json: bool, debug: bool) -> int:
    """Prints the error, and how to continue, on stderr. Returns the exit code."""
    code = exit_code(error)
    if debug or os.environ.get("PERMAFROST_DEBUG"):
        traceback.print_exception(error)
    command = f"python -m pipelines {shlex.join(words)}"
    if code == INTERRUPTED:
        message = f"interrupted; to continue: {getattr(error, 'command', command)}"
    elif is_foreseen(error):
        advice = remedy(error)
        message = str(error) + (f"; {advice}" if advice else "")
        message += f"; to continue: {command}" if getattr(error, "resumable", False) else ""
    else:
        message = f"{type(error).__name__}: {error} (unexpected error; rerun with --debug for a traceback)"
    print(escaped_lines(f"{' '.join(words[:1])}: {message}"), file=sys.stderr)
    if as_json:
        summary: Mapping[str, Any] = getattr(error, "summary", {})
        print(json_text({**summary, "error": message, "exit_code": code}), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
