"""The table of docs/trust.md is of today's tests, and of outcomes that hold."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trust_table", PROJECT / "docs" / "trust_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_is_what_the_tests_say(script: ModuleType) -> None:
    document = (PROJECT / "docs" / "trust.md").read_text(encoding="utf-8")
    outcomes = script.recorded(document)
    made = script.table(outcomes)
    assert document.partition(script.BEGIN)[2] == made, "run `python docs/trust_table.py`"
    failing = [test for test, outcome in outcomes.items() if outcome.startswith("**fails")]
    assert not failing and f"| {script.NOT_RUN} |" not in made, "run `make trust-table`"


def test_outcomes_are_those_of_the_run(script: ModuleType, tmp_path: Path) -> None:
    """Of a test with several cases one for all, and of a state machine that of its class."""
    results = tmp_path / "results.xml"
    results.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.faults.test_a" name="test_one[x]"/>'
        '<testcase classname="tests.faults.test_a" name="test_one[y]"><failure/></testcase>'
        '<testcase classname="tests.faults.test_a" name="test_two[1]"/>'
        '<testcase classname="tests.faults.test_a" name="test_two[2]"><skipped/></testcase>'
        '<testcase classname="tests.faults.test_a" name="test_three"><skipped/></testcase>'
        '<testcase classname="tests.faults.test_a.TestStore" name="runTest"/>'
        "</testsuite></testsuites>"
    )
    assert script.measured(results) == {
        "tests/faults/test_a.py::test_one": "**fails** in 1 of 2 cases",
        "tests/faults/test_a.py::test_two": "holds",
        "tests/faults/test_a.py::test_three": "skipped",
        "tests/faults/test_a.py::TestStore": "holds",
    }
