"""ENGINE=slurm: what is submitted to sbatch, and an array of real tasks by submitit's local executor."""

import json
import os
import re
import signal
import stat
import threading
import time
from pathlib import Path

import pytest

from pipelines.config import ExtractConfig, SlurmConfig
from pipelines.engines.slurm_task import SlurmTask
from stores import verify_store
from stores.format.manifest import PLAN_NAME
from tests.extract.extractor.extraction import row_digests
from tests.pipelines.extraction.verb import TRAINING, result

submitit = pytest.importorskip("submitit")

SBATCH = """#!/bin/sh
cp "$1" {folder}/submitted.sh
echo "Submitted batch job 4242"
"""
SCONTROL = """#!/bin/sh
echo "MaxArraySize            = 3"
"""


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script that a fake sbatch on PATH was given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {"sbatch": SBATCH.format(folder=tmp_path), "scontrol": SCONTROL, "srun": "#!/bin/sh\n"}
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return tmp_path / "submitted.sh"


def in_array(words: list[str], tmp_path: Path) -> list[str]:
    return [*words, "--engine", "slurm", "--slurm.logs", str(tmp_path / "logs"), "--shard-rows", "1"]


def test_what_is_submitted(
    words: list[str], submitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings from flags and from YAML; fewer and longer tasks where MaxArraySize is small."""
    file = tmp_path / "cluster.yaml"
    file.write_text("slurm: {partition: gpu, account: lab, time: 3h50m, gres: 'gpu:h200:2', mem: 64GB}\n")
    words = [
        *in_array(words, tmp_path),
        "--config",
        str(file),
        "--slurm.shards",
        "2",
        "--submit-only",
        "--qos",
        "low",
    ]
    code, summary, out, _ = result(capsys, "extract", *words, "--slurm.setup", "module load cuda")
    assert code == 0 and "MaxArraySize 3: 3 shards a task instead of 2" in out
    assert "2 tasks, 3 shards each: 4242_0, 4242_1\n" in out
    assert f"next: python -m pipelines status --stores {tmp_path / 'features'}\n" in out
    assert (summary["jobs"], summary["shards_a_task"]) == (["4242_0", "4242_1"], 3)
    script = submitted.read_text()
    for line in (
        *("--partition=gpu", "--account=lab", "--qos=low", "--gres=gpu:h200:2", "--mem=64GB", "--requeue"),
        *("--time=230", "--array=0-1%2", "--signal=USR1@300", "--cpus-per-task=8", "--job-name=permafrost"),
    ):
        assert f"#SBATCH {line}\n" in script
    setup, command = script.split("# setup\n")[1].split("# command\n")
    assert setup == "module load cuda\nexport SUBMITIT_PREEMPT_SIGNAL=USR1\n\n"
    assert re.search(r"^srun .*submitit.core._submit", command, re.MULTILINE)
    tasks = [
        submitit.core.utils.DelayedSubmission.load(tmp_path / "logs" / job / f"{job}_submitted.pkl").function
        for job in summary["jobs"]
    ]
    assert [(task.config.part, task.config.max_shards, task.config.engine) for task in tasks] == [
        ("0/2", 3, "local"),
        ("1/2", 3, "local"),
    ]
    assert not (tmp_path / "features").exists(), "the first task creates the store"


def test_a_store_is_created_for_a_gpu_without_one(
    words: list[str], submitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*in_array(words, tmp_path), "--submit-as", "cuda", "--submit-only", "--views", "4"]
    code, summary, out, _ = result(capsys, "extract", *words, "--shard-rows", "8")
    assert code == 0 and f"next: python -m pipelines status --store {summary['store']}\n" in out
    assert "2 tasks, which share all shards: " in out  # at most MaxArraySize - 1
    plan = json.loads((Path(summary["store"]) / PLAN_NAME).read_text())
    assert plan["identity"]["backbone"]["precision"] == "fp16"
    assert {b["batch_rows"] for b in plan["bins"]} == {8}, "a CPU would take 4"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--part 0/2", "--part 0/2 with --engine slurm: its tasks get parts and GPUs by themselves"),
        ("--retry-skipped", "--retry-skipped is the work of one process"),
        ("", "no sbatch and no srun on this machine"),
        ("--slurm.time 4", "slurm.time '4': expected a time with units such as 3h50m"),
        ("--slurm.time 5m", "slurm.time 5m, slurm.before_end 5m: expected a minute or more"),
    ],
)
def test_what_cannot_be_submitted(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    message: str,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, _, err = result(capsys, "extract", *in_array(words, tmp_path), *flags.split())
    assert code == 2 and message in err


def test_a_task_that_is_asked_to_stop_is_queued_again() -> None:
    """Where shards are left, and where the running one was dropped; not where all is done or time is over."""
    asked: list[int] = []
    config = ExtractConfig(dataset="ade20k", model="swinv2-nano", slurm=SlurmConfig())

    def task(stopped_by: str | None, left: int) -> SlurmTask:
        return SlurmTask(lambda _: {"stopped_by": stopped_by, "shards_left": left}, config, 60.0)

    def dropped(_: ExtractConfig) -> dict[str, object]:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, lambda number, frame: asked.append(number))
    try:
        task(None, 0)()
        task("SIGUSR1", 0)()
        task("--stop-after 1h", 3)()
        task("SIGTERM", 3)()  # scancel, or a preemption, after which SLURM itself queues it again
        assert asked == []
        task("SIGUSR1", 3)()
        SlurmTask(dropped, config, 60.0)()
        assert asked == [signal.SIGUSR1] * 2
        waiting = threading.Event()
        signal.signal(signal.SIGUSR1, lambda number, frame: waiting.set())

        def slow(_: ExtractConfig) -> dict[str, object]:
            assert waiting.wait(30), "near its limit it gets a second signal"
            return {"stopped_by": None, "shards_left": 0}

        SlurmTask(slow, config, 0.01)()
    finally:
        signal.signal(signal.SIGUSR1, before)


def signal_tasks(features: Path, numbers: list[int], sent: list[int]) -> None:
    """Sends each task, once it has begun a shard, one of the signals."""
    while len(sent) < len(numbers):
        for claim in features.glob("*/work/claims/*"):
            try:
                pid = json.loads(claim.read_text())["pid"]
            except (OSError, ValueError):
                continue
            if pid not in sent and len(sent) < len(numbers):
                os.kill(pid, numbers[len(sent)])
                sent.append(pid)
        time.sleep(0.005)


@pytest.mark.ci
def test_an_array_with_a_killed_task_and_one_that_is_queued_again(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = words.index("--stores") + 1
    alone = result(capsys, "extract", *words[:at], str(tmp_path / "alone"), *words[at + 1 :])[1]
    words = [*in_array(words, tmp_path), "--batch-size", "1", "--slurm.cluster", "local"]
    sent: list[int] = []
    numbers = [signal.SIGUSR1, signal.SIGKILL]
    sender = threading.Thread(target=signal_tasks, args=(tmp_path / "features", numbers, sent), daemon=True)
    sender.start()
    code, summary, _, err = result(capsys, "extract", *words, "--slurm.parallel", "2")
    assert len(sent) == 2 and sent[0] != sent[1]
    assert code == 1 and " failed: " in summary["error"], err
    assert summary["processes"] == 2 and summary["shards_left"] == 0, err
    assert row_digests(Path(summary["store"])) == row_digests(Path(alone["store"]))
    assert verify_store(summary["store"], full=True).ok
    logs = "".join(path.read_text() for path in (tmp_path / "logs").rglob("*_log.err"))
    assert "Caught signal SIGUSR1" in logs and "Requeued job" in logs
    code, summary, out, _ = result(capsys, "extract", *words, "--slurm.parallel", "1")
    assert (code, summary["rows_written"], summary["shards_left"]) == (0, 0, 0)
    assert summary["done_before"] and TRAINING == 6 and f"{summary['store']} is complete" in out
