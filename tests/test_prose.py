"""Prose in the plain terms of the field: the habits this project has left behind do not come back.

Read are string literals, docstrings and comments of every Python file, and the documents.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("stores", "extract", "heads", "pipelines", "benchmarks", "tests")
HABITS = {
    r"mend(s|ed|ing)?": "fix or repair",
    r"tells?|told|telling": "reports, records, prints, says",
    r"there are (?!more|none|now|no\b)[\w{}'()-]+(, [\w{}'()-]+)+": "available: X, Y",
    r"there are \{": "available: {...}",
    r"nobody (said|named|says)|where nobody": "by default, unlabelled",
    r"(let|lets|letting) go": "freed, released",
    r"go(es)? on\b(?! (the|a|one|each))": "continues",
    r"(the|a) way out": "how to fix it",
    r"as a (user|reader) wants to read it": "readable",
}
"""What is not written any more, and what is written instead."""
PATTERN = re.compile("|".join(rf"\b(?:{habit})" + r"(?!\w)" for habit in HABITS), re.IGNORECASE)


def python_prose(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string and comment; of f-strings the literal parts with {} between them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(
                    part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "{}"
                    for part in node.values
                ),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def habits_in(text: str) -> list[str]:
    return [match.group() for match in PATTERN.finditer(" ".join(text.split()))]


DOCUMENTS = ("*.md", "docs/*.md", "Makefile")


@pytest.mark.parametrize("room", ROOMS)
def test_python_files_speak_plainly(room: str) -> None:
    found = []
    for path in sorted((ROOT / room).rglob("*.py")):
        if path.name != Path(__file__).name:
            prose = python_prose(path.read_text(encoding="utf-8"))
            places = sorted({(line, habit) for line, text in prose for habit in habits_in(text)})
            found += [f"{path.relative_to(ROOT)}:{line}: {habit}" for line, habit in places]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("pattern", DOCUMENTS)
def test_documents_speak_plainly(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {habit}"
        for path in sorted(ROOT.glob(pattern))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for habit in habits_in(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "delete them to mend it",
        "the receipt tells which",
        "there are fpn, bifpn5",
        "what goes on",
        "memory let go",
    ],
)
def test_a_habit_is_found(text: str) -> None:
    assert habits_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "recommended",
        "available: fpn, bifpn5",
        "there are two views",
        "untold",
        "it goes on the device",
        "amend",
    ],
)
def test_plain_words_pass(text: str) -> None:
    assert habits_in(text) == []
