"""A frozen backbone: uint8 pixels in, raw stage outputs out; on a CPU a row's bytes never vary.

Letters in tensor names: N images, H and W pixels or cells, C channels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbones.cuda_graphs import Replays
from extract.backbones.frozen_swin import FoldedSwin, step_makers
from extract.backbones.level_values import LevelReader
from extract.backbones.levels import blocks_of, pad_px
from extract.backbones.out_of_memory import is_out_of_memory, reason
from extract.backbones.position_resampling import without_antialias
from extract.backbones.precision import PROBE_HW, fit_steps, fit_whole, report
from extract.backbones.registry import BackboneCard
from extract.backbones.timm_pyramid import TimmMaps
from extract.backbones.weights import Weights
from extract.swin.attention import NORM_EPS
from extract.swin.image_threads import map_images
from extract.swin.patches import PixelNorm
from extract.swin.timm_swin import create_trunk, meta_trunk, probe
from extract.swin.window_rule import HW

logger = logging.getLogger(__name__)

PRECISIONS: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class BackboneTooLarge(MemoryError):
    """The device's free memory cannot hold the backbone."""


class FrozenBackbone(nn.Module):
    """A backbone for inference: no gradients or drop path, constants folded, no stages beyond the levels."""

    mean: Tensor
    std: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None

    def __init__(
        self, card: BackboneCard, weights: Weights, *, device: torch.device, precision: str, compiled: bool
    ) -> None:
        """Args: as of `extract.backbones.loading.load_backbone`, which chooses the defaults.

        Raises BackboneTooLarge.
        """
        super().__init__()
        self.card = card
        self.pyramid = card.pyramid
        self.weights_sha256 = weights.sha256
        for name, value in (
            ("mean", torch.tensor(card.mean)),
            ("std", torch.tensor(card.std)),
            ("norm_weight", weights.tensors.get("norm.weight")),
            ("norm_bias", weights.tensors.get("norm.bias")),
        ):
            self.register_buffer(name, None if value is None else value.float(), persistent=False)
        with _reporting_lack_of_memory(card, device):
            self.network: FoldedSwin | TimmMaps
            self.network, self.precision = _network(card, weights, precision, compiled, device)
            self.to(device).eval().requires_grad_(False)
        replayed = compiled and isinstance(self.network, FoldedSwin) and device.type != "cpu"
        self._replays = Replays() if replayed else None

    @property
    def _swin(self) -> FoldedSwin:
        assert isinstance(self.network, FoldedSwin)
        return self.network

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def identity(self) -> dict[str, Any]:
        """What decides the features' numbers, as JSON values."""
        return self.card.identity(weights_sha256=self.weights_sha256, precision=self.precision)

    @torch.inference_mode()
    def forward(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> dict[str, Tensor]:
        """The wanted levels of a batch.

        Args:
            pixels_NHWC: uint8 RGB (N, H, W, 3), padded at the bottom and the right; what the padding holds
                does not matter: it becomes 0 after normalisation.
            valid_hw: int (N, 2), height and width of each image in pixels without padding.

        Returns:
            Level name -> (N, y, x, C) float32 raw stage output on the backbone's device, in pyramid order.
        """
        pixels = pixels_NHWC.to(self.device, non_blocking=True)
        valid = torch.as_tensor(valid_hw).to(self.device, non_blocking=True)
        with full_accumulation():
            if self.device.type != "cpu":
                return self._on_gpu(pixels, valid)
            # One image per call: a matrix product may round differently with the number of images.
            images = [(pixels[i : i + 1], valid[i : i + 1]) for i in range(len(pixels))]
            each = map_images(self._levels_of_one, images)
            levels = map_images(partial(_together, each), self.pyramid.names)
        return dict(zip(self.pyramid.names, levels, strict=True))

    @torch.inference_mode()  # thread-local
    def _levels_of_one(self, image: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return self.batch_levels(*image)

    def batch_levels(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> dict[str, Tensor]:
        """As `forward`, of inputs on its device, all images at once: for torch.export, which follows it."""
        if self._replays is None:
            outputs = self.network.outputs(self.normalise(pixels_NHWC, valid_hw))
        else:
            outputs = self._swin.of_pixels(pixels_NHWC, valid_hw, PixelNorm(self.mean, self.std))
        read = LevelReader(self.card, self.network, outputs, valid_hw, self._final_norm)
        return {level.name: read(level, pixels_NHWC.shape[1:3]) for level in self.pyramid}

    def _on_gpu(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> dict[str, Tensor]:
        if self._replays is None:
            return self.batch_levels(pixels_NHWC, valid_hw)
        with torch.cuda.device(self.device):  # where Triton launches its kernels
            return dict(self._replays.run(self.batch_levels, self._read_by_levels, pixels_NHWC, valid_hw))

    def _read_by_levels(self, pixels_NHWC: Tensor, _: Tensor) -> object:
        return self._swin.shared_constants(pixels_NHWC.shape[1], pixels_NHWC.shape[2], pixels_NHWC.device)

    def normalise(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> Tensor:
        """float32 (N, H, W, 3): (x / 255 - mean) / std, and 0 beyond each image's valid size."""
        height, width, colours = pixels_NHWC.shape[1:]
        # Rows are flattened: broadcasting over an axis of three colours takes ten times as long.
        x = pixels_NHWC.flatten(2).float()
        x = x.div_(255).sub_(self.mean.repeat(width)).div_(self.std.repeat(width))
        rows = torch.arange(height, device=x.device) < valid_hw[:, 0, None]
        columns = torch.arange(width, device=x.device).repeat_interleave(colours) < valid_hw[:, 1, None]
        inside = rows[:, :, None] & columns[:, None, :]
        return torch.where(inside, x, 0.0).view(pixels_NHWC.shape)

    def _final_norm(self, x_NHWC: Tensor) -> Tensor:
        if isinstance(self.network, TimmMaps) and not self.card.is_swin:
            return self.network.normed(x_NHWC)
        if self.norm_weight is None:  # SwinV2-G's last block ends with its final norm
            return x_NHWC
        return F.layer_norm(x_NHWC, self.norm_weight.shape, self.norm_weight, self.norm_bias, NORM_EPS)


@torch.inference_mode()
def _together(each: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    """One level of all images, in one thread: waking torch's threads for every small copy is slower."""
    return torch.cat([levels[name] for levels in each])


def _network(
    card: BackboneCard, weights: Weights, precision: str, compiled: bool, device: torch.device
) -> tuple[FoldedSwin | TimmMaps, str]:
    """The network and its effective precision: some steps, or all, may have to run in float32."""
    if card.family not in ("swinv2", "swinv2_cr"):
        if compiled:
            logger.info("%s is not compiled: only SwinV2 is", card.model)
        return _timm_maps(card, weights, precision, device)
    dtype, stages = PRECISIONS[precision], max(level.stage for level in card.pyramid)
    # Only names and shapes are taken from the trunk: three billion parameters need not exist twice.
    trunk = meta_trunk(card.timm_id, card.constructor_args, window_rule=card.window_rule)
    trunk.load_state_dict(dict(weights.tensors), assign=True)
    makers = step_makers(trunk, stages=stages, pretrained_windows=card.pretrained_windows)
    with full_accumulation():
        fitted = fit_steps(makers, dtype, device)
    exact = f"its first {fitted.exact} of {len(makers)} steps run" if fitted.exact else ""
    report(card.model, dtype, fitted.errors, exact)
    ends, wanted = [maker.ends_stage for maker in makers], blocks_of(card.pyramid)
    taken = [maker.block if maker.block in wanted else None for maker in makers]
    network = FoldedSwin(fitted.steps, ends, compiled=compiled, taken=taken)
    return network, f"{precision}-after-{fitted.exact}" if fitted.exact else precision


def _timm_maps(
    card: BackboneCard, weights: Weights, precision: str, device: torch.device
) -> tuple[TimmMaps, str]:
    stages = sorted({level.stage for level in card.pyramid})

    def make(dtype: torch.dtype) -> TimmMaps:
        trunk = _trunk(card)
        trunk.load_state_dict(dict(weights.tensors))
        if card.pos_resample == "dinov2":
            without_antialias(trunk)
        return TimmMaps(
            trunk,
            stages=stages,
            dtype=dtype,
            pad_px=pad_px(trunk),
            blocks=blocks_of(card.pyramid) if card.is_swin else (),
            final="pooled" in card.pyramid and not card.is_swin,
        )

    with full_accumulation():
        fitted = fit_whole(make, PRECISIONS[precision], device, [PROBE_HW, _own_hw(card)])
    report(card.model, PRECISIONS[precision], fitted.errors, "it runs" if fitted.exact else "")
    assert isinstance(fitted.network, TimmMaps)
    return fitted.network, "fp32" if fitted.exact else precision


def _trunk(card: BackboneCard) -> nn.Module:
    return create_trunk(card.timm_id, card.constructor_args, window_rule=card.window_rule, num_classes=0)


@contextmanager
def _reporting_lack_of_memory(card: BackboneCard, device: torch.device) -> Iterator[None]:
    """Raises BackboneTooLarge where the device's memory runs out inside."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise BackboneTooLarge(
            f"{card.model} does not fit the free memory of {device} ({reason(str(error))}): free memory "
            f"there, choose a smaller backbone, or --device cpu"
        ) from error


def _own_hw(card: BackboneCard) -> HW:
    """The image size a model was built for; some models take no other."""
    trunk: Any = probe(card.timm_id, card.constructor_args)
    size = card.args.get("img_size", trunk.pretrained_cfg["input_size"][1:])
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


@contextmanager
def full_accumulation() -> Iterator[None]:
    """Computes float32 products in float32 (no TF32 or bfloat16) and sums of half-precision products in
    float32, on GPUs and CPUs, whatever the process has set."""
    backends: Any = torch.backends
    matmul = torch.backends.cuda.matmul
    products = (matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [product.fp32_precision for product in products]
    partial = matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction
    try:
        _set_accumulation(products, ["ieee"] * len(products), (False, False))
        yield
    finally:
        _set_accumulation(products, before, partial)


def _set_accumulation(products: Sequence[Any], fp32: Sequence[str], partial: tuple[bool, bool]) -> None:
    for product, precision in zip(products, fp32, strict=True):
        product.fp32_precision = precision
    matmul = torch.backends.cuda.matmul
    matmul.allow_fp16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction = partial
