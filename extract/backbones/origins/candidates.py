"""The tensors of a checkpoint of any origin under timm's names, for a model that is no Swin.

timm's own `checkpoint_filter_fn` of the model comes first: it knows the files of Meta (DINOv2, DINOv3, SAM),
OpenAI, Apple and others. It is tried on the names as they are, then on those without the wrappers of training
scripts; transformers' names are brought to those of the models' authors before. What fits best is returned.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Container, Iterator, Mapping

from torch import Tensor, nn

from extract.backbones.origins.efficientnet_pytorch import is_efficientnet, timm_names
from extract.backbones.origins.prefixes import all_unwrapped, without_pretraining
from extract.backbones.origins.transformers_layouts import is_transformers, renamed

logger = logging.getLogger(__name__)

_FOREIGN = (KeyError, IndexError, ValueError, RuntimeError, AttributeError, TypeError, AssertionError)
"""What timm's conversions raise for names that they were not written for."""


def named_as_timm(tensors: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """The tensors under the trunk's names as far as they can be brought to them, and whatever is left.

    Args:
        tensors: of a checkpoint.
        trunk: timm's model, on any device.

    Raises ValueError for names that become one, and for biases that the model has no place for.
    """
    known = trunk.state_dict()
    found = [_fitted(candidate, trunk, known) for candidate in _candidates(tensors, trunk, known)]
    return max(found, key=lambda each: _fit(each, known))


def _candidates(
    tensors: Mapping[str, Tensor], trunk: nn.Module, known: Container[str]
) -> Iterator[Mapping[str, Tensor]]:
    if is_transformers(tensors):
        yield _filtered(_without_zero_biases(renamed(tensors), known), trunk)
        return
    bare = _without_zero_biases(all_unwrapped(tensors, known), known)
    if is_efficientnet(bare):
        names_of = timm_names(bare, trunk)
        yield {names_of[name]: tensor for name, tensor in bare.items()}
        return
    for names in (bare, tensors):
        yield _filtered(names, trunk)
        yield names


def _filtered(tensors: Mapping[str, Tensor], trunk: nn.Module) -> Mapping[str, Tensor]:
    """After the conversion that timm's module of `trunk` defines for old and foreign files, if any."""
    convert = getattr(sys.modules[type(trunk).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    try:
        converted: Mapping[str, Tensor] = convert(dict(tensors), trunk)
    except _FOREIGN as error:
        logger.debug("timm's conversion does not take these names: %s", error)
        return tensors
    return converted


def _fitted(
    tensors: Mapping[str, Tensor], trunk: nn.Module, known: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Parts of pretraining dropped, shared tables repeated, a last norm moved where the model has it."""
    found = without_pretraining(tensors, known)
    classifier = getattr(trunk, "pretrained_cfg", {}).get("classifier") or ()
    named = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    prefixes = tuple(f"{name}." for name in named)
    found = {n: tensor for n, tensor in found.items() if n in known or not n.startswith(prefixes)}
    shared = "rel_pos_bias.relative_position_bias_table"  # BEiT's and SimMIM's pretraining
    if shared in found and shared not in known:
        table = found.pop(shared)
        tables = [
            name for name in known if re.fullmatch(r"blocks\.\d+\.attn\.relative_position_bias_table", name)
        ]
        found |= {name: table for name in tables if name not in found}
    if "fc_norm.weight" in known and "norm.weight" not in known and "fc_norm.weight" not in found:
        for part in ("weight", "bias"):
            if f"norm.{part}" in found:
                found[f"fc_norm.{part}"] = found.pop(f"norm.{part}")
        logger.info("the checkpoint's last norm becomes the model's norm of pooled vectors, fc_norm")
    return found


def _without_zero_biases(tensors: Mapping[str, Tensor], known: Container[str]) -> dict[str, Tensor]:
    """DINOv3's biases of q, k and v are 0 in most of its models, and timm has models with and without."""
    biases = [name for name in tensors if re.fullmatch(r"blocks\.\d+\.attn\.qkv\.bias", name)]
    if "storage_tokens" not in tensors or not biases or "blocks.0.attn.q_bias" in known:
        return dict(tensors)
    if any(tensors[name].nan_to_num().any() for name in biases):
        raise ValueError(
            "the checkpoint's attention has biases that are not 0, and this model has none: take timm's "
            "model with biases, whose name ends in _qkvb"
        )
    return {name: tensor for name, tensor in tensors.items() if name not in biases}


def _fit(tensors: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> tuple[int, int]:
    """Tensors of the model that are there in its shape, and fewer that are not its."""
    fitting = sum(name in tensors and tensors[name].shape == like.shape for name, like in known.items())
    return fitting, -len(tensors)
