"""Simulation of many workers on one store: the real scheduler and claims on a virtual clock.

    python -m benchmarks.cluster.simulation [--workers 1,8,64,512] [--shards 7393] [--shard-s 60]

Real are `SharedShards` (who takes what), `Claims` (files in a folder) and parts; made up are the clock, the
time of a shard (lognormal, sigma 0.3, one in a hundred ten times as long) and failures: a worker that ends in
the middle of a shard, whose claim stands still, and that starts again a minute later. What a claim, a
look for a receipt, a commit and the first list take is measured on the disk of `--folder` first, by
`--measured-by` processes at once, or given. A worker's steps follow
each other, where an extraction overlaps them, so the simulation is the slower one.

Efficiency is computing time over the time that workers were held: a part ends once nothing is left for it.
The makespan's is over the time until the last shard, for all workers. Beside it stands what no scheduler that
does not know the times could be asked for: shards given in their order to whoever is free, without claims,
latencies or failures; and the same with the longest first, as if the times were known.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import heapq
import os
import random
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import stores.work.claims as claims_module
from benchmarks.cluster.latencies import Latencies, measured
from benchmarks.scale import made_plan
from extract.extractor.shared_shards import Part, SharedShards
from stores.format.plan import Bin, ShardId, StorePlan
from stores.work.attempts import Attempts
from stores.work.claims import Claims
from stores.work.holder import Holder

SIGMA, SLOW_SHARE, SLOW_TIMES = 0.3, 0.01, 10.0
RESTART_S = 60.0
_ALWAYS_FRESH = 1e9
"""Virtual time of the claims of living workers, which rewrite them with each batch."""


@dataclass
class Clock:
    """Virtual seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class VirtualClaims(Claims):
    """Claims whose files carry virtual times."""

    def __init__(self, root: Path, clock: Clock) -> None:
        super().__init__(root, clock=clock, beat_s=15.0)
        self._virtual = clock

    def _create(self, name: str) -> bool:
        made = super()._create(name)
        if made:
            self._stamp(name, _ALWAYS_FRESH)
        return made

    def _is_gone(self, name: str, holder: Holder | None) -> bool:
        """A living worker's counter, which is not rewritten here, never stands still."""
        with contextlib.suppress(OSError):
            if (self._folder / name).stat().st_mtime >= _ALWAYS_FRESH:
                self._seen.pop(name, None)
                return False
        return super()._is_gone(name, holder)

    def _stamp(self, name: str, at: float) -> None:
        os.utime(self._folder / name, (at, at))

    def end(self) -> None:
        """The process is gone: its files stay, and are not beaten any more."""
        for name, descriptor in self._held.items():
            self._stamp(name, self._virtual.now)
            os.close(descriptor)
        self._held.clear()


@dataclass
class Outcome:
    """What a simulated extraction took."""

    workers: int
    failures: int = 0
    makespan_s: float = 0.0
    busy_s: float = 0.0
    """Of shards that were committed."""
    held_s: float = 0.0
    """Of all workers, from start to end."""
    lost_s: float = 0.0
    lost_shards: int = 0
    """Begun by a worker that failed."""
    twice: int = 0
    """Computed by two workers that lived."""
    claims: int = 0
    looks: int = 0

    @property
    def efficiency(self) -> float:
        return self.busy_s / self.held_s

    @property
    def of_makespan(self) -> float:
        return self.busy_s / (self.workers * self.makespan_s)


@dataclass
class _Worker:
    part: Part
    claims: VirtualClaims
    shards: SharedShards
    began_s: float
    running: ShardId | None = None
    run_began_s: float = 0.0
    life: int = 0
    """Events of an earlier process are void."""


@dataclass
class _Store:
    plan: StorePlan
    done: set[ShardId] = field(default_factory=set)

    def seen_by(self, claims: Claims) -> Any:
        """What SharedShards asks of a writer."""
        receipt = lambda shard: SimpleNamespace() if shard in self.done else None  # noqa: E731
        return SimpleNamespace(plan=self.plan, claims=claims, receipt=receipt, path=Path("store"))


