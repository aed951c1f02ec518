"""Trial of a step in a child process: what ends its process ends the child.

The child is a fork, so that data sets with open files need not be written down; it runs this one thread
alone, uses no device, and is the first that the kernel ends where memory runs out.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 300
"""After which the child is ended: five times what a decoder is given."""
_NO_MEMORY = 77


def ends_its_process(step: Callable[[], object], limit_s: int = LIMIT_S) -> str | None:
    """Why `step` ends a process that runs it; None where it returns, or raises what this process can meet
    itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, since Python 3.12
        child = os.fork()
    if not child:
        _run(step, limit_s)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == _NO_MEMORY or code == -signal.SIGKILL:
        return "loading it used up the memory"
    if code == -signal.SIGALRM:
        return f"loading it did not finish within {limit_s} s"
    return None if code == 0 else f"loading it ended its process (signal {-code})"


def _run(step: Callable[[], object], limit_s: int) -> None:
    """In the child; never returns."""
    code = 0
    try:
        faulthandler.disable()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(limit_s)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        step()
    except MemoryError:
        code = _NO_MEMORY
    except BaseException:  # the parent meets it when it loads the record itself
        code = 0
    finally:
        os._exit(code)
