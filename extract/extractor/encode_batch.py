"""Runs a batch through backbone and codec on the device, and copies the result to the host.

Letters in tensor names: N rows, T frames, H and W pixels or cells, C channels. Frames of a video go through
the backbone as images of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy.typing as npt
import torch
from torch import Tensor

from extract.codecs.compiled import Coded, coded, compiled_coded
from extract.codecs.on_device import level_codecs
from extract.extractor.row_loader import LoadedRow
from extract.swin.image_threads import map_images
from stores.codecs import codec as numpy_codec
from stores.format.plan import StorePlan
from stores.format.row_table import NON_FINITE, OVER_LIMIT
from stores.pyramid import PyramidSpec

Array = npt.NDArray[Any]


class Backbone(Protocol):
    """What extraction needs of a backbone; see extract.backbones.frozen."""

    @property
    def device(self) -> torch.device: ...

    @property
    def pyramid(self) -> PyramidSpec: ...

    def __call__(self, pixels_NHWC: Tensor, valid_hw: Tensor) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class HostBatch:
    """Encoded rows in host memory, once the copies are done: `wait` first."""

    levels: Mapping[str, Mapping[str, Tensor]]
    """Level -> the arrays of the codec: `q` (N, [T,] y, x, C), for most `scale` (N, [T,] C)."""
    finite: Mapping[str, Tensor]
    """Level -> bool (N,)."""
    holds: Mapping[str, Tensor]
    """Level -> bool (N,): whether the codec can hold the row."""
    sample: Mapping[str, tuple[Tensor, Tensor]]
    """Level -> float32 (N, cells, C): some cells of each row, and the same after the codec."""
    copied: torch.cuda.Event | None

    def wait(self) -> None:
        """Returns when the device has computed and copied everything."""
        if self.copied is not None:
            self.copied.synchronize()

    def arrays(self) -> dict[str, dict[str, Array]]:
        """What the store is given, of all rows: (N, ...) by level and part."""
        return {
            level: {name: tensor.numpy() for name, tensor in parts.items()}
            for level, parts in self.levels.items()
        }

    def is_sound(self) -> bool:
        """Whether every row can be stored."""
        return all(bool(ok.all()) for oks in (self.finite, self.holds) for ok in oks.values())

    def problem(self, index: int) -> tuple[int, str] | None:
        """Outcome code and reason of a row that cannot be stored, None where it can."""
        for level, ok in self.finite.items():
            if not ok[index]:
                return NON_FINITE, f"the backbone's features are not finite in {level}"
        for level, ok in self.holds.items():
            if not ok[index]:
                return OVER_LIMIT, f"the backbone's features exceed the codec's range in {level}"
        return None


def view_shape(plan: StorePlan, bin_index: int) -> tuple[int, ...]:
    """([T,] padded height and width in pixels) of the views of a bin."""
    b = plan.bins[bin_index]
    return (*(() if plan.frames is None else (plan.frames,)), b.height_px, b.width_px)


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPixels:
    """A batch as the backbone takes it, in host memory: page-locked where it goes to a GPU."""

    pixels: Tensor
    """uint8 (N, [T,] H, W, 3)."""
    valid_hw: Tensor
    """int32 (N, 2)."""
    sampled: Mapping[str, Tensor]
    """Level -> int64 (N, K): which cells of each row are kept beside the codec's error."""


def assemble(
    rows: Sequence[LoadedRow | None],
    shape: tuple[int, ...],
    sampled: Mapping[str, Tensor],
    device: torch.device,
) -> HostPixels:
    """Puts rows together; for a thread of its own, beside the one that drives the device.

    Args:
        rows: the batch as it is planned; None is filled with an empty image, because on a GPU the shape of a
            batch can change the numbers.
        shape: of a view of the bin, see `view_shape`.
        sampled: for each level that is stored, as of `extract.extractor.codec_error.sample_cells`.
        device: of the backbone.
    """
    on_gpu = device.type == "cuda"
    with torch.cuda.device(device) if on_gpu else nullcontext():  # a thread begins with the first one
        pixels = torch.empty((len(rows), *shape, 3), dtype=torch.uint8, pin_memory=on_gpu)
        cells = {level: numbers.pin_memory() if on_gpu else numbers for level, numbers in sampled.items()}
    host = pixels.numpy()  # numpy's copies wake no threads of torch
    for index, row in enumerate(rows):
        host[index] = 0 if row is None else row.pixels
    valid_hw = [shape[-2:] if row is None else row.valid_hw for row in rows]
    return HostPixels(pixels=pixels, valid_hw=torch.tensor(valid_hw, dtype=torch.int32), sampled=cells)


