"""Numbers of the code that documents repeat."""

from pathlib import Path

from stores.format.plan import MAX_SHARD_BYTES

ROOT = Path(__file__).parents[3]


def test_the_format_names_the_shard_size_that_plans_use() -> None:
    assert f"within {MAX_SHARD_BYTES >> 20} MiB" in (ROOT / "docs" / "store-format.md").read_text()
