"""A backbone's weights: source, checks, and their digest in a store's identity."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from extract.backbones.checkpoints import read_checkpoint
from extract.backbones.hub import published_file, require_published
from extract.backbones.origins.libraries import library_of
from extract.backbones.registry import BackboneCard

logger = logging.getLogger(__name__)

_RANDOM = "random:"

BUNDLED = Path(__file__).parents[1] / "bundled" / "swinv2_nano.safetensors"
"""Weights of swinv2-nano, used for its `timm`: float16, trained by pipelines/demo."""
FORMER_BUNDLED = {
    # trained under the window rule partition alone
    "589dc1e38b437ee2f5127fdf05a288b93652cd2a6cdfbedeabf8a4afc1088e07": BUNDLED.with_name(
        "swinv2_nano_partition.safetensors"
    ),
    # under both rules, half as long
    "0609cc51d4307f2a0b95556566a0c2204cf024d436a82ad6d74302fdbd94d1ac": BUNDLED.with_name(
        "swinv2_nano_1600_steps.safetensors"
    ),
}
"""Files of earlier releases by the `weights_sha256` of the stores and runs that were made with them."""


class WeightsUnavailable(OSError):
    """The requested weights cannot be found or downloaded; the message says what to pass instead."""


class WeightsMismatch(ValueError):
    """A checkpoint's names or shapes are not the model's; the message lists them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The parameters and persistent buffers of one trunk, named as timm names them."""

    tensors: Mapping[str, Tensor]
    sha256: str

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Weights:
        return cls(tensors, tensors_sha256(tensors))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """64 hex digits of named tensors, whatever file they came in.

    sha256 over the sorted names, each followed by its dtype, its shape and the little-endian bytes of its
    elements. The same tensors give the same digest from a .pth, a .safetensors and sharded safetensors;
    another dtype is another digest, because rounding the weights changes the features.

    >>> a, b = torch.zeros(2), torch.ones(3)
    >>> tensors_sha256({"a": a, "b": b}) == tensors_sha256({"b": b, "a": a})
    True
    >>> tensors_sha256({"a": a}) == tensors_sha256({"a": a.half()})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        shape = "x".join(map(str, tensor.shape))
        digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{shape}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def get_weights(card: BackboneCard, source: str, trunk: nn.Module) -> Weights:
    """The weights of `card`'s trunk from `source`.

    Args:
        source: `timm` (the hub; the bundled file for swinv2-nano), `random:SEED`, or the path of a .pth, a
            .safetensors, an index of sharded safetensors or a folder of them.
        trunk: what the weights are for, on any device: gives the names and shapes.

    Raises:
        WeightsUnavailable: no weights were found; says what to pass instead.
        WeightsMismatch: names or shapes differ from the trunk's.
        ValueError: no checkpoint, a damaged one, or numbers that are not finite.
    """
    if source.startswith(_RANDOM):
        return _random(card, _seed(source), trunk)
    path = _published(card) if source == "timm" else _existing(source)
    tensors: Mapping[str, Tensor] = read_checkpoint(path, trunk)
    require_match(tensors, trunk, f"{source} for {card.model}")
    _require_finite(tensors, source)
    return Weights.of(tensors)


def require_source(card: BackboneCard, source: str) -> None:
    """Raises WeightsUnavailable where `source` cannot have weights of `card`, ValueError for `random:`
    without a seed; reads and downloads nothing.

    What passes may still turn out to be unreachable or unfit: `get_weights` finds out.
    """
    if source.startswith(_RANDOM):
        _seed(source)
    elif source != "timm":
        _existing(source)
    elif card.model != "swinv2-nano":
        try:
            require_published(card.timm_id)
        except OSError as error:
            raise _nothing_published(card, error) from error


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if not source or not path.exists():
        download = " (download it first)" if "://" in source else ""
        raise WeightsUnavailable(
            f"no weights at {source or repr(source)}: expected a .pth, a .safetensors, an index of sharded "
            f"safetensors or their folder{download}; or pass timm, or random:SEED for a test"
        )
    if not (path.is_file() or path.is_dir()):  # reading a pipe could wait for ever
        raise WeightsUnavailable(f"weights {source}: expected a file or a folder, found a pipe or a device")
    return path


def _seed(source: str) -> str:
    """The seed in `random:SEED`."""
    if seed := source.removeprefix(_RANDOM):
        return seed
    raise ValueError("random: needs a seed, random:SEED, such as random:0")


def _published(card: BackboneCard) -> Path:
    """The file that `timm` stands for."""
    if card.model == "swinv2-nano":
        if not BUNDLED.is_file():
            raise WeightsUnavailable(f"{BUNDLED} is missing: reinstall, or pass the path of its copy")
        return BUNDLED
    try:
        return published_file(card.timm_id)
    except OSError as error:
        raise _nothing_published(card, error) from error


