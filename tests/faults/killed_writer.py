"""A process that extracts a small store and, if asked to, kills itself at its n-th file operation.

python -m tests.faults.killed_writer ROOT SEED [N]     prints which shards it won
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path

from stores.shards.disk import Files
from tests.faults.faulty_files import Fault, FaultyFiles
from tests.faults.made_stores import NEW_LAYOUT, MadeRows, extract, small_plan


class SelfKilling(FaultyFiles):
    """Real operations on real threads; the process kills itself at the n-th."""

    def __init__(self, kill_at: int) -> None:
        super().__init__()
        self._kill_at, self._count = kill_at, itertools.count()

    def fault_of(self, number: int, name: str) -> Fault | None:
        if next(self._count) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    run_all = Files.run_all


def writer_of(seed: int) -> MadeRows:
    """The rows that a process of this seed writes; the plan is the same for all."""
    return MadeRows(small_plan(**NEW_LAYOUT), seed)


def main(root: str, seed: str, kill_at: str = "-1") -> None:
    won = extract(Path(root), writer_of(int(seed)), SelfKilling(int(kill_at)))
    print(json.dumps([[shard.bin, shard.shard] for shard, mine in won.items() if mine]))


if __name__ == "__main__":
    main(*sys.argv[1:])
