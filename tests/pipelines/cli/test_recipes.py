"""Every shipped recipe is a configuration that builds a head, and says what its source says."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from heads import build_head, head_names
from heads.contract import HeadError
from pipelines.cli.arguments import parse
from pipelines.cli.recipes import RECIPES, base_file, default_recipe, find_recipe, recipe_names
from pipelines.config import GROUP_RECORD, OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.errors import UsageError
from pipelines.training.optimisation.optimizer import build_optimizer
from pipelines.training.optimisation.schedules import learning_rate, warmup_steps
from pipelines.training.run_length import with_steps
from stores.pyramid import PyramidSpec
from tests.heads.pyramids import clip_pyramid, plain_pyramid, probe_pyramid, pyramid_of

UPERNET = ["fpn", *(f"bifpn{layers}" for layers in range(1, 10))]
M2F = ["m2f-pd1-td3", "m2f-pd6-td3", "m2f-pd1-td9", "m2f-pd6-td9", "pixeldec1", "pixeldec6"]


PYRAMIDS = {"video": clip_pyramid(64), "classification": probe_pyramid(64)}
PYRAMIDS |= {"dino-linear": PyramidSpec(plain_pyramid(64, 4))}
TASKS = {"k400": "video", "coco": "detection", "detection": "detection"}
TASKS |= {"in1k": "classification", "classification": "classification"}
"""By a word in a recipe's name."""
HEADS = {"video": "global4", "classification": "linear"}
"""What a recipe of a task is tried with; else a pyramid of four levels, and fpn."""


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_a_head(name: str) -> None:
    task = next((task for word, task in TASKS.items() if word in name), "segmentation")
    head = [] if _names_a_head(name) else ["--head", HEADS.get(task, "fpn")]
    config = parse(TrainConfig, ["--recipe", name, *head])
    pyramid = PYRAMIDS.get(config.head) or PYRAMIDS.get(task, pyramid_of(8))
    try:
        build_head(config.head, task, pyramid, 150, **config.head_settings)
    except HeadError as error:
        pytest.fail(f"recipe {name}: {error}")
    rates = [
        learning_rate(step, config.optimizer.lr, config.schedule, config.max_steps)
        for step in (0, warmup_steps(config.schedule, config.max_steps), config.max_steps)
    ]
    assert 0 <= rates[0] <= rates[1] <= config.optimizer.lr


def _names_a_head(recipe: str) -> bool:
    return any(line.startswith("head:") for line in find_recipe(recipe).read_text().splitlines())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_where_it_comes_from(name: str) -> None:
    assert (RECIPES / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("head", UPERNET)
def test_upernet_frozen_is_that_of_the_paper(head: str) -> None:
    """Table 12 of Lin et al., column UPerNet frozen; its heads are those of tables 9 and 10."""
    config = parse(TrainConfig, ["--head", head, "--dataset", "ade20k"])
    assert head in head_names("segmentation")
    assert (config.recipe, config.max_steps, config.batch_size) == ("ade20k-upernet-frozen", 160_000, 16)
    assert config.optimizer == OptimizerConfig(lr=2e-3, weight_decay=0.05, betas=(0.9, 0.999))
    assert config.schedule == ScheduleConfig(shape="poly", power=1.0, warmup_steps=1500, warmup_start=1e-6)


def test_the_linear_head_differs_in_the_head_alone() -> None:
    linear = parse(TrainConfig, ["--head", "linear", "--dataset", "ade20k"])
    upernet = parse(TrainConfig, ["--head", "fpn", "--dataset", "ade20k"])
    for field in ("max_steps", "batch_size", "optimizer", "schedule"):
        assert getattr(linear, field) == getattr(upernet, field)


def test_flags_stand_over_a_recipe() -> None:
    config = parse(TrainConfig, ["--recipe", "ade20k-upernet-frozen", "--head", "fpn", "--max-steps", "200"])
    assert config.max_steps == 200 and config.optimizer.lr == 2e-3
    assert warmup_steps(config.schedule, config.max_steps) == 20


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean ade20k-linear"):
        find_recipe("ade20k-liner")
    assert default_recipe("other", "fpn") is None


@pytest.mark.parametrize("head", M2F)
def test_mask2formers_recipe(head: str) -> None:
    config = parse(TrainConfig, ["--head", head, "--dataset", "ade20k"])
    assert (config.recipe, config.max_steps, config.batch_size) == ("ade20k-m2f-frozen", 160_000, 16)
    assert config.optimizer == OptimizerConfig(lr=3e-4, weight_decay=0.02, clip_norm=0.01)
    assert config.schedule == ScheduleConfig(shape="poly", power=0.9, warmup_steps=0)


def test_swinv2_g_differs_in_size_alone() -> None:
    giant = parse(TrainConfig, ["--recipe", "ade20k-m2f-swinv2-g-frozen"])
    base = parse(TrainConfig, ["--head", giant.head, "--dataset", "ade20k"])
    assert (giant.head, giant.model, giant.crop_size) == ("m2f-pd6-td9", "swinv2-g", 640)
    for field in ("max_steps", "batch_size", "optimizer", "schedule"):
        assert getattr(giant, field) == getattr(base, field)


def test_embeddings_and_norms_are_not_decayed() -> None:
    head = build_head("m2f-pd1-td3", "segmentation", pyramid_of(8), 5, width=16, queries=7)
    decayed, free = build_optimizer(head, OptimizerConfig(weight_decay=0.02)).param_groups
    names = {id(parameter): name for name, parameter in head.named_parameters()}
    free_names = {names[id(parameter)] for parameter in free["params"]}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.02, 0)
    assert {f"masked_decoder.{x}.weight" for x in ("contents", "positions", "level_embeddings")} < free_names
    # A bare parameter in the reference too, unlike the other level embeddings.
    assert "pixel_decoder.level_embedding" not in free_names
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    matrices = [names[id(p)] for p in free["params"] if p.ndim > 1]
    assert all(
        isinstance(head.get_submodule(n.removesuffix(".weight")), torch.nn.Embedding) for n in matrices
    )


REFERENCES = {
    ".norm.": ".bn.",  # mmcv's ConvModule, which the official BiFPN is made of
    ".norm1.": ".bn1.",
    ".norm2.": ".bn2.",
    "head.input_norms.": "backbone.norm",  # norm0 .. norm3 of the Swin backbones of mmdet and mmseg
}


@pytest.mark.parametrize(
    ("task", "name", "settings"),
    [
        ("segmentation", "bifpn2", {"norm": "gn"}),
        ("segmentation", "fpn", {"auxiliary": True}),
        ("detection", "fpn-res4", {}),
        ("detection", "cascade-bifpn5", {"neck_depth": 1}),
        ("detection", "htc-nosem-bifpn5", {"neck_depth": 1}),
    ],
)
def test_norms_decay_as_mmcv_matches_names(task: str, name: str, settings: dict[str, Any]) -> None:
    """custom_keys={'norm': decay_mult 0}: `key in name`, of the names that the reference's modules have."""
    head = build_head(name, task, pyramid_of(8), 5, width=16, **settings)
    _, free = build_optimizer(head, OptimizerConfig()).param_groups
    found = {id(parameter) for parameter in free["params"]}
    expected = set()
    for own_name, parameter in head.named_parameters():
        theirs = f"head.{own_name}"
        for ours, reference in REFERENCES.items():
            theirs = theirs.replace(ours, reference)
        if "norm" in theirs:
            expected.add(id(parameter))
    assert found == expected and len(found) == 8
    norms = [
        module for module in head.modules() if isinstance(module, torch.nn.GroupNorm | torch.nn.BatchNorm2d)
    ]
    assert norms and found.isdisjoint(id(parameter) for norm in norms for parameter in norm.parameters())


