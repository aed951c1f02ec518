"""ENGINE=ray on two nodes of one machine: an actor killed, a node killed, a record that ends processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stores import verify_store
from stores.format.row_table import UNDECODABLE
from tests.extract.extractor.extraction import row_digests, skipped
from tests.pipelines.engines.poison import poison, write_site
from tests.pipelines.extraction.verb import TRAINING, result


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def cluster(site: Path) -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    quick = {
        "health_check_period_ms": 500,
        "health_check_failure_threshold": 4,
        "health_check_timeout_ms": 500,
    }
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(site))  # of the actors, which the nodes start
    made = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**node, "_system_config": quick}, shutdown_at_exit=False
    )
    made.add_node(**node)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()
    patch.undo()


@pytest.fixture
def ray_words(words: list[str], cluster: Any) -> list[str]:
    return [
        *(*words, "--shard-rows", "1", "--batch-size", "1", "--views", "4"),
        *("--engine", "ray", "--ray.address", cluster.address),
    ]


def alone(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The store of one process."""
    at, end = words.index("--stores") + 1, words.index("--engine")
    words = [*words[:at], str(tmp_path / "alone"), *words[at + 1 : end]]
    return Path(result(capsys, "extract", *words)[1]["store"])


def holder(features: Path, but: int = 0) -> int:
    """The process of a claim, once an actor has one."""
    while True:
        for claim in features.glob("*/work/claims/*"):
            try:
                pid = int(json.loads(claim.read_text())["pid"])
            except (OSError, ValueError):
                continue
            if pid != but:
                return pid
        time.sleep(0.005)


@pytest.mark.ci
def test_an_actor_is_killed(ray_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By SIGKILL in its first shard: Ray starts it again, and its shards are computed once more."""
    killed: list[int] = []

    def kill() -> None:
        killed.append(holder(tmp_path / "features"))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    code, summary, out, err = result(capsys, "extract", *ray_words)
    assert code == 0 and killed and "2 Ray actors" in out, err
    assert (summary["rows_written"], summary["shards_left"]) == (4 * TRAINING, 0)
    assert summary["shards_written"] == 4 * TRAINING == summary["total_rows_written"]
    assert summary["actors_ended"] == 1 and summary["processes"] == 2
    assert row_digests(Path(summary["store"])) == row_digests(alone(ray_words, tmp_path, capsys))
    assert verify_store(summary["store"], full=True).ok
    code, summary, out, _ = result(capsys, "extract", *ray_words)
    assert (code, summary["rows_written"], summary["done_before"]) == (0, 0, True)


@pytest.mark.slow
def test_a_node_is_killed(
    ray_words: list[str], tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other node's actor does the rest."""
    third = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    cluster.wait_for_nodes()

    def kill() -> None:
        holder(tmp_path / "features")
        cluster.remove_node(third, allow_graceful=False)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    code, summary, _, err = result(capsys, "extract", *ray_words, "--stop-after", "5m")
    thread.join(60)
    assert code == 0, err
    assert (summary["shards_left"], summary["processes"]) == (0, 3)
    assert summary["total_rows_written"] == 4 * TRAINING
    assert row_digests(Path(summary["store"])) == row_digests(alone(ray_words, tmp_path, capsys))
    assert verify_store(summary["store"], full=True).ok


@pytest.mark.ci
def test_a_record_ends_its_actor(
    ray_words: list[str], site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is counted where every engine counts it, and skipped after its third death."""
    at, bad = ray_words.index("--views"), "ADE_train_00000003"
    ray_words = [*ray_words[:at], *ray_words[at + 2 :]]
    end = ray_words.index("--engine")
    store = Path(result(capsys, "extract", *ray_words[:end], "--stop-after", "0s")[1]["store"])
    poison(site, store, bad)
    try:
        code, summary, _, err = result(capsys, "extract", *ray_words)
    finally:
        (site / "poison.txt").unlink()
    assert (code, summary["shards_left"]) == (0, 0), err
    assert summary["actors_ended"] >= 1
    assert [(place, code) for place, (code, _) in skipped(store).items()] == [((bad, 0), UNDECODABLE)]
    assert verify_store(store, full=True).ok


@pytest.mark.slow
def test_engines_share_a_store(
    ray_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process of this machine works while the actors do, and an array has begun the store."""
    pytest.importorskip("submitit")
    end = ray_words.index("--engine")
    plain = ray_words[:end]
    array = ["--engine", "slurm", "--slurm.cluster", "local", "--parallel", "1", "--max-shards", "3"]
    first = result(capsys, "extract", *plain, *array, "--slurm.logs", str(tmp_path / "logs"))[1]
    assert first["shards_written"] == 3 and first["stopped_by"] == "--max-shards 3"
    beside = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "extract", *plain, "--max-shards", "4", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    code, summary, _, err = result(capsys, "extract", *ray_words)
    other = json.loads(beside.communicate()[0].splitlines()[-1])
    assert code == 0 == beside.returncode and summary["shards_left"] == 0, err
    written = (first["rows_written"], other["rows_written"], summary["rows_written"])
    assert sum(written) == 4 * TRAINING == summary["total_rows_written"]
    assert row_digests(Path(summary["store"])) == row_digests(alone(ray_words, tmp_path, capsys))
    assert verify_store(summary["store"], full=True).ok
