"""The table of docs/trust.md from the tests of faults: their names, their docstrings and their outcomes.

    python docs/trust_table.py                 today's names; outcomes are kept, new tests are "not run"
    python docs/trust_table.py results.xml     outcomes of `pytest --junitxml results.xml` of the same files

`python docs/trust_table.py --files` lists the files. A test compares the table with the files.
"""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENT = PROJECT / "docs" / "trust.md"
BEGIN = "<!-- table: `python docs/trust_table.py` writes it -->\n"
NOT_RUN = "not run"
BY_TEST_ALL = "see `make test-all`"
"""Of slow tests, which vary others exhaustively."""
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Writers that die, disks that fail": (
        "tests/faults/test_write_faults.py",
        "tests/faults/test_killed_processes.py",
        "tests/faults/test_stateful.py",
        "tests/extract/extractor/test_extraction_faults.py",
        "tests/pipelines/extraction/test_disk.py",
    ),
    "Several writers": (
        "tests/faults/test_two_writers.py",
        "tests/stores/work/test_claims.py",
        "tests/extract/extractor/test_shared_shards.py",
        "tests/pipelines/extraction/test_two_processes.py",
        "tests/pipelines/runs/test_run_lock.py",
    ),
    "Disks without hard links, disks that cannot sync": (
        "tests/stores/shards/test_exclusive.py",
        "tests/faults/test_no_links.py",
        "tests/pipelines/extraction/test_disk_kinds.py",
    ),
    "Records that end a decoder or a process": (
        "tests/extract/extractor/test_attempts.py",
        "tests/stores/work/test_attempts.py",
        "tests/pipelines/extraction/test_retry_skipped.py",
    ),
    "Sources that change between two runs": ("tests/extract/planning/test_begun.py",),
    "Damaged, forged and hostile stores": (
        "tests/faults/test_read_faults.py",
        "tests/stores/reading/test_hostile_stores.py",
        "tests/stores/checks/test_verify.py",
        "tests/stores/checks/test_forged_stores.py",
        "tests/stores/checks/test_repair.py",
    ),
    "Monstrous and malformed small files": (
        "tests/stores/test_small_files.py",
        "tests/pipelines/runs/test_hostile_records.py",
        "tests/pipelines/cli/test_safe_output.py",
    ),
    "Two users": ("tests/pipelines/extraction/test_two_users.py",),
}


def tests_of(path: str) -> Iterator[tuple[str, str, str]]:
    """Name, first paragraph of the docstring and outcome before it was run, of each test of a file, in order;
    also of state machines."""
    for node in ast.parse((PROJECT / path).read_text(encoding="utf-8")).body:
        is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        is_machine = isinstance(node, ast.ClassDef) and node.name.startswith("Test")
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and (is_test or is_machine):
            note = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            is_slow = any(ast.unparse(mark).endswith("mark.slow") for mark in node.decorator_list)
            yield node.name, note, BY_TEST_ALL if is_slow else NOT_RUN


def sentence(name: str) -> str:
    """
    >>> sentence("test_a_kill_at_every_operation"), sentence("TestAHistory")
    ('A kill at every operation', 'A history')
    """
    words = re.sub(r"(?<=[A-Za-z])(?=[A-Z])", " ", name.removeprefix("Test")).lower()
    words = words.removeprefix("test_").replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def row(path: str, name: str, note: str, outcome: str) -> str:
    text = sentence(name) + (f": {note[:1].lower()}{note[1:].rstrip('.')}" if note else "")
    return f"| {text.replace('|', '/')} | {outcome} | <!-- {path}::{name} -->"


def recorded(text: str) -> dict[str, str]:
    """The outcomes of tests that were run, in a table."""
    rows = re.findall(r"^\| .* \| ([^|]*) \| <!-- (\S+) -->$", text, re.MULTILINE)
    return {test: outcome for outcome, test in rows if outcome not in (NOT_RUN, BY_TEST_ALL)}


def measured(results: Path) -> dict[str, str]:
    """The outcomes in a JUnit file by test; of a test with several cases one for all."""
    cases: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(results).getroot().iter("testcase"):
        parts = case.get("classname", "").split(".")
        classes = [part for part in parts if part.startswith("Test")]
        path = "/".join(part for part in parts if part not in classes) + ".py"
        name = classes[0] if classes else case.get("name", "").partition("[")[0]
        kinds = {child.tag for child in case}
        outcome = "fails" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "holds"
        cases.setdefault(f"{path}::{name}", Counter())[outcome] += 1
    return {test: _outcome(found) for test, found in cases.items()}


def _outcome(found: Counter[str]) -> str:
    if found["fails"]:
        return f"**fails** in {found['fails']} of {found.total()} cases"
    if not found["holds"]:
        return "skipped"
    return "holds" if found["holds"] == 1 else f"holds in {found['holds']} cases"


def table(outcomes: Mapping[str, str]) -> str:
    lines = []
    for title, paths in SECTIONS.items():
        lines += ["", f"### {title}", "", "| what was tried, and what happens | outcome |", "|---|---|"]
        for path in paths:
            for name, note, before in tests_of(path):
                lines.append(row(path, name, note, outcomes.get(f"{path}::{name}", before)))
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    if arguments == ["--files"]:
        print(*(path for paths in SECTIONS.values() for path in paths))
        return
    text = DOCUMENT.read_text(encoding="utf-8")
    outcomes = recorded(text)
    if arguments:
        outcomes |= measured(Path(arguments[0]))
    DOCUMENT.write_text(text[: text.index(BEGIN)] + BEGIN + table(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
