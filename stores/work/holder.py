"""The process that holds a lock or a claim, and whether it still lives.

On the same machine a dead holder is known at once. From elsewhere it cannot be looked up: its holder rewrites
a counter, and whoever watches it decides by a clock of its own.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

_MAX_BYTES = 1 << 12  # 4 KiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The process that holds a lock."""

    host: str
    boot_id: str | None
    """Of the machine's present start; None where the system has none."""
    pid_namespace: str | None
    """Process ids mean something within it alone: containers on one machine have their own."""
    pid: int
    started: str | None
    """When the process started, in clock ticks since the machine did: pids are used again."""
    token: str
    """Of this lock alone."""
    counter: int = 0

    def describe(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.host}"


def this_process() -> Holder:
    """This process as the holder of a new lock."""
    return Holder(
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        started=_start_of(os.getpid()),
        token=uuid.uuid4().hex,
    )


def read_holder(path: Path) -> Holder | None:
    """The holder that a lock names; None where there is no lock, or one that is just being written."""
    try:
        with path.open("rb") as file:
            return Holder(**json.loads(file.read(_MAX_BYTES)))
    except (OSError, ValueError, TypeError):
        return None


def write_holder(descriptor: int, holder: Holder) -> None:
    """In one write of one length, so that a reader never sees parts of two."""
    os.pwrite(descriptor, json.dumps(asdict(holder)).ljust(_MAX_BYTES // 2).encode() + b"\n", 0)


def is_here(holder: Holder) -> bool:
    """Whether this process can look the holder up: same machine, same start of it, same process ids."""
    return (holder.host, holder.boot_id, holder.pid_namespace) == (
        socket.gethostname(),
        _boot_id(),
        _pid_namespace(),
    )


def is_alive(holder: Holder) -> bool:
    """Whether a process of this machine still runs."""
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    started = _start_of(holder.pid)
    return started is None or holder.started is None or started == holder.started


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """Field 22 of /proc/<pid>/stat; the second, a name in brackets, may hold blanks and brackets."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else fields[19]  # a zombie has ended
