"""The part of a process by its environment, and what asks it to stop."""

import os
import signal
from collections.abc import Mapping

import pytest

from extract.extractor.shared_shards import Part
from pipelines.engines.parts import choose_part
from pipelines.engines.stop_request import ONE_REQUEST_S, StopRequest
from pipelines.errors import UsageError


def array(number: int, first: int, last: int, step: int | None = None) -> dict[str, str]:
    named = {"ID": number, "MIN": first, "MAX": last} | ({} if step is None else {"STEP": step})
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in named.items()}


TASK = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}
TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
INDEXED = {"JOB_COMPLETION_INDEX": "3"}


@pytest.mark.parametrize(
    ("given", "environment", "part"),
    [
        (None, {}, None),
        ("2/8", {}, (2, 8)),
        ("2/8", array(1, 0, 3), (2, 8)),
        ("none", array(1, 0, 3), None),
        (None, array(0, 0, 7, 1), (0, 8)),
        (None, array(1, 1, 8, 1), (0, 8)),
        (None, array(8, 1, 8), (7, 8)),
        (None, array(14, 10, 18, 2), (2, 5)),
        (None, array(6, 0, 7, 3), (2, 3)),
        (None, array(7, 0, 7), (7, 8)),  # of 0,3,7: an index is never beyond the count
        (None, array(5, 5, 5), (0, 1)),  # one task again, beside others perhaps: it does not wait for them
        (None, TASK, (2, 4)),
        (None, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        (None, {"SLURM_NTASKS": "4"}, None),  # a shell of salloc
        (None, array(2, 1, 3) | TASK, (6, 12)),
        (None, array(2, 1, 3) | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (1, 3)),
        (None, TORCHRUN, (5, 8)),
        (None, {"RANK": "5", "WORLD_SIZE": "8"}, None),
        (None, TORCHRUN | TASK, (5, 8)),
        (None, INDEXED, None),
        ("auto/4", INDEXED, (3, 4)),
        ("auto/5", array(14, 10, 18, 2), (2, 5)),
    ],
)
def test_the_part(given: str | None, environment: Mapping[str, str], part: tuple[int, int] | None) -> None:
    chosen = choose_part(given, environment)
    assert (None if chosen is None else chosen.part) == (None if part is None else Part(*part))


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ("8/8", {}, "parts count from 0, so expected 0/8 to 7/8"),
        ("auto/2", {}, "JOB_COMPLETION_INDEX.*pass it, such as --part 0/8"),
        ("auto/3", INDEXED, "JOB_COMPLETION_INDEX 3 of Kubernetes.*expected 0/3 to 2/3"),
        ("auto/9", array(1, 1, 8), "the environment says part 0/8.*leave --part out, or start 9 processes"),
        (None, array(0, 1, 8), "task 0 of the SLURM array 1-8.*parts count from 0"),
        (None, {"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN is not set"),
        (None, TASK | {"SLURM_NTASKS": "4(x2)"}, r"SLURM_NTASKS is '4\(x2\)': expected a number"),
    ],
)
def test_parts_that_are_refused(given: str | None, environment: Mapping[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_part(given, environment)


def test_a_time_and_signals_ask_to_stop() -> None:
    now = [100.0]
    stop = StopRequest(60, "1m", clock=lambda: now[0])
    assert not stop() and stop.reason is None
    now[0] = 160
    assert stop() and stop.reason == "--stop-after 1m"
    stop = StopRequest(None, clock=lambda: now[0])
    before = signal.getsignal(signal.SIGUSR1)
    with stop.on_signals():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)  # passed on by a launcher: the same request
        assert stop() and stop.reason == "SIGUSR1"
        now[0] += ONE_REQUEST_S
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGUSR1) == before
