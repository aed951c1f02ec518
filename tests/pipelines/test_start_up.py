"""Packages that each verb loads, read from sys.modules of a new interpreter."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.__main__ import main

PROJECT = Path(__file__).parents[2]
GOLDEN = PROJECT / "tests" / "golden" / "run-linear"
WATCHED = {"torch", "lightning", "timm", "matplotlib", "scipy", "zarr"}

_PROGRAM = """
import json, sys
from pipelines.__main__ import main
code = main(sys.argv[2:])
print(json.dumps([code, sorted(set(json.loads(sys.argv[1])) & set(sys.modules))]), file=sys.stderr)
"""


def loaded_by(*words: str) -> set[str]:
    """Which of the watched packages one verb loads; it must end with exit code 0."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, json.dumps(sorted(WATCHED)), *words],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(loaded)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run (`run`) with its evaluation, and the stores of it (`stores`), copied."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("verb", ["status", "info", "verify", "gc"])
def test_verbs_of_stores_load_no_torch(verb: str, golden: Path) -> None:
    assert loaded_by(verb, "--stores", str(golden / "stores")) == set()


def test_report_loads_matplotlib_for_a_picture_alone(golden: Path) -> None:
    assert loaded_by("report", str(golden / "run")) == set()
    picture = loaded_by("report", str(golden / "run"), "--out", str(golden / "report.csv"))
    assert "matplotlib" in picture and picture.isdisjoint({"torch", "lightning", "timm"})


def test_help_and_print_config_load_nothing_heavy() -> None:
    for words in (("--help",), ("plan", "--help"), ("train-head", "--head", "linear", "--print_config")):
        assert loaded_by(*words) == set()


def test_plan_and_extract_load_no_lightning_and_no_compiler() -> None:
    """Nor do a card and its costs, which are built on the meta device; a compiler is there when asked for."""
    code = """
import json, sys, pipelines.verbs.plan_store, pipelines.verbs.extract_features
from extract.backbones.registry import backbone_card
from extract.planning.backbone_costs import _multiply_adds
card = backbone_card("swinv2-nano")
count = _multiply_adds(card.timm_id, json.dumps(card.constructor_args), "partition", 4, (64, 64))
early = sorted({"lightning", "torch._dynamo", "torch._dynamo.utils", "wandb"} & set(sys.modules))
import torch, torchvision
from timm.models.naflexvit import NaFlexRopeIterator
later = [torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist()]
later += [torchvision.ops.roi_align.__module__, bool(torch._dynamo.utils.is_compile_supported("cpu"))]
print(json.dumps([count, early, later]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, capture_output=True)
    count, early, later = json.loads(done.stdout.splitlines()[-1])
    assert count > 1e6 and early == []
    assert later == [[2.0, 2.0], "torchvision.ops.roi_align", True]


def test_the_garbage_collector_runs_again_after_the_import_of_a_verb(golden: Path) -> None:
    """Importing and freezing is for the program; a caller's objects stay collectable."""
    before = gc.get_freeze_count()
    assert gc.isenabled()
    assert main(["status", "--stores", str(golden / "stores")]) == 0
    assert gc.isenabled() and gc.get_freeze_count() == before
    code = (
        "import gc; from pipelines.__main__ import main; main()\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 1000)"
    )
    words = [sys.executable, "-c", code, "status", "--stores", str(golden / "stores")]
    done = subprocess.run(words, cwd=PROJECT, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True True"
