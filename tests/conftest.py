"""Fixtures shared by every test, and how the tests share the processors."""

import os
from collections.abc import Iterator
from pathlib import Path

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    # Several processes, each with a thread a core, wait for each other: one thread each takes a sixth less
    # processor time. Torch reads it when it is imported; processes that a test starts inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    # A GPU's kernels run in Python. Triton reads it when it is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples in every run, however slow the machine: a test that passes here passes there.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("suite")

LONGEST_FIRST = ("tests/pipelines/", "tests/extract/", "tests/faults/")
"""Folders whose files take minutes. `make test` runs the files in this order, so that short ones come last
and no process waits long for the other."""
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test or its fixtures draw without a seed depends on no test before it."""
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the files by LONGEST_FIRST; the others and the tests of a file keep their order."""

    def place(item: pytest.Item) -> int:
        places = (n for n, folder in enumerate(LONGEST_FIRST) if item.nodeid.startswith(folder))
        return next(places, len(LONGEST_FIRST))

    items.sort(key=place)


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
