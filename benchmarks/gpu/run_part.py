"""Runs a part of the GPU benchmark in processes of their own, to its limit and no longer."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO

from benchmarks.gpu.parts import Command, Part
from benchmarks.gpu.results import Results

_LAST_LINES = 3
"""Of what a failed command said."""


def run_part(
    part: Part, results: Results, environment: Mapping[str, str], options: argparse.Namespace
) -> None:
    """Adds what the part's commands print to the results, line by line; names what was cut or failed."""
    began = time.monotonic()
    until, problems = began + part.limit_s * options.limit_factor, []
    print(f"{part.name}: at most {part.limit_s * options.limit_factor:.0f} s", file=sys.stderr, flush=True)
    for command in part.commands:
        if problem := _run(command, part, until, results, environment, options):
            problems.append(f"{command.label or command.module}: {problem}")
    results.end(part, time.monotonic() - began, problems)


def _run(
    command: Command,
    part: Part,
    until: float,
    results: Results,
    environment: Mapping[str, str],
    options: argparse.Namespace,
) -> str | None:
    """What is wrong, None for nothing."""
    if time.monotonic() >= until:
        return "not begun: the part's limit was reached"
    words = shlex.split(command.tiny if options.tiny else command.words)
    line = [sys.executable, "-m", command.module, *words, "--device", options.device, "--json"]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=dict(environment),
            start_new_session=True,
        )
        assert process.stdout is not None
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
        try:
            while (found := lines.get(timeout=max(0.01, until - time.monotonic()))) is not None:
                results.add(part, command.label, _parsed(found))
            code = process.wait(max(0.01, until - time.monotonic()))
        except (queue.Empty, subprocess.TimeoutExpired):
            return "cut at the part's limit"
        finally:
            _end(process)
        if code:
            said.seek(0)
            return f"exit code {code}: " + " | ".join(said.read().strip().splitlines()[-_LAST_LINES:])
    return None


def _pass_on(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:  # a line that a library printed
        return {}


def _end(process: subprocess.Popen[str]) -> None:
    """Kills the process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
