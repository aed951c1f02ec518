"""A verb in a child process: its log lines passed on, its summary taken, signals sent to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pipelines.engines.process_progress import print_beside, receiving

_PASSED_ON = (signal.SIGTERM, signal.SIGUSR1)


class ChildProcess:
    """One verb in a process of its own; its log lines are passed on, with its name before each.

    Args:
        name: for log lines.
        words: verb and flags.
        environment: its variables.
        read_progress: takes the name, and the descriptor of what it sends of its progress, until it ends.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        read_progress: Callable[[str, int], None] | None = None,
    ) -> None:
        self.name = name
        reading, writing, environment = receiving(environment)
        if read_progress is None:
            os.close(reading)
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
        ]
        if read_progress is not None:
            self._readers.append(threading.Thread(target=read_progress, args=(name, reading)))
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
def passing_signals_on(processes: Sequence[ChildProcess]) -> Iterator[None]:
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
