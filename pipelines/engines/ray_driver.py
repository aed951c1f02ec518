"""ENGINE=ray: a driver hands out the shards of a store to actors, one a GPU, until none is left.

An actor that ends, by itself or with its node, loses nothing but its running shards: they are handed out
again, and Ray starts the actor again a limited number of times. Which record ends processes is counted in the
store, as for every engine (stores/work/attempts.py).
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from extract.extractor.progress import Progress
from pipelines.cli.progress_bar import ExtractionProgress
from pipelines.config import ExtractConfig, RayConfig
from pipelines.engines.merged_summary import merged_summary
from pipelines.engines.process_progress import TogetherProgress
from pipelines.engines.ray_actor import Shard, ShardActor
from pipelines.engines.stop_request import StopRequest
from pipelines.errors import UsageError, WorkFailed

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""Seconds between two looks at the actors' progress, and at shards of other processes."""
SHARDS_AT_ONCE = 64
"""Shards that are handed to an actor at once, at most."""


def require_ray(config: ExtractConfig) -> ModuleType:
    """Ray. Raises UsageError where it is not installed, and for flags that its driver has no use for."""
    for flag, value in (("--part", config.part), ("--devices", config.devices)):
        if value is not None:
            raise UsageError(f"{flag} {value} with --engine ray: its driver hands out the shards")
    if config.retry_skipped:
        raise UsageError("--retry-skipped is the work of one process: pass --engine local")
    try:
        import ray  # late: an extra
    except ImportError as error:
        raise UsageError("--engine ray needs the extra: pip install -e '.[ray]'") from error
    module: ModuleType = ray
    return module


