"""Plug-ins of another installed package: found by entry points, named when they clash or are absent."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

from extract import backbone_card
from extract.backbones.loading import load_backbone
from extract.codecs.on_device import device_codec
from extract.datasets import dataset_module
from heads import head_names
from pipelines.__main__ import main
from pipelines.tasks import task_of
from stores.codecs import codec, codec_names
from stores.plugins import PluginError
from tests.contracts.installed import installed, write_package
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
OWN_NET = '''
"""own-net: a network of the package's own, which it registers with timm."""
from timm.models import register_model
from torch import nn

from extract.backbones.registry import BackboneRow

class OwnNet(nn.Module):
    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "input_size": (3, 64, 64)}
    num_features = 16
    feature_info = [
        {"num_chs": 8, "reduction": 4, "module": "first"}, {"num_chs": 16, "reduction": 8, "module": "second"}
    ]

    def __init__(self, num_classes=0):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2)

    def forward_intermediates(
        self, x, indices, stop_early=False, output_fmt="NCHW", intermediates_only=False
    ):
        maps = [self.first(x)]
        maps.append(self.second(maps[0]))
        found = [maps[index] for index in indices]
        return found if intermediates_only else (maps[-1], found)

    def forward_head(self, x, pre_logits=False):
        return x.mean((2, 3))

@register_model
def own_net(pretrained=False, num_classes=0, **timms):
    return OwnNet(num_classes)

BACKBONE = BackboneRow("own_net")
'''
MODULES = {
    "toy_codec": STEPS,
    "toy_dataset": DATASET,
    "toy_task": TASK,
    "toy_head": HEAD,
    "toy_backbone": BACKBONE,
    "toy_own_net": OWN_NET,
}
ENTRY_POINTS = {
    "permafrost.codecs": {"steps": "toy_codec"},
    "permafrost.datasets": {"blocks": "toy_dataset"},
    "permafrost.tasks": {"blocking": "toy_task"},
    "permafrost.heads": {"blocking.tiny": "toy_head"},
    "permafrost.backbones": {"nano-grey": "toy_backbone", "own-net": "toy_own_net"},
}
EXTRACT = (
    "extract --dataset blocks --model nano-grey --weights random:0 --codec steps10 --levels p4,p5 "
    "--crop-size 64 --device cpu --workers 1"
)
TRAIN = "train-head --head tiny --max-steps 1 --batch-size 2 --device cpu"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("toy"), "toy-plugins", MODULES, ENTRY_POINTS)


def run_verb(words: str, *folders: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a verb in this process, with these folders' packages installed."""
    with installed(*folders), redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main(shlex.split(words))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def made(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `stores` and a `run` of one step, all of the other package's plug-ins."""
    folder = tmp_path_factory.mktemp("made")
    with installed(package):
        dataset_module("blocks").write_sample(folder / "data", 4, np.random.default_rng(0))
    code, out, err = run_verb(f"{EXTRACT} --data {folder / 'data'} --stores {folder / 'stores'}", package)
    assert code == 0, err
    assert "codec     steps10 has no device half: numpy encodes and decodes it on the host" in out
    code, _, err = run_verb(f"{TRAIN} --stores {folder / 'stores'} --run {folder / 'run'}", package)
    assert code == 0, err
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


def test_a_network_of_a_package_is_a_backbone(package: Path) -> None:
    """It registers with timm, and gives maps as timm's models do."""
    with installed(package):
        card = backbone_card("own-net", None, ["p2", "p3", "pooled"])
        levels = load_backbone(card, "random:0")(
            torch.zeros(1, 64, 96, 3, dtype=torch.uint8), torch.tensor([[64, 96]])
        )
    assert [tuple(x.shape[1:]) for x in levels.values()] == [(16, 24, 8), (8, 12, 16), (1, 1, 16)]
    torch.testing.assert_close(levels["pooled"], levels["p3"].mean((1, 2), keepdim=True))
    identity = card.identity(weights_sha256="", precision="fp32")
    assert identity["model"] == "own-net" and identity["timm_id"] == "own_net"


def test_without_the_package_a_store_names_it(made: Path) -> None:
    (store,) = (path for path in (made / "stores").iterdir() if path.is_dir())
    code, _, err = run_verb(f"info --store {store}")
    assert code == 4, err
    assert "unknown codec 'steps10'" in err and "came from package toy-plugins" in err


@pytest.mark.ci  # fresh interpreters: nothing is imported before the package is found
def test_from_extraction_to_training_in_fresh_processes(made: Path, package: Path, tmp_path: Path) -> None:
    for words in (
        f"{EXTRACT} --data {made / 'data'} --stores {tmp_path / 'stores'}",
        f"{TRAIN} --stores {tmp_path / 'stores'} --run {tmp_path / 'run'}",
        f"info --stores {tmp_path / 'stores'}",
    ):
        path = os.pathsep.join([str(ROOT), str(package)])
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", *shlex.split(words)],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


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
    code, _, err = run_verb(
        f"evaluate --run {made / 'run'} --live --data {made / 'data'} --device cpu", folder
    )
    assert code == 2, err
    assert missing in err and "came from package toy-plugins" in err


@pytest.mark.parametrize(
    ("group", "name", "find"),
    [
        ("permafrost.codecs", "int8", lambda: codec("int8")),
        ("permafrost.codecs.devices", "int8", lambda: device_codec("int8")),
        ("permafrost.datasets", "coco", lambda: dataset_module("coco")),
        ("permafrost.tasks", "video", lambda: task_of("video")),
        ("permafrost.heads", "video.linear", lambda: head_names("video")),
        ("permafrost.backbones", "swinv2-t", lambda: backbone_card("swinv2-t")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_name_twice_is_an_error_that_names_both(
    group: str, name: str, find: Callable[[], object], tmp_path: Path
) -> None:
    folder = write_package(tmp_path, "toy-clash", {}, {group: {name: "toy_clash"}})
    with installed(folder), pytest.raises(ValueError, match=re.escape(name.rpartition(".")[2])) as refused:
        find()
    assert "(part of this project) and toy_clash (package toy-clash)" in str(refused.value)


def test_two_packages_with_one_name_are_both_named(package: Path, tmp_path: Path) -> None:
    folder = write_package(tmp_path, "toy-clash", {}, {"permafrost.codecs": {"steps": "toy_clash"}})
    with installed(folder, package), pytest.raises(PluginError) as refused:
        codec_names()
    assert "toy_codec (package toy-plugins) and toy_clash (package toy-clash)" in str(refused.value)


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    folder = write_package(tmp_path, "toy-broken", {}, {"permafrost.codecs": {"gone": "toy_gone"}})
    code, _, err = run_verb("plan --dataset ade20k --model swinv2-nano --codec gone", folder)
    assert code == 2
    assert "gone of package toy-broken cannot be imported: No module named 'toy_gone'" in err


@pytest.mark.parametrize("verb", ["plan", "extract"])
def test_an_unknown_codec_is_refused_before_anything_is_opened(verb: str, tmp_path: Path) -> None:
    words = f"{verb} --dataset ade20k --model swinv2-nano --codec int9 --data nowhere --stores {tmp_path}"
    code, _, err = run_verb(words)
    assert code == 2
    assert "--codec int9: unknown codec 'int9'; available: " in err