def durations(shards: int, mean_s: float, seed: int) -> list[float]:
    """Seconds of each shard: `mean_s` before one in a hundred takes ten times as long."""
    generator = random.Random(seed)
    made = [mean_s * generator.lognormvariate(-(SIGMA**2) / 2, SIGMA) for _ in range(shards)]
    for number in generator.sample(range(shards), max(1, round(SLOW_SHARE * shards))):
        made[number] *= SLOW_TIMES
    return made


def greedy_efficiency(seconds: Iterable[float], workers: int) -> float:
    """Share of the makespan that is computing, where each shard goes to the worker that is free first."""
    free = [0.0] * workers
    busy = 0.0
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
        busy += each
    return busy / (workers * max(free))


def plan_of(shards: int) -> StorePlan:
    """A plan of one bin with so many shards of one row."""
    plan = made_plan(shards)
    rows = plan.bins[0]
    one = Bin(height_px=rows.height_px, width_px=rows.width_px, rows=shards, shard_rows=1, batch_rows=1)
    return cast("StorePlan", dataclasses.replace(plan, bins=(one,)))


class Simulation:
    """One extraction by `workers` parts."""

    def __init__(
        self,
        folder: Path,
        plan: StorePlan,
        seconds: list[float],
        workers: int,
        latencies: Latencies,
        failures: int = 0,
        seed: int = 0,
    ) -> None:
        self._clock, self._folder, self._store = Clock(), folder, _Store(plan)
        self._seconds = dict(zip(plan.shards(), seconds, strict=True))
        self._latencies, self._failures, self._seed = latencies, failures, seed
        self._events: list[tuple[float, int, str, int, int]] = []
        self._order = 0
        self.outcome = Outcome(workers)
        self._workers = [self._start(Part(number, workers), 0.0) for number in range(workers)]

    def _start(self, part: Part, at: float) -> _Worker:
        claims = VirtualClaims(self._folder, self._clock)
        todo = [shard for shard in self._store.plan.shards() if shard not in self._store.done]
        shards = SharedShards(
            cast(Any, self._store.seen_by(claims)), Attempts(None), todo, lambda *_: None, part=part
        )
        return _Worker(part, claims, shards, began_s=at)

    def run(self) -> Outcome:
        """Until every worker has ended."""
        claims_module._file_system_time = lambda root: self._clock.now  # type: ignore[assignment]
        expected_s = sum(self._seconds.values()) / len(self._workers)
        generator = random.Random(self._seed)
        for number in range(len(self._workers)):
            self._at(self._latencies.list_s, "next", number)
        for _ in range(self._failures):
            self._at(
                generator.uniform(0.05, 0.9) * expected_s, "fail", generator.randrange(len(self._workers))
            )
        while self._events:
            self._clock.now, _, what, number, life = heapq.heappop(self._events)
            worker = self._workers[number]
            if what == "fail":
                self._fail(number, worker)
            elif what == "start":
                self._restart(number, worker)
            elif life == worker.life:
                self._step(number, worker)
        assert len(self._store.done) == len(self._seconds), "shards were left"
        return self.outcome

    def _at(self, seconds: float, what: str, number: int) -> None:
        self._order += 1
        life = self._workers[number].life
        heapq.heappush(self._events, (self._clock.now + seconds, self._order, what, number, life))

    def _step(self, number: int, worker: _Worker) -> None:
        """Commits the shard at hand, and takes the next."""
        if worker.running is not None:
            self._commit(worker, worker.running)
        cost_s = self._latencies.commit_s if worker.running is not None else 0.0
        worker.running = None
        while worker.shards:
            while worker.shards.todo:
                shard = worker.shards.todo.popleft()
                self.outcome.looks += 1
                if worker.shards.claim(shard):
                    self.outcome.claims += 1
                    cost_s += self._latencies.claim_s + 2 * self._latencies.look_s  # before and after it
                    worker.running, worker.run_began_s = shard, self._clock.now + cost_s
                    self._at(cost_s + self._seconds[shard], "next", number)
                    return
                is_done = shard in self._store.done
                cost_s += self._latencies.seen_s if is_done else self._latencies.look_s
            worker.shards.look_again()
        self.outcome.held_s += self._clock.now + cost_s - worker.began_s
        worker.life += 1

    def _commit(self, worker: _Worker, shard: ShardId) -> None:
        if shard in self._store.done:
            self.outcome.twice += 1
        else:
            self._store.done.add(shard)
            self.outcome.busy_s += self._seconds[shard]
            self.outcome.makespan_s = self._clock.now + self._latencies.commit_s
        worker.shards.release(shard)

    def _fail(self, number: int, worker: _Worker) -> None:
        if worker.running is None:  # it has ended, or is starting
            return
        self.outcome.failures += 1
        self.outcome.lost_shards += 1
        self.outcome.lost_s += self._clock.now - worker.run_began_s
        self.outcome.held_s += self._clock.now - worker.began_s
        worker.claims.end()
        worker.running = None
        worker.life += 1
        self._at(RESTART_S, "start", number)

    def _restart(self, number: int, worker: _Worker) -> None:
        fresh = self._start(worker.part, self._clock.now)
        fresh.life = worker.life
        self._workers[number] = fresh
        self._at(self._latencies.list_s, "next", number)


