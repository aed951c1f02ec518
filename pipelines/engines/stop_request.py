"""A request to stop after the running shards: after a time, by SIGTERM or by SIGUSR1.

Batch systems send SIGTERM when they want a node back, and SLURM sends a signal of choice some time before a
job's limit (`--signal=USR1@300`). The first signal asks the extraction to stop; a later one interrupts it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
ONE_REQUEST_S = 2.0
"""Signals within so many seconds are one request: launchers pass one on that the whole group received."""


class StopRequest:
    """Whether the extraction shall stop; called before each batch.

    Args:
        after_s: seconds from now until it shall; None: no limit.
        after: `after_s` as the user wrote it.
        clock: seconds, for tests.
    """

    def __init__(
        self, after_s: float | None, after: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._end = None if after_s is None else clock() + after_s
        self._after, self._clock = after, clock
        self._signalled: float | None = None
        self.reason: str | None = None
        """What asked for it: a signal's name or the flag; None before."""

    def __call__(self) -> bool:
        if self.reason is None and self._end is not None and self._clock() >= self._end:
            self.reason = f"--stop-after {self._after}"
        return self.reason is not None

    @property
    def left_s(self) -> float | None:
        """Seconds until its time is over; 0 where a signal asked for it, None without a limit."""
        if self.reason is not None:
            return 0.0
        return None if self._end is None else self._end - self._clock()

    @contextmanager
    def on_signals(self, *numbers: signal.Signals) -> Iterator[None]:
        """These signals, SIGTERM and SIGUSR1 by default, ask for it within, and a later one raises
        KeyboardInterrupt. No effect outside the main thread, which alone receives signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._asked) for number in numbers or SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        if self._signalled is None:
            self._signalled, self.reason = now, signal.Signals(number).name
        elif now - self._signalled >= ONE_REQUEST_S:
            raise KeyboardInterrupt
