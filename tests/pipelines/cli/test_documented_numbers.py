"""Numbers of the code that documents repeat."""

import re
from pathlib import Path

import pytest

from stores.format.plan import MAX_SHARD_BYTES

ROOT = Path(__file__).parents[3]


def test_the_format_names_the_shard_size_that_plans_use() -> None:
    assert f"within {MAX_SHARD_BYTES >> 20} MiB" in (ROOT / "docs" / "store-format.md").read_text()


@pytest.mark.parametrize(("document", "section"), [("coco.md", "The demo"), ("demo.md", "Figures")])
def test_scores_of_the_demo_are_as_exact_as_they_repeat(document: str, section: str) -> None:
    """They move by points between machines and seeds, so hundredths mean nothing."""
    text = (ROOT / "docs" / document).read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith(("| swinv2", "| the same", "    "))]
    assert rows and not [row for row in rows if re.search(r"\d\.\d\d\b", row)]
    assert "machine" in text and "seeds" in text
