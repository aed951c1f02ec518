"""The tables of docs/performance.md: each command of it is run again, and what it prints stands below it.

python docs/measure.py [NAME ...]      # all blocks, or those named; one after another, on a machine at rest
python docs/measure.py --list
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENT = PROJECT / "docs" / "performance.md"
BLOCK = re.compile(
    r"(<!-- (?P<name>[\w-]+) -->\n    (?P<command>[^\n]+)\n\n```text\n)(?P<printed>.*?)(\n```\n)", re.DOTALL
)
"""A name in a comment, the command, and what it printed."""


def blocks(text: str) -> dict[str, str]:
    """Name -> command of every block, in order."""
    return {found["name"]: found["command"] for found in BLOCK.finditer(text)}


def printed_by(command: str) -> str:
    """What a command prints, without the folder of this clone. Raises CalledProcessError where it fails."""
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    done = subprocess.run(words, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return "\n".join(line.rstrip().replace(str(PROJECT), ".") for line in done.stdout.strip().splitlines())


def with_printed(text: str, name: str, printed: str) -> str:
    """The document with other output in one block.

    >>> page = "<!-- a -->\\n    python -V\\n\\n```text\\nold\\n```\\n"
    >>> with_printed(page, "a", "new").splitlines()[-2]
    'new'
    """

    def replaced(found: re.Match[str]) -> str:
        return f"{found[1]}{printed}{found[5]}" if found["name"] == name else found[0]

    return BLOCK.sub(replaced, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true", help="names and commands; runs nothing")
    options = parser.parse_args()
    commands = blocks(DOCUMENT.read_text())
    if unknown := [name for name in options.names if name not in commands]:
        parser.error(f"no block {', '.join(unknown)}; available: {', '.join(commands)}")
    for name in options.names or commands:
        print(f"{name}: {commands[name]}", flush=True)
        if not options.list:
            printed = printed_by(commands[name])
            DOCUMENT.write_text(with_printed(DOCUMENT.read_text(), name, printed))


if __name__ == "__main__":
    main()