def _nothing_published(card: BackboneCard, error: OSError) -> WeightsUnavailable:
    return WeightsUnavailable(
        f"{card.model} ({card.timm_id}): {error}. Pass WEIGHTS=<path> (--weights) of an official .pth, a "
        f".safetensors or sharded safetensors"
        + ("; SwinV2-G was never published" if card.family == "swinv2_cr" else "")
        + ", or random:SEED for a test"
    )


def require_match(tensors: Mapping[str, Tensor], trunk: nn.Module, what: str) -> None:
    """Raises WeightsMismatch, listing every difference, unless names and shapes are exactly the trunk's and
    every tensor holds values of the same kind (a quantised file's do not)."""
    model = trunk.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in model.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    reshaped = [
        f"{name} is {found[name]}, the model's is {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    quantised = [
        f"{name} is {str(tensors[name].dtype).removeprefix('torch.')}"
        for name in sorted(expected.keys() & found.keys())
        if not _is_as_fine(tensors[name], model[name])
    ]
    absent = [
        f"{name} is {'meta' if tensor.is_meta else 'sparse'}"
        for name, tensor in sorted(tensors.items())
        if tensor.is_meta or tensor.layout is not torch.strided
    ]
    theirs, ours = library_of(found), library_of(expected)
    if theirs not in (None, ours) and 2 * len(expected.keys() & found.keys()) < len(expected):
        raise WeightsMismatch(
            f"weights {what} do not fit the model: the file's names look like {theirs} "
            f"({_listed(sorted(found), 3)}), the model's like {ours or 'no known library'} "
            f"({_listed(sorted(expected), 3)}). Take the model of this checkpoint (timm:<id>), or pass its "
            f"constructor arguments by --model-args"
        )
    problems = [
        f"{len(names)} {word}: {_listed(names)}"
        for word, names in (
            ("missing", sorted(expected.keys() - found.keys())),
            ("unexpected", sorted(found.keys() - expected.keys())),
            ("of another shape", reshaped),
            ("not in float16, bfloat16, float32 or float64", quantised),
            ("without values", absent),
        )
        if names
    ]
    if problems:
        raise WeightsMismatch(
            f"weights {what} do not fit the model: {'; '.join(problems)}. Take the model of this checkpoint, "
            f"or pass its constructor arguments by --model-args"
        )


def _is_as_fine(given: Tensor, like: Tensor) -> bool:
    """Whether `given` can replace `like`: floating point of two bytes or more, where that is one."""
    return not like.is_floating_point() or (given.is_floating_point() and given.itemsize >= 2)


def _require_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raises ValueError for weights with NaN or infinity: every feature would be NaN too."""
    broken = [
        name
        for name, value in sorted(tensors.items())
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if broken:
        raise ValueError(
            f"weights {source} are not finite in {len(broken)} of {len(tensors)} tensors: "
            f"{_listed(broken, 8)}; the training they come from diverged, or they exceed their precision: "
            f"use another checkpoint"
        )


def _listed(names: Iterable[str], limit: int = 40) -> str:
    names = list(names)
    more = f", ... and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _random(card: BackboneCard, seed: str, trunk: nn.Module) -> Weights:
    logger.warning(
        "RANDOM WEIGHTS (random:%s) for %s: features mean nothing; for tests and benchmarks only",
        seed,
        card.model,
    )
    drawn = {name: draw_parameter(seed, name, value) for name, value in trunk.named_parameters()}
    # Buffers such as BatchNorm's statistics keep their class's initial values.
    kept = {
        name: _first_value(name, value) for name, value in trunk.state_dict().items() if name not in drawn
    }
    return Weights.of({**drawn, **kept})


def _first_value(name: str, buffer: Tensor) -> Tensor:
    fill = 1 if name.endswith("running_var") else 0
    return torch.full(buffer.shape, fill, dtype=buffer.dtype)


def draw_parameter(seed: str, name: str, like: Tensor) -> Tensor:
    """Float32 values for one parameter, from a generator of its own keyed by seed and name.

    Uniform draws only, because those are the same bits on every processor. A matrix or kernel has standard
    deviation 1/sqrt(fan in), a norm's weight is around 1 (so that no res-post-norm block is the identity,
    as in timm's own initialisation), log logit scales are around ln 10, everything else is around 0.
    """
    key = hashlib.sha256(f"weights\0{seed}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little", signed=True))
    unit = torch.rand(like.shape, generator=generator).mul_(2).sub_(1)  # in [-1, 1)
    if "logit_scale" in name:
        return unit.add_(math.log(10))
    if like.ndim > 1:
        fan_in = like.numel() // like.shape[0]
        return unit.mul_(math.sqrt(3 / fan_in))
    if name.endswith(("weight", "gamma")):
        return unit.mul_(0.2).add_(1)
    return unit.mul_(0.2)
