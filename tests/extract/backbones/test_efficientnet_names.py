"""EfficientNet-PyTorch's names of tensors: every one of timm's model is found, by a file of drawn values."""

from pathlib import Path

import timm
import torch

from extract.backbones.checkpoints import read_checkpoint
from extract.backbones.origins.efficientnet_pytorch import is_efficientnet, timm_names

EXPANDING = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
EXPANDING |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
SEPARABLE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
OUTSIDE = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}


def their_names(trunk: torch.nn.Module) -> dict[str, str]:
    """timm's name -> the file's, written out the other way round."""
    found = {}
    numbers = {
        f"blocks.{s}.{b}": sum(len(stage) for stage in trunk.blocks[:s]) + b
        for s, blocks in enumerate(trunk.blocks)
        for b in range(len(blocks))
    }
    for name in trunk.state_dict():
        parts = name.split(".")
        if parts[0] != "blocks":
            found[name] = ".".join([{**OUTSIDE, "classifier": "_fc"}[parts[0]], *parts[1:]])
            continue
        place = ".".join(parts[:3])
        known = EXPANDING if f"{place}.conv_pwl.weight" in trunk.state_dict() else SEPARABLE
        found[name] = f"_blocks.{numbers[place]}.{known[parts[3]]}.{parts[4]}"
    return found


def test_every_tensor_has_its_name(tmp_path: Path) -> None:
    trunk = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = their_names(trunk)
    renamed = timm_names(names.values(), trunk)
    assert all(renamed[theirs] == ours for ours, theirs in names.items())
    assert is_efficientnet(names.values()) and not is_efficientnet(names)
    torch.save({names[name]: value for name, value in trunk.state_dict().items()}, tmp_path / "lite0.pth")
    found = read_checkpoint(tmp_path / "lite0.pth", timm.create_model("tf_efficientnet_lite0", num_classes=0))
    wanted = {name for name in trunk.state_dict() if not name.startswith("classifier.")}
    assert found.keys() == wanted and all(torch.equal(found[n], trunk.state_dict()[n]) for n in wanted)
