"""Which devices get a process each."""

import pytest

from pipelines.engines.devices import chosen_devices
from pipelines.errors import UsageError


@pytest.mark.parametrize(
    ("given", "device", "gpus", "environment", "devices"),
    [
        (None, "auto", 0, {}, ("auto",)),
        (None, "auto", 1, {}, ("auto",)),
        (None, "auto", 2, {}, ("cuda:0", "cuda:1")),
        (None, "cpu", 2, {}, ("cpu",)),
        (None, "auto", 4, {"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4"}, ("cuda:2",)),
        (None, "auto", 2, {"LOCAL_RANK": "3", "WORLD_SIZE": "4"}, ("cuda:1",)),  # more ranks than GPUs
        (None, "auto", 2, {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, ("cuda:0", "cuda:1")),
        (None, "auto", 1, {"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4"}, ("auto",)),  # each sees its own alone
        (None, "cuda:1", 2, {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}, ("cuda:1",)),
        (None, "auto", 4, {"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, ("cuda:1",)),
        (None, "auto", 4, {"SLURM_LOCALID": "1", "SLURM_NTASKS": "2"}, ("cuda:1",)),
        (None, "auto", 2, {"SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1"}, ("cuda:0", "cuda:1")),
        (None, "auto", 2, {"SLURM_PROCID": "0"}, ("cuda:0", "cuda:1")),  # a shell of salloc
        ("all", "auto", 2, {"SLURM_PROCID": "0"}, ("cuda:0", "cuda:1")),
        ("cuda:2,cuda:0", "auto", 4, {}, ("cuda:2", "cuda:0")),
        ("cpu:2", "auto", 4, {}, ("cpu", "cpu")),
    ],
)
def test_devices(
    given: str | None, device: str, gpus: int, environment: dict[str, str], devices: tuple[str, ...]
) -> None:
    assert chosen_devices(given, device, gpus, environment) == devices


@pytest.mark.parametrize(
    ("given", "device", "message"),
    [
        ("cuda:0,cuda:5", "auto", "'cuda:5' is no GPU of this machine, which has 2"),
        ("cpu:0", "auto", "cpu:2 for two processes"),
        ("cpu:2", "cpu", "--device cpu and --devices cpu:2: pass one of them"),
    ],
)
def test_devices_that_are_refused(given: str, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen_devices(given, device, 2, {})
