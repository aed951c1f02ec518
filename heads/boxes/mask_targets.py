"""Mask targets of RoIs: the ground-truth mask read by RoIAlign at each RoI's own resolution.

Equal to RoIAlign on full bitmaps (mmdet:core/mask/structures.py, BitmapMasks.crop_and_resize), but the bits
are unpacked only in a window around each RoI, some RoIs at a time: no full bitmap is ever built.
Dims: R RoIs, Y/X a window.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.ops import roi_align

from heads.boxes.ground_truth import MaskCrops

_WINDOW_PIXELS = 8 << 20  # 8 Mpx of windows at a time: 32 MiB of float32 and 64 MiB of places


@torch.no_grad()
def sample_masks(
    crops: MaskCrops,
    instance_R: Tensor,
    boxes_R4: Tensor,
    image_hw_R2: Tensor,
    size: int,
    *,
    aligned: bool = True,
) -> Tensor:
    """float32 (R, size, size) in 0..1: RoIAlign of each RoI's mask, sampled once a pixel.

    Args:
        instance_R: int64, image * G + box of the mask.
        boxes_R4: RoIs in pixels of the view, inside the image.
        image_hw_R2: size of each RoI's image; RoIAlign reads beyond it as its last pixel.

    Waits for the device once, to learn the sizes of the RoIs.
    """
    # One pixel around: no sample then leaves its window.
    first_R2 = boxes_R4[:, :2].floor() - 1
    sizes_xy: list[list[int]] = (boxes_R4[:, 2:].ceil() + 2 - first_R2).int().tolist()
    targets_Rmm = boxes_R4.new_zeros(len(boxes_R4), size, size)
    for rows, (width, height) in _chunks(sizes_xy):
        row_r = torch.tensor(rows).to(boxes_R4.device, non_blocking=True)
        windows_rYX = _unpack(
            crops, instance_R[row_r], first_R2[row_r].long(), image_hw_R2[row_r].long(), (height, width)
        )
        inside_r4 = boxes_R4[row_r] - first_R2[row_r].repeat(1, 2)
        number_r1 = torch.arange(len(rows), device=boxes_R4.device, dtype=inside_r4.dtype)[:, None]
        rois_r5 = torch.cat([number_r1, inside_r4], 1)
        shares_r1mm = roi_align(windows_rYX[:, None].float(), rois_r5, (size, size), 1.0, 0, aligned)
        targets_Rmm[row_r] = shares_r1mm[:, 0]
    return targets_Rmm


def _chunks(sizes_xy: list[list[int]]) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Rows that are unpacked together, and the width and height that holds each of them."""
    by_area = sorted(range(len(sizes_xy)), key=lambda row: sizes_xy[row][0] * sizes_xy[row][1])
    rows: list[int] = []
    width = height = 0
    for row in by_area:
        wider, higher = max(width, sizes_xy[row][0]), max(height, sizes_xy[row][1])
        if rows and (len(rows) + 1) * wider * higher > _WINDOW_PIXELS:
            yield rows, (width, height)
            rows = []
            wider, higher = sizes_xy[row]
        rows.append(row)
        width, height = wider, higher
    if rows:
        yield rows, (width, height)


def _unpack(
    crops: MaskCrops, instance_r: Tensor, first_r2: Tensor, image_hw_r2: Tensor, size: tuple[int, int]
) -> Tensor:
    """uint8 (r, Y, X): each mask in the window whose first pixel is `first` (x, y)."""
    height, width = (torch.arange(cells, device=first_r2.device) for cells in size)
    crop_hw_r2, crop_yx_r2 = (each.flatten(0, 1)[instance_r] for each in (crops.hw_NG2, crops.yx_NG2))
    y_rY = _places(first_r2[:, 1:] + height, image_hw_r2[:, :1]) - crop_yx_r2[:, :1]
    x_rX = _places(first_r2[:, :1] + width, image_hw_r2[:, 1:]) - crop_yx_r2[:, 1:]
    has_rY = (y_rY >= 0) & (y_rY < crop_hw_r2[:, :1])
    has_rX = (x_rX >= 0) & (x_rX < crop_hw_r2[:, 1:])
    # Places outside the crop read some byte of some mask; `has` drops it.
    bit_rYX = (y_rY * crop_hw_r2[:, 1:])[:, :, None] + x_rX[:, None]
    byte_rYX = crops.first_byte_NG.flatten()[instance_r, None, None] + (bit_rYX >> 3)
    bytes_rYX = crops.bytes_B.take(byte_rYX.clamp_(0, len(crops.bytes_B) - 1))
    shift_rYX = bit_rYX.bitwise_and_(7).neg_().add_(7).to(torch.uint8)
    return (bytes_rYX >> shift_rYX).bitwise_and_(1) * (has_rY[:, :, None] & has_rX[:, None])


def _places(place: Tensor, cells: Tensor) -> Tensor:
    """Clamped to 0..cells - 1: beyond the image the last pixel repeats."""
    return torch.minimum(place.clamp(min=0), cells - 1)