def simulate(
    workers: int, shards: int, shard_s: float, latencies: Latencies, *, failures: int = 0, seed: int = 0
) -> Outcome:
    """One simulated extraction, in a folder of its own."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        seconds = [each + latencies.late_s for each in durations(shards, shard_s, seed)]
        return Simulation(
            Path(folder), plan_of(shards), seconds, workers, latencies, failures=failures, seed=seed
        ).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", default="1,8,64,512")
    parser.add_argument("--shards", type=int, default=7393, help="COCO with SwinV2-G: 16 rows each")
    parser.add_argument("--shard-s", type=float, default=60.0)
    parser.add_argument("--failures", type=int, default=8)
    parser.add_argument("--folder", help="disk whose latencies are measured; default: the temporary folder's")
    parser.add_argument("--latencies", help="seconds of claim, look, seen, commit, list: .03,.03,.03,.2,1")
    parser.add_argument("--measured-by", type=int, default=2, help="processes, which contend for the disk")
    given = parser.parse_args()
    if given.latencies:
        latencies = Latencies(*map(float, given.latencies.split(",")))
    else:
        latencies = measured(
            Path(given.folder or tempfile.gettempdir()), plan_of(given.shards), given.measured_by
        )
    print(
        f"claim {1e3 * latencies.claim_s:.2f} ms, look {1e3 * latencies.look_s:.2f} ms, of a "
        f"finished shard {1e3 * latencies.seen_s:.2f} ms, commit "
        f"{1e3 * latencies.commit_s:.1f} ms, list of {given.shards} shards {latencies.list_s:.2f} s"
    )
    print(
        "workers  failures  hours  efficiency  of makespan  in order  longest first  lost shards  "
        "lost share  twice  looks a claim"
    )
    seconds = durations(given.shards, given.shard_s, 0)
    for workers in map(int, given.workers.split(",")):
        bounds = greedy_efficiency(seconds, workers), greedy_efficiency(sorted(seconds)[::-1], workers)
        found = simulate(workers, given.shards, given.shard_s, latencies, failures=given.failures)
        print(
            f"{workers:7}  {found.failures:8}  {found.makespan_s / 3600:5.1f}  {found.efficiency:10.3f}  "
            f"{found.of_makespan:11.3f}  {bounds[0]:8.3f}  {bounds[1]:13.3f}  "
            f"{found.lost_shards:11}  {found.lost_s / found.busy_s:10.5f}  "
            f"{found.twice:5}  {found.looks / found.claims:13.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
