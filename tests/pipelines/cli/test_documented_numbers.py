"""Numbers of the code that help texts and documents repeat."""

from pathlib import Path

import pytest

from stores.format.plan import MAX_SHARD_BYTES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", ["pipelines/config.py", "docs/store-format.md"])
def test_the_shard_size_is_the_one_that_plans_use(path: str) -> None:
    assert f"{MAX_SHARD_BYTES >> 20} MiB" in (ROOT / path).read_text()
