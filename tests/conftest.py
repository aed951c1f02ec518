"""Fixtures shared by every test: the folder of real samples, where there is one."""

import os
from pathlib import Path

import pytest


def samples_folder() -> Path | None:
    """The folder of real samples: PERMAFROST_SAMPLES, or shared/data beside the checkout."""
    named = os.environ.get("PERMAFROST_SAMPLES")
    candidates = [Path(named)] if named else [Path(__file__).parents[2] / "shared" / "data"]
    return next((folder for folder in candidates if folder.is_dir()), None)


@pytest.fixture(scope="session")
def samples() -> Path:
    folder = samples_folder()
    if folder is None:
        pytest.skip("no real samples: set PERMAFROST_SAMPLES to a folder holding ade20k/ADEChallengeData2016")
    return folder