def encode_batch(backbone: Backbone, plan: StorePlan, batch: HostPixels) -> HostBatch:
    """Sends rows through the backbone and the codec.

    Args:
        backbone: frozen, on its device.
        plan: of the store, for its codec.
        batch: assembled for this device.
    """
    rows, images_of_row, sampled = len(batch.pixels), batch.pixels.shape[1:-3], batch.sampled
    with torch.inference_mode():
        levels = backbone(
            batch.pixels.flatten(0, -4).to(backbone.device, non_blocking=True),
            batch.valid_hw.repeat_interleave(math.prod(images_of_row), dim=0),
        )
        features = {
            level: levels[level].reshape(rows, *images_of_row, *levels[level].shape[1:]) for level in sampled
        }
        if backbone.device.type == "cuda":
            cells = {
                level: numbers.to(backbone.device, non_blocking=True) for level, numbers in sampled.items()
            }
            made = _sent_to_host(plan, features, cells)
            # blocking: a waiting thread leaves the processor to the decoders.
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record(_copies(backbone.device))
            return HostBatch(**made, copied=copied)
        # Row by row in threads that share no work: three times as fast as all rows in torch's own threads.
        each = map_images(partial(_encoded_row, plan, features, sampled), range(rows))
        (made,) = map_images(_stacked, [each])
        return HostBatch(**made, copied=None)


def _sent_to_host(
    plan: StorePlan, features: Mapping[str, Tensor], sampled: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The fields of a HostBatch, copied to the host while the GPU continues."""
    return _fields(
        plan,
        {level: compiled_coded(level_codecs(plan)[level], x) for level, x in features.items()},
        features,
        sampled,
    )


@torch.inference_mode()  # thread-local
def _encoded_row(
    plan: StorePlan, features: Mapping[str, Tensor], sampled: Mapping[str, Tensor], row: int
) -> dict[str, Any]:
    of_row, cells = ({level: x[row : row + 1] for level, x in all_.items()} for all_ in (features, sampled))
    return _fields(
        plan, {level: coded(level_codecs(plan)[level], x) for level, x in of_row.items()}, of_row, cells
    )


def _fields(
    plan: StorePlan,
    levels: Mapping[str, Coded],
    features: Mapping[str, Tensor],
    sampled: Mapping[str, Tensor],
) -> dict[str, Any]:
    """The fields of a HostBatch."""
    return {
        "levels": {
            level: {name: _to_host(tensor) for name, tensor in parts.items()}
            for level, (parts, _, _) in levels.items()
        },
        "finite": {level: _to_host(are_finite) for level, (_, are_finite, _) in levels.items()},
        "holds": {level: _to_host(can_hold) for level, (_, _, can_hold) in levels.items()},
        "sample": {
            level: _sample(plan, level, features[level], parts, sampled[level])
            for level, (parts, _, _) in levels.items()
        },
    }


def _stacked(parts: Sequence[Any]) -> Any:
    """Tensors of rows, in dicts and tuples alike, as tensors of all rows."""
    first = parts[0]
    if isinstance(first, Tensor):
        return _joined(parts)
    if isinstance(first, tuple):
        return tuple(_stacked(each) for each in zip(*parts, strict=True))
    return {name: _stacked([part[name] for part in parts]) for name in first}


def _joined(rows: Sequence[Tensor]) -> Tensor:
    """Rows of one layout in that layout: (1, [T,] y, x, C) as such, or in memory (1, [T,] C, y, x)."""
    if rows[0].is_contiguous():
        return torch.cat(list(rows))
    return torch.cat([row.movedim(-1, -3) for row in rows]).movedim(-3, -1)


def _sample(
    plan: StorePlan, level: str, x: Tensor, encoded: Mapping[str, Tensor], cells_NK: Tensor
) -> tuple[Tensor, Tensor]:
    """Copies of some cells of (N, [T,] y, x, C), which do not keep the whole alive, and the same decoded."""
    row = torch.arange(len(x), device=x.device)[:, None]
    height, width = x.shape[-3:-1]  # not by torch.unravel_index, which would wait for the device
    frame = [cells_NK // (height * width)] if x.dim() == 5 else []
    y, column = cells_NK // width % height, cells_NK % width
    # Each cell as a map of its own, with the scale of its frame.
    kinds = numpy_codec(plan.codec).parts(x.shape[-1])
    some = {
        name: part[row, *frame, y, column][:, :, None, None] if kinds[name].per_cell else part[row, *frame]
        for name, part in encoded.items()
    }
    return _to_host(x[row, *frame, y, column].float()), _to_host(
        level_codecs(plan)[level].decode(some)[:, :, 0, 0]
    )


def _to_host(tensor: Tensor) -> Tensor:
    """The tensor in host memory, without gaps in its own layout; a GPU's is copied asynchronously, to
    page-locked memory."""
    is_channel_first = tensor.dim() > 3 and tensor.movedim(-1, -3).is_contiguous()
    dense = tensor if is_channel_first else tensor.contiguous()
    if tensor.device.type == "cpu":
        return dense
    host = torch.empty_strided(dense.shape, dense.stride(), dtype=tensor.dtype, pin_memory=True)
    copies = _copies(tensor.device)
    copies.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(copies):
        host.copy_(tensor, non_blocking=True)
    tensor.record_stream(copies)  # freed before it is copied: its memory must not be reused yet
    return host


@lru_cache(maxsize=8)  # GPUs of a machine
def _copies(device: torch.device) -> torch.cuda.Stream:
    """The stream of copies to the host, which run beside the next batch: those of SwinV2-B's int8 at 512 px
    take a tenth of its time."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
