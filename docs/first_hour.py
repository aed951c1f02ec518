"""The transcript of docs/first-hour.md: its commands, typed in a fresh clone, and what each prints.

python docs/first_hour.py --streets FOLDER --out EMPTY     # clones this repository's last commit into EMPTY
python docs/first_hour.py --streets FOLDER --out EMPTY --from 7   # continues at the seventh command
python docs/first_hour.py --list                           # the commands; runs nothing

A command that fails ends the script, with the transcript up to it written. Lines of pip's own warnings are
left out, and of long outputs the middle.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENT = PROJECT / "docs" / "first-hour.md"
BLOCK = re.compile(r"```console\n(?P<body>.*?)\n```", re.DOTALL)
SUMMARY = re.compile(r"^Typed on .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
SHOWN_FIRST, SHOWN_LAST = 12, 14
"""Lines of an output that is longer than both together."""
WIDTH = 400
"""Characters of a line that are shown."""
NOT_SHOWN = ("WARNING: ", "[notice]", ".venv/bin/python -m pipelines ")
"""Beginnings of lines of pip, and of those that make prints before it runs them."""


def commands(text: str) -> list[str]:
    """The command of every block, without its `$ ` and with lines that end in a backslash joined."""
    return [command_of(found["body"]) for found in BLOCK.finditer(text)]


def command_of(body: str) -> str:
    r"""The command at the top of a block.

    >>> command_of("$ make probe \\\n    METHOD=knn\nk 5   93.5\n# 12 s")
    'make probe \\\n    METHOD=knn'
    """
    lines = body.splitlines()
    count = 1
    while lines[count - 1].endswith("\\"):
        count += 1
    return "\n".join(lines[:count]).removeprefix("$ ")


def shortened(printed: str, home: Path) -> str:
    """The lines a reader needs: no folder of this machine, no warnings of pip, no middle of long outputs.

    >>> shortened("a\\nWARNING: Location is ignored\\n/x/permafrost/b \\n", Path("/x"))
    'a\\n~/permafrost/b'
    """
    lines = [
        line.rstrip().replace(str(home), "~")[:WIDTH]
        for line in printed.splitlines()
        if not line.startswith(NOT_SHOWN)
    ]
    if len(lines) > SHOWN_FIRST + SHOWN_LAST:
        lines = [*lines[:SHOWN_FIRST], "...", *lines[-SHOWN_LAST:]]
    return "\n".join(lines).strip("\n")


def rounded(seconds: float) -> str:
    """A duration as the transcript shows it.

    >>> rounded(3.4), rounded(207)
    ('3 s', '3 min 27 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def seconds_of(body: str) -> int:
    """What `rounded` wrote as the last line of a block.

    >>> seconds_of("$ make probe\\n# 3 min 27 s"), seconds_of("$ make probe\\nk 5\\n# 12 s")
    (207, 12)
    """
    minutes, seconds = re.fullmatch(r"# (?:(\d+) min )?(\d+) s", body.splitlines()[-1]).groups(default="0")
    return 60 * int(minutes) + int(seconds)


def typed(home: Path, clone: Path, first: int) -> None:
    """Runs the commands of the document in the clone, and writes what it printed after each.

    Args:
        first: of the commands, counted from 1; what those before it printed stays.
    """
    text, taken, number = DOCUMENT.read_text(), 0.0, 0
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    position = 0
    while found := BLOCK.search(text, position):
        command, number = command_of(found["body"]), number + 1
        if number < first:
            taken, position = taken + seconds_of(found["body"]), found.end()
            continue
        print(f"$ {command}", flush=True)
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
        taken += seconds
        printed = shortened(done.stdout, home)
        print(f"{printed}\n# {rounded(seconds)}", flush=True)
        block = "\n".join(part for part in (f"$ {command}", printed, f"# {rounded(seconds)}") if part)
        text = f"{text[: found.start()]}```console\n{block}\n```{text[found.end() :]}"
        position = found.start() + len(block) + len("```console\n\n```")
        DOCUMENT.write_text(text)
        if done.returncode:
            sys.exit(f"exit code {done.returncode} of: {command}")
    DOCUMENT.write_text(SUMMARY.sub(lambda _: summary(taken, clone), text))


def summary(seconds: float, clone: Path) -> str:
    """When, where and how long."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout.strip()
    return (
        f"Typed on {time.strftime('%Y-%m-%d')} at commit {commit}: **{rounded(seconds)} in all**, on "
        f"{os.cpu_count()} processor cores without a GPU, Python {platform.python_version()}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streets", type=Path, help="folder with images/, masks/ and classes.txt")
    parser.add_argument("--out", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--from", type=int, default=1, dest="first", help="a command, counted from 1")
    parser.add_argument("--list", action="store_true", help="the commands; runs nothing")
    options = parser.parse_args()
    if options.list:
        print("\n".join(commands(DOCUMENT.read_text())))
        return
    if options.streets is None or options.out is None:
        parser.error("--streets and --out are needed")
    home = options.out.resolve()
    clone = home / "permafrost"
    if options.first == 1:
        home.mkdir(parents=True)
        subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
        shutil.copytree(options.streets, home / "streets")
    typed(home, clone, options.first)


if __name__ == "__main__":
    main()
