"""Fixtures shared by every test: the folder of real samples, where there is one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # A GPU's kernels run in Python. Triton reads it when it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")


NO_SAMPLES = "no real samples"


def samples_folder() -> Path | None:
    """The folder of real samples: PERMAFROST_SAMPLES, or shared/data beside the checkout."""
    named = os.environ.get("PERMAFROST_SAMPLES")
    candidates = [Path(named)] if named else [Path(__file__).parents[2] / "shared" / "data"]
    return next((folder for folder in candidates if folder.is_dir()), None)


@pytest.fixture(scope="session")
def samples() -> Path:
    folder = samples_folder()
    if folder is None:
        pytest.skip(f"{NO_SAMPLES}: set PERMAFROST_SAMPLES to a folder holding ade20k/ADEChallengeData2016")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `plan` measures under tests is not kept for the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMAFROST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Turns the skip of a parity test into a failure where PERMAFROST_STRICT_ORACLES is set, as CI does.

    A skip for want of real samples stays one.
    """
    report = yield
    is_strict = report.skipped and os.environ.get("PERMAFROST_STRICT_ORACLES")
    if is_strict and item.get_closest_marker("oracle") and NO_SAMPLES not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: its oracle is not installed, so nothing was compared"
    return report
