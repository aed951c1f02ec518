"""Short measurements: what `plan` times under tests is no figure for anybody."""

from collections.abc import Iterator

import pytest

from pipelines.forecast import head_probe, speed_probe, storage_options


@pytest.fixture(autouse=True, scope="session")
def short_measurements() -> Iterator[None]:
    """Hundredths of a second and tiny images where a user's `plan` takes seconds and real sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed_probe, "MEASURED_S", 0.05)
        patch.setattr(storage_options, "MEASURED_S", 0.05)
        patch.setattr(head_probe, "CPU_PIXELS", 2 * 64 * 64)
        patch.setattr(head_probe, "STEPS", 1)
        yield
