"""docs/cluster.md: its scripts parse, and its commands are commands."""

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import parse_args

from pipelines.cli.arguments import parse, split_general_flags
from pipelines.cli.given import read_command_line
from pipelines.cli.head_variants import head_variants
from pipelines.config import ExtractConfig, TrainConfig
from pipelines.engines.parts import choose_part

TEXT = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def config_of(words: list[str]) -> ExtractConfig:
    at = words.index("extract")
    assert words[at - 3 : at] == ["python", "-m", "pipelines"]
    return parse(ExtractConfig, split_general_flags(words[at + 1 :]).rest)


@pytest.mark.parametrize("script", [text for kind, text in BLOCKS if kind == "sh"])
def test_scripts(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    (line,) = [line for line in script.splitlines() if "pipelines" in line and not line.startswith("#")]
    words = shlex.split(line.replace("{}", "3"))
    if "train-head" in words:
        given = read_command_line(TrainConfig, words[words.index("train-head") + 1 :])  # knows every flag
        assert len(head_variants(given)) == (6 if "--devices" in words else 0)
        return
    config = config_of(words)
    if config.part is not None:
        assert choose_part(config.part, {}) is not None


def test_torchrun_passes_every_flag_on() -> None:
    """By its own parser, which takes `--run` for an option of its own without `--`."""
    (line,) = [line for line in TEXT.splitlines() if line.startswith("srun torchrun")]
    words = shlex.split(line)
    given = parse_args(words[words.index("torchrun") + 1 :])
    assert given.module and given.training_script == "pipelines"
    assert given.training_script_args == words[words.index("train-head") :]


def test_a_file_of_settings(tmp_path: Path) -> None:
    (text,) = [text for kind, text in BLOCKS if kind == "yaml" and "engine: slurm" in text]
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    (line,) = [line for line in TEXT.splitlines() if "--engine slurm --partition" in line]
    words = shlex.split(line)
    flags = config_of(words)
    config = parse(ExtractConfig, ["--dataset", "coco", "--model", "swinv2-b", "--config", str(file)])
    assert config.slurm == dataclasses.replace(flags.slurm, mem="64GB", setup=("module load cuda",))


def test_the_indexed_job() -> None:
    (text,) = [text for kind, text in BLOCKS if kind == "yaml" and "kind: Job" in text]
    job: dict[str, Any] = yaml.safe_load(text)
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    config = config_of(container["command"])
    for index in range(spec["completions"]):
        chosen = choose_part(config.part, {"JOB_COMPLETION_INDEX": str(index)})
        assert chosen is not None and (chosen.part.index, chosen.part.count) == (index, spec["completions"])
    assert spec["completionMode"] == "Indexed" and config.json
