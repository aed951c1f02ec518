"""One process a device: `extract` started for each with a part of its own, one progress, one summary."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from extract.extractor.shared_shards import Part
from pipelines.cli.progress_bar import ExtractionProgress
from pipelines.config import ExtractConfig
from pipelines.engines.merged_summary import merged_summary
from pipelines.engines.process_progress import TogetherProgress, print_beside, receiving
from pipelines.engines.stop_request import StopRequest
from pipelines.errors import INTERRUPTED, UsageError
from pipelines.next_step import PROGRAM, same_extraction

_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1)


def extract_on(
    devices: Sequence[str], config: ExtractConfig, part: Part | None, stop: StopRequest
) -> dict[str, Any]:
    """Runs `extract` once a device; returns one summary.

    Args:
        devices: of the processes.
        config: of the extraction; its workers are those of each process, by default an equal share.
        part: of all of them together, where other machines work too.
        stop: of this command, whose time has begun to run.

    Raises:
        UsageError: `retry_skipped`, which is the work of one process.
        WorkFailed: a process failed; the others did what they could.
        KeyboardInterrupt: after all processes have ended.
    """
    if config.retry_skipped:
        raise UsageError("--retry-skipped with --devices: it is the work of one process; pass --device")
    cores = max(1, len(os.sched_getaffinity(0)) // len(devices))
    environment = dict(os.environ)
    if devices[0] == "cpu":
        environment.setdefault("OMP_NUM_THREADS", str(cores))
    whole, left_s = part or Part(0, 1), stop.left_s
    stop_after = None if left_s is None else f"{max(0, int(left_s))}s"
    shares = None if config.max_shards is None else _shares(config.max_shards, len(devices))
    with ExtractionProgress(f"{config.dataset} {config.model}") as shown:
        together, processes = TogetherProgress(shown), []
        for number, device in enumerate(devices[: None if shares is None else len(shares)]):
            own = Part(whole.index * len(devices) + number, whole.count * len(devices))
            one = replace(
                config,
                device=device,
                devices=None,
                part=str(own),
                workers=config.workers or cores,
                stop_after=stop_after,
                max_shards=None if shares is None else shares[number],
            )
            words = shlex.split(same_extraction(one).removeprefix(PROGRAM))
            processes.append(_Process(f"{number} ({device})", words, environment, together))
        with _passing_signals_on(processes):
            for process in processes:
                process.wait()
    summary = _summary_of(processes)
    for flag, value in (("--stop-after", config.stop_after), ("--max-shards", config.max_shards)):
        if str(summary["stopped_by"]).startswith(flag):
            summary["stopped_by"] = f"{flag} {value}"
    return summary


def _shares(count: int, processes: int) -> list[int]:
    """`count` shared among so many processes, without those that would get none."""
    return [n for i in range(processes) if (n := count // processes + (i < count % processes))]


class _Process:
    """One `extract`; its log lines are passed on, with its name before each."""

    def __init__(
        self, name: str, words: Sequence[str], environment: Mapping[str, str], together: TogetherProgress
    ) -> None:
        self.name = name
        reading, writing, environment = receiving(environment)
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *words, "--json"],
            env=environment,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which passes it on once
            pass_fds=(writing,),
        )
        os.close(writing)
        self._lines: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_output),
            threading.Thread(target=self._read_log),
            threading.Thread(target=together.read, args=(name, reading)),
        ]
        for reader in self._readers:
            reader.start()

    def _read_output(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as output:
            for line in output:
                self._lines[:] = [line]  # the last one is the summary

    def _read_log(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as log:
            for line in log:
                print_beside(f"process {self.name}: {line.rstrip()}")

    def wait(self) -> None:
        self._popen.wait()
        for reader in self._readers:
            reader.join()

    def send(self, number: int) -> None:
        self._popen.send_signal(number)  # none where it has ended

    @property
    def code(self) -> int:
        return self._popen.returncode

    @property
    def summary(self) -> dict[str, Any]:
        try:
            found = json.loads("".join(self._lines))
        except ValueError:  # it was killed
            return {}
        return found if isinstance(found, dict) else {}


@contextmanager
def _passing_signals_on(processes: Sequence[_Process]) -> Iterator[None]:
    """Requests to stop, and Ctrl-C, reach every process; nothing is left running."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send(number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON} if is_main else {}
    try:
        yield
    except BaseException:
        pass_on(signal.SIGINT, None)
        for process in processes:
            process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary_of(processes: Sequence[_Process]) -> dict[str, Any]:
    done = [process.summary for process in processes if process.code == 0]
    codes = {process.name: process.code for process in processes if process.code != 0}
    if codes and set(codes.values()) <= {INTERRUPTED, -signal.SIGINT}:
        raise KeyboardInterrupt
    failed = {f"process {name}": f"ended with {code}" for name, code in codes.items()}
    return merged_summary(done, failed, processes=len(processes))
