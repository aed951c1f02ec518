"""Fixtures of the tests of stores."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def unsynced() -> Iterator[None]:
    """No test here cuts the power, and waiting for the disk is most of what small stores cost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield
