"""Every shipped recipe is a configuration, and those of Mask2Former are what they say they reproduce."""

import pytest
import torch

from heads import build_head
from heads.contract import HeadError
from pipelines.arguments import parse
from pipelines.config import OptimizerConfig, ScheduleConfig, TrainConfig
from pipelines.module import build_optimizer
from pipelines.recipe_files import find_recipe, recipe_names
from tests.heads.pyramids import pyramid_of

M2F = ["m2f-pd1-td3", "m2f-pd6-td3", "m2f-pd1-td9", "m2f-pd6-td9", "pixeldec1", "pixeldec6"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_a_head(name: str) -> None:
    config = parse(TrainConfig, ["--recipe", name, *([] if _names_a_head(name) else ["--head", "fpn"])])
    try:
        build_head(config.head, "segmentation", pyramid_of(8), 150, **config.head_settings)
    except HeadError as error:
        pytest.fail(f"recipe {name}: {error}")


def _names_a_head(recipe: str) -> bool:
    return any(line.startswith("head:") for line in find_recipe(recipe).read_text().splitlines())


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
