"""No waiting for the disk, as a fixture of every test of a module or folder that imports it."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def unsynced() -> Iterator[None]:
    """For tests that cut no power: waiting is most of what small stores cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield
