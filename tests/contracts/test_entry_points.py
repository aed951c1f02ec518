"""Plug-ins of another installed package: found by entry points, named when they clash or are absent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts.installed import write_package
from tests.contracts.toy_codecs import STEPS

ROOT = Path(__file__).parents[2]

DATASET = '''
"""blocks: ADE20K's layout under another name."""
from extract.datasets import ade20k
from extract.datasets.ade20k import *
from extract.datasets.ade20k import TEST_VIEWS, TRAINING_VIEWS, VIEW_RECIPES, write_sample

class Blocks(ade20k.Ade20k):
    name = "blocks"
    task = "blocking"

def open_dataset(data, split, subset=None):
    opened = ade20k.open_dataset(data, split, subset)
    opened.name, opened.task = "blocks", "blocking"
    return opened
'''
TASK = '''
"""blocking: segmentation under another name."""
from pipelines.tasks.segmentation import TASK
'''
HEAD = '''
"""tiny: a linear head of the task blocking."""
from heads.contract import HeadPreset
from heads.segmentation.linear import LinearHead, LinearSettings

class Tiny(LinearHead):
    task = "blocking"

HEADS = {"tiny": HeadPreset(task="blocking", levels=("p4", "p5"), settings=LinearSettings(), build=Tiny)}
'''
BACKBONE = '''
"""nano-grey: the nano backbone with a mean and std of its own."""
from extract.backbones.registry import BACKBONES, BackboneRow

NANO = BACKBONES["swinv2-nano"]
BACKBONE = BackboneRow(NANO.timm_id, NANO.args, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
'''
MODULES = {
    "toy_codec": STEPS,
    "toy_dataset": DATASET,
    "toy_task": TASK,
    "toy_head": HEAD,
    "toy_backbone": BACKBONE,
}
ENTRY_POINTS = {
    "permafrost.codecs": {"steps": "toy_codec"},
    "permafrost.datasets": {"blocks": "toy_dataset"},
    "permafrost.tasks": {"blocking": "toy_task"},
    "permafrost.heads": {"blocking.tiny": "toy_head"},
    "permafrost.backbones": {"nano-grey": "toy_backbone"},
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("toy"), "toy-plugins", MODULES, ENTRY_POINTS)


def python(words: list[str], *folders: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with these folders on its module path."""
    path = os.pathsep.join([str(ROOT), *map(str, folders)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def made(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `stores` and a `run` of one step, all of the other package's plug-ins."""
    folder = tmp_path_factory.mktemp("made")
    code = (
        "import sys, numpy as np; from pathlib import Path; from extract.datasets import dataset_module\n"
        "dataset_module('blocks').write_sample(Path(sys.argv[1]), 4, np.random.default_rng(0))"
    )
    done = python(["-c", code, str(folder / "data")], package)
    assert done.returncode == 0, done.stderr
    extract = "extract --dataset blocks --model nano-grey --weights random:0 --codec steps10 --levels p4,p5"
    words = [*extract.split(), "--data", str(folder / "data"), "--stores", str(folder / "stores")]
    done = python(["-m", "pipelines", *words, "--crop-size", "64", "--device", "cpu"], package)
    assert done.returncode == 0, done.stderr
    assert "codec     steps10 has no device half: numpy encodes and decodes it on the host" in done.stdout
    train = "train-head --head tiny --max-steps 1 --batch-size 2 --device cpu"
    words = [*train.split(), "--stores", str(folder / "stores"), "--run", str(folder / "run")]
    done = python(["-m", "pipelines", *words], package)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_store_and_a_run_record_the_package(made: Path) -> None:
    (store,) = (path for path in (made / "stores").iterdir() if path.is_dir())
    identity = json.loads((store / "plan.json").read_text())["identity"]
    assert identity["codec"] == {"name": "steps10", "settings": {}, "package": "toy-plugins"}
    assert identity["dataset"]["package"] == identity["dataset"]["task_package"] == "toy-plugins"
    assert identity["backbone"]["package"] == "toy-plugins"
    assert identity["backbone"]["mean"] == [0.5] * 3 and identity["backbone"]["std"] == [0.25] * 3
    run = json.loads((made / "run" / "run.json").read_text())
    assert run["head"] == "tiny" and run["head_package"] == "toy-plugins"


def test_without_the_package_a_store_names_it(made: Path) -> None:
    (store,) = (path for path in (made / "stores").iterdir() if path.is_dir())
    done = python(["-m", "pipelines", "info", "--store", str(store)])
    assert done.returncode == 4, done.stderr
    assert "unknown codec 'steps10'" in done.stderr and "came from package toy-plugins" in done.stderr


@pytest.mark.parametrize(
    ("group", "missing"),
    [
        ("permafrost.heads", "no head 'tiny'"),
        ("permafrost.tasks", "no task 'blocking'"),
        ("permafrost.datasets", "no data set 'blocks'"),
        ("permafrost.backbones", "no backbone 'nano-grey'"),
    ],
)
def test_a_run_names_the_package_of_what_is_absent(
    group: str, missing: str, made: Path, tmp_path: Path
) -> None:
    others = {other: entries for other, entries in ENTRY_POINTS.items() if other != group}
    if group == "permafrost.heads":  # a task without heads has no names to list
        others["permafrost.heads"] = {"blocking.other": "toy_head"}
    folder = write_package(tmp_path / "fewer", "toy-plugins", MODULES, others)
    words = [
        "evaluate",
        "--run",
        str(made / "run"),
        "--live",
        "--data",
        str(made / "data"),
        "--device",
        "cpu",
    ]
    done = python(["-m", "pipelines", *words], folder)
    assert done.returncode == 2, done.stderr
    assert missing in done.stderr and "came from package toy-plugins" in done.stderr


@pytest.mark.parametrize(
    ("group", "name", "code"),
    [
        ("permafrost.codecs", "int8", "from stores.codecs import codec; codec('int8')"),
        ("permafrost.codecs.devices", "int8", "from extract.codecs.on_device import *; device_codec('int8')"),
        ("permafrost.datasets", "coco", "from extract.datasets import *; dataset_module('coco')"),
        ("permafrost.tasks", "video", "from pipelines.tasks import task_of; task_of('video')"),
        ("permafrost.heads", "video.linear", "from heads import head_names; head_names('video')"),
        (
            "permafrost.backbones",
            "swinv2-t",
            "from extract import backbone_card; backbone_card('swinv2-t')",
        ),
    ],
)
def test_a_name_twice_is_an_error_that_names_both(group: str, name: str, code: str, tmp_path: Path) -> None:
    folder = write_package(tmp_path, "toy-clash", {}, {group: {name: "toy_clash"}})
    done = python(["-c", code], folder)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and name.rpartition(".")[2] in last
    assert "(part of this project) and toy_clash (package toy-clash)" in last


def test_two_packages_with_one_name_are_both_named(package: Path, tmp_path: Path) -> None:
    folder = write_package(tmp_path, "toy-clash", {}, {"permafrost.codecs": {"steps": "toy_clash"}})
    done = python(["-c", "from stores.codecs import codec_names; codec_names()"], package, folder)
    assert "toy_codec (package toy-plugins) and toy_clash (package toy-clash)" in done.stderr


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "toy-broken", {}, {"permafrost.codecs": {"gone": "toy_gone"}})
    done = python(
        ["-m", "pipelines", "plan", "--dataset", "ade20k", "--model", "swinv2-nano", "--codec", "gone"],
        folder,
    )
    assert done.returncode == 2
    assert "gone of package toy-broken cannot be imported: No module named 'toy_gone'" in done.stderr


def test_an_unknown_codec_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    for verb in ("plan", "extract"):
        words = [
            verb,
            "--dataset",
            "ade20k",
            "--model",
            "swinv2-nano",
            "--codec",
            "int9",
            "--data",
            "nowhere",
        ]
        done = python(["-m", "pipelines", *words, "--stores", str(tmp_path)])
        assert done.returncode == 2
        assert "--codec int9: unknown codec 'int9'; available: " in done.stderr