@pytest.mark.parametrize("head", ["fpn", "fpn-res4", "bifpn1", "bifpn5", "cascade-fpn", "htc-nosem-bifpn5"])
def test_all_of_coco(head: str) -> None:
    """Table 11 of Lin et al., 100 % frozen; the heads of its table 2 and of SwinV2-G."""
    config = parse(TrainConfig, ["--head", head, "--dataset", "coco", "--model", "swinv2-b"])
    assert (config.recipe, config.subset) == ("coco-100pct", None)
    assert (config.epochs, config.repeat, config.batch_size) == (72, 1, 16)
    assert config.optimizer == OptimizerConfig(lr=3e-4, weight_decay=0.05)
    assert with_steps(config, 117_266).max_steps == 527_697
    assert _fallen_at_epochs(config, 117_266) == [63, 69]


@pytest.mark.parametrize(
    ("percent", "images", "lr", "decay"), [(1, 1_163, 1e-3, 0.5), (10, 11_156, 3e-4, 0.1)]
)
def test_a_share_of_coco(percent: int, images: int, lr: float, decay: float) -> None:
    """Table 11 of Lin et al., 1 % and 10 % frozen: row filters over the store of all, images ten times."""
    config = parse(TrainConfig, ["--head", "bifpn1", "--dataset", "coco", "--recipe", f"coco-{percent}pct"])
    assert config.subset == f"coco-{percent}pct-fold1"
    assert (config.epochs, config.repeat, config.batch_size) == (12, 10, 16)
    assert config.optimizer == OptimizerConfig(lr=lr, weight_decay=decay)
    assert with_steps(config, images).max_steps == math.ceil(12 * 10 * images / 16)
    assert _fallen_at_epochs(config, images) == [8, 11]
    other = parse(
        TrainConfig,
        ["--head", "fpn", "--recipe", f"coco-{percent}pct", "--subset", f"coco-{percent}pct-fold3"],
    )
    assert other.subset == f"coco-{percent}pct-fold3"


def test_htc_on_swinv2_g() -> None:
    """Settings of the appendix of Lin et al., not its row: other weights, and a head without stuff maps."""
    text = (RECIPES / "coco-htc-swinv2-g-frozen.yaml").read_text()
    assert "Settings of the frozen SwinV2-G" in text and "Reproduces" not in text
    assert "57.9 box AP / 50.4 mask AP of the single-scale test" in text
    giant = parse(TrainConfig, ["--recipe", "coco-htc-swinv2-g-frozen"])
    assert (giant.head, giant.model, giant.model_args) == (
        "htc-nosem-bifpn5",
        "swinv2-g",
        {"window_size": 32},
    )
    assert (giant.batch_size, giant.optimizer) == (32, OptimizerConfig(lr=6e-4, weight_decay=0.05))
    base = parse(TrainConfig, ["--head", giant.head, "--dataset", "coco"])
    assert (giant.epochs, giant.schedule) == (base.epochs, base.schedule)


def _fallen_at_epochs(config: TrainConfig, images: int) -> list[int]:
    """The epochs, from 0, in whose first step the rate is a tenth of the step's before."""
    run = with_steps(config, images)
    firsts = [
        round(epoch * run.max_steps / (config.epochs or 0)) for epoch in range(1, int(config.epochs or 0))
    ]

    def rate(step: int) -> float:
        return learning_rate(step, run.optimizer.lr, run.schedule, run.max_steps)

    assert rate(0) == pytest.approx(1e-3 * run.optimizer.lr) and rate(500) == run.optimizer.lr
    return [n for n, first in enumerate(firsts, 1) if rate(first) == pytest.approx(rate(first - 1) / 10)]


@pytest.mark.parametrize("shape", ["poly", "cosine", "constant"])
def test_schedules_begin_at_the_peak_and_end_at_their_share(shape: str) -> None:
    schedule = ScheduleConfig(shape=shape, warmup_steps=0, end=0.1)  # type: ignore[arg-type]
    assert learning_rate(0, 1.0, schedule, 100) == pytest.approx(1.0)
    assert learning_rate(100, 1.0, schedule, 100) == pytest.approx(1.0 if shape == "constant" else 0.1)


def test_seeds_of_several_heads_are_resumed_one_by_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / GROUP_RECORD).write_text("{}")
    with pytest.raises(UsageError, match=r"one at a time: --run \S+seed0, --run \S+seed1"):
        base_file({"resume": "true", "run": str(tmp_path)})
