"""The simulation beside real processes: the same shards, with real claims, commits and clocks.

    python -m benchmarks.cluster.real_workers [--shards 48] [--shard-s 1] [--workers 1,2]

Each worker is a process with the scheduler and the writer of an extraction; the time of a shard is slept, so
that the load of the machine decides little. The simulation takes the latencies of the same disk, measured
before and after by as many processes at once, and how much longer than asked a sleep takes. Printed is the
makespan of both, from the first worker's start to the last shard's commit, and their ratio.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

from benchmarks.cluster.latencies import commit_made, mean_of, measured
from benchmarks.cluster.simulation import durations, plan_of, simulate
from extract.extractor.shared_shards import Part, SharedShards
from stores.work.attempts import Attempts
from stores.work.claims import Claims
from stores.writing.writer import StoreWriter


def work(root: str, shards: int, mean_s: float, number: int, count: int, ready: object, ends: object) -> None:
    """One worker; sends when it began and when it committed its last shard."""
    plan = plan_of(shards)
    writer = StoreWriter.open_or_create(Path(root), plan)
    writer.use_claims(Claims(writer.path))
    seconds = dict(zip(plan.shards(), durations(shards, mean_s, 0), strict=True))
    ready.wait()  # type: ignore[attr-defined]
    began = last = time.time()
    todo = writer.pending()
    shared = SharedShards(writer, Attempts(writer.path), todo, lambda *_: None, part=Part(number, count))
    while shared:
        while shared.todo:
            shard = shared.todo.popleft()
            if not shared.claim(shard):
                continue
            time.sleep(seconds[shard])
            commit_made(writer, shard)
            shared.release(shard)
            last = time.time()
        shared.look_again()
    ends.put((began, last))  # type: ignore[attr-defined]


def real_makespan_s(folder: Path, workers: int, shards: int, shard_s: float) -> float:
    """Of real processes; the store is made before they start."""
    with tempfile.TemporaryDirectory(dir=folder) as root:
        StoreWriter.open_or_create(Path(root), plan_of(shards))
        context = multiprocessing.get_context("spawn")
        ready, ends = context.Barrier(workers), context.Queue()
        processes = [
            context.Process(target=work, args=(root, shards, shard_s, number, workers, ready, ends))
            for number in range(workers)
        ]
        for process in processes:
            process.start()
        times = [ends.get() for _ in processes]
        for process in processes:
            process.join()
    return max(last for _, last in times) - min(began for began, _ in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shards", type=int, default=48)
    parser.add_argument("--shard-s", type=float, default=1.0)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    given = parser.parse_args()
    folder = Path(given.folder)
    for workers in map(int, given.workers.split(",")):
        before = measured(folder, plan_of(given.shards), workers)
        real = real_makespan_s(folder, workers, given.shards, given.shard_s)
        latencies = mean_of(before, measured(folder, plan_of(given.shards), workers))
        simulated = simulate(workers, given.shards, given.shard_s, latencies).makespan_s
        print(
            f"{workers} workers: real {real:.2f} s, simulated {simulated:.2f} s, "
            f"simulated / real {simulated / real:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