def share(waiting: int, actors: int) -> int:
    """How many shards to hand out next: fewer as fewer are left, at the end one at a time.

    >>> share(1000, 8), share(40, 4), share(3, 4)
    (41, 3, 1)
    """
    return max(1, min(SHARDS_AT_ONCE, waiting // (3 * actors)))


@dataclass(slots=True)
class _Actor:
    """One actor as the driver sees it."""

    name: str
    handle: Any
    token: str | None = None
    """Marks the claims of its present process."""
    shards: tuple[Shard, ...] = ()
    """At hand."""
    deaths: int = 0


def extract_on_ray(config: ExtractConfig, stop: StopRequest) -> dict[str, Any]:
    """Fills the store by actors; returns one summary.

    Raises:
        UsageError: Ray cannot be reached, or has no room for an actor.
        WorkFailed: an actor's work failed, or no actor is left; finished shards stay.
        KeyboardInterrupt: all actors are ended, with their running shards.
    """
    ray = require_ray(config)
    is_mine = not ray.is_initialized()
    if is_mine:
        try:
            ray.init(address=config.ray.address, logging_level=logging.WARNING, include_dashboard=None)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"--engine ray: no cluster at {config.ray.address or 'RAY_ADDRESS'}: {error}"
            ) from error
    driver = _Driver(ray, config, stop)
    try:
        with stop.on_signals(), ExtractionProgress(f"{config.dataset} {config.model}") as shown:
            return driver.run(shown)
    finally:
        driver.end_actors()
        if is_mine:
            ray.shutdown()


class _Driver:
    def __init__(self, ray: ModuleType, config: ExtractConfig, stop: StopRequest) -> None:
        self._ray, self._config, self._stop = ray, config, stop
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if config.device in ("auto", "cuda") else 0
        nodes = sum(node["Alive"] for node in ray.nodes())
        count = config.ray.actors or gpus or nodes
        cores = max(1, int(resources.get("CPU", 1)) // count)
        own = dataclasses.replace(
            config, engine="local", ray=RayConfig(), part=None, workers=config.workers or cores
        )
        actor_class = ray.remote(ShardActor).options(
            num_cpus=config.ray.actor_cpus,
            num_gpus=1 if gpus else 0,
            max_restarts=config.ray.restarts,
            max_task_retries=0,
            max_concurrency=2,  # progress and stop are called while shards are filled
            scheduling_strategy="SPREAD",
        )
        self._actors = [_Actor(f"actor {number}", actor_class.remote(own)) for number in range(count)]
        self._queue: deque[Shard] = deque()
        self._elsewhere: list[Shard] = []
        self._ended: list[str] = []
        self._done: list[dict[str, Any]] = []
        self._failed: dict[str, str] = {}
        self._idle: list[_Actor] = []
        self._starting: dict[Any, _Actor] = {}
        self._filling: dict[Any, _Actor] = {}
        self._asked_progress: dict[Any, _Actor] = {}
        self._store = ""

    def run(self, show: Any) -> dict[str, Any]:
        print(f"{len(self._actors)} Ray actors", flush=True)
        for actor in self._actors:
            self._start(actor)
        store = self._first_store()
        pending = self._ask_pending()
        self._queue.extend(shard for shard, _ in pending)
        rows = sum(count for _, count in pending)
        before = sum(self._totals().values())
        together = TogetherProgress(show, total=(rows, len(pending)), rows_before=before)
        began_s, is_complete = time.monotonic(), not pending
        while not is_complete or self._filling:
            self._hand_out()
            if not (self._filling or self._starting or self._idle):
                raise self._no_actor_left()
            if self._stop() or self._failed:
                self._ask_to_stop()
                if not self._filling:
                    break
            self._look(together)
            is_complete = is_complete or any(each["manifest_digest"] for each in self._done)
        totals = self._totals()
        stopped_by = None if is_complete else self._stop.reason
        named = [{**each, **totals, "stopped_by": stopped_by} for each in self._done]
        if not named:  # nothing was to be done, or nothing could be
            left = 0 if is_complete else len(self._queue) + len(self._elsewhere)
            nothing = {
                "skipped": [],
                "shards_left": left,
                "done_before": is_complete,
                "stopped_by": stopped_by,
            }
            named = [{"store": store, **totals, **nothing}]
        merged = merged_summary(named, self._failed, processes=len(self._actors))
        deaths = sum(actor.deaths for actor in self._actors)
        return {**merged, "seconds": time.monotonic() - began_s, "actors_ended": deaths}

    def _start(self, actor: _Actor) -> None:
        """Waits in the background until its process has loaded the backbone, the first time or again."""
        actor.token = None
        self._starting[actor.handle.begin.remote()] = actor

    def _first_store(self) -> str:
        """The store, once a first actor is ready. Raises WorkFailed where an actor cannot be made."""
        while not self._idle:
            if not self._starting:
                raise self._no_actor_left()
            self._look(None)
            if self._failed:
                raise WorkFailed("; ".join(self._failed.values()))
        return self._store

    def _ask_pending(self) -> list[tuple[Shard, int]]:
        found: list[tuple[Shard, int]] = self._ray.get(self._idle[0].handle.pending.remote())
        return found

    def _totals(self) -> dict[str, int]:
        for actor in self._idle:
            try:
                written, skipped = self._ray.get(actor.handle.totals.remote())
            except self._ray.exceptions.RayActorError:
                continue
            return {"total_rows_written": written, "total_rows_skipped": skipped}
        return {}

    def _hand_out(self) -> None:
        if self._stop() or self._failed:
            return
        if (
            not self._queue and not self._filling
        ):  # others have finished them by now, or their process is gone
            self._queue.extend(self._elsewhere)
            self._elsewhere.clear()
        while self._idle and (self._queue or not self._filling):
            actor = self._idle.pop(0)
            count = min(len(self._queue), share(len(self._queue), len(self._actors)))
            actor.shards = tuple(self._queue.popleft() for _ in range(count))
            # Without shards it commits the store: the receipts of others may have been the last ones.
            self._filling[actor.handle.fill.remote(actor.shards, self._ended)] = actor

    def _look(self, together: TogetherProgress | None) -> None:
        """Takes what has become ready within a while."""
        waiting = [*self._starting, *self._filling]
        ready, _ = self._ray.wait(waiting, timeout=POLL_S) if waiting else ([], [])
        for reference in ready:
            if reference in self._starting:
                self._take_start(reference)
            else:
                self._take_outcome(reference)
        if together is not None:
            self._take_progress(together)

    def _take_start(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        errors = self._ray.exceptions
        try:
            begun = self._ray.get(reference)
        except errors.ActorUnavailableError:  # Ray is starting it again
            time.sleep(POLL_S)
            self._start(actor)
            return
        except errors.ActorDiedError as error:
            problem = _cause(error)
            if problem is not None:  # raised while it was made: it would be so again
                self._failed[actor.name] = problem
            logger.warning("%s is not started any more: %s", actor.name, problem or _first_line(error))
            return
        actor.token, self._store = begun["token"], begun["store"]
        self._idle.append(actor)

    def _take_outcome(self, reference: Any) -> None:
        actor = self._filling.pop(reference)
        errors = self._ray.exceptions
        shards, actor.shards = actor.shards, ()
        try:
            outcome = self._ray.get(reference)
        except errors.RayActorError as error:
            actor.deaths += 1
            self._queue.extendleft(reversed(shards))
            if actor.token is not None:
                self._ended.append(actor.token)
            logger.warning(
                "%s ended: its %d shards are handed out again (%s)",
                actor.name,
                len(shards),
                _first_line(error),
            )
            self._start(actor)
            return
        except errors.RayTaskError as error:
            self._failed[actor.name] = f"failed: {_first_line(error.cause or error)}"
            self._queue.extendleft(reversed(shards))
            self._idle.append(actor)
            return
        self._idle.append(actor)
        self._done.append(outcome)
        left = [tuple(shard) for shard in outcome["left"]]
        self._elsewhere.extend(left)
        if left or not shards:
            time.sleep(POLL_S if not outcome["manifest_digest"] else 0)

    def _take_progress(self, together: TogetherProgress) -> None:
        for actor in self._filling.values():
            if actor not in self._asked_progress.values():
                self._asked_progress[actor.handle.progress.remote()] = actor
        ready, _ = (
            self._ray.wait(list(self._asked_progress), num_returns=len(self._asked_progress), timeout=0)
            if self._asked_progress
            else ([], [])
        )
        for reference in ready:
            actor = self._asked_progress.pop(reference)
            try:
                progress = self._ray.get(reference)
            except self._ray.exceptions.RayError:
                continue
            if progress is not None:
                together.take(f"{actor.name}, {len(self._done)}", Progress(**progress))

    def _ask_to_stop(self) -> None:
        for actor in self._filling.values():
            actor.handle.stop.remote()

    def _no_actor_left(self) -> WorkFailed:
        return WorkFailed(
            f"all {len(self._actors)} actors have ended, each more often than --ray.restarts "
            f"{self._config.ray.restarts} allows; finished shards stay, and the same command continues"
        )

    def end_actors(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor.handle)


def _cause(error: BaseException) -> str | None:
    """What an actor's constructor raised; None where its process ended instead."""
    text = str(error)
    if "creation task" not in text:
        return None
    return [line for line in text.strip().splitlines() if line.strip()][-1]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
