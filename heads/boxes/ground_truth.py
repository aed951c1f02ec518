"""Ground truth of a batch: boxes, labels and masks padded to one count an image, without host copies.

Masks stay as stored: bits, cropped to their boxes. Dims: N images, G boxes an image (padded).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from heads.contract import SizeYX, Targets, ValidSizes
from heads.errors import HeadError

BOX_TARGETS = ("boxes", "labels")
"""What `stack_truth` reads of each row's targets without masks."""
TRUTH_TARGETS = (*BOX_TARGETS, "mask_bits", "mask_hw", "mask_yx")
"""What it reads with masks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskCrops:
    """Each instance's mask in the window of its own crop; outside the crop it is 0.

    Bit p = y * width + x of a crop is bit 7 - p % 8 of byte p // 8 after the crop's first byte (np.packbits).
    """

    bytes_B: Tensor
    """uint8, at least one."""
    first_byte_NG: Tensor
    """int64."""
    hw_NG2: Tensor
    """int64, the crop's height and width in pixels."""
    yx_NG2: Tensor
    """int64, the view's pixel at the crop's first corner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundTruth:
    boxes_NG4: Tensor
    """float32, x1 y1 x2 y2 in pixels of the view."""
    labels_NG: Tensor
    """int64, from 0."""
    exists_NG: Tensor
    """bool; False is padding in images with fewer instances. G is 1 or more."""
    crops: MaskCrops | None
    """None for boxes alone."""
    image_hw_N2: Tensor
    """float32, valid height and width of each view in pixels."""


def stack_truth(
    targets: Targets,
    valid_hw: Sequence[SizeYX],
    num_classes: int,
    device: torch.device,
    *,
    masks: bool = True,
) -> GroundTruth:
    """Args: `targets[i]` has

        boxes: float32 (K, 4), x1 y1 x2 y2 in pixels of the view, each at least partly inside
        labels: int64 (K,), 0..num_classes - 1
        mask_bits: uint8 (bytes,), the crops one after the other, each np.packbits of its rows in order
        mask_hw, mask_yx: int32 (K, 2), size and first pixel of each crop

    Other targets are ignored; with `masks` off the last two too. K may be 0. Crowds are not read: mmdet's
    ignore_iof_thr = -1 makes them background.
    Raises HeadError for a missing key, for lengths that differ, and on the CPU for labels out of range.
    """
    if len(targets) != len(valid_hw):
        raise HeadError(f"{len(targets)} targets for {len(valid_hw)} images, expected one an image")
    names = TRUTH_TARGETS if masks else BOX_TARGETS
    for image, target in enumerate(targets):
        _check_target(image, target, num_classes, names)
    parts = {key: [target[key].to(device, non_blocking=True) for target in targets] for key in names}
    counts = [len(boxes) for boxes in parts["boxes"]]
    slots = max(1, *counts)  # one row to gather even if no image has a box
    exists_NG = (torch.arange(slots) < torch.tensor(counts)[:, None]).to(device, non_blocking=True)
    empty_4, empty = (torch.zeros(slots, *tail, device=device) for tail in ((4,), ()))
    boxes_NG4 = _pad([boxes.float() for boxes in parts["boxes"]], empty_4)
    labels_NG = _pad([labels.long() for labels in parts["labels"]], empty.long())
    return GroundTruth(
        boxes_NG4=boxes_NG4,
        labels_NG=labels_NG,
        exists_NG=exists_NG,
        crops=_stack_crops(parts, slots, device) if masks else None,
        image_hw_N2=image_sizes(valid_hw, device),
    )


def _stack_crops(parts: Mapping[str, list[Tensor]], slots: int, device: torch.device) -> MaskCrops:
    pairs = torch.zeros(slots, 2, dtype=torch.int64, device=device)
    hw_NG2, yx_NG2 = (_pad([pair.long() for pair in parts[key]], pairs) for key in ("mask_hw", "mask_yx"))
    image_bytes = torch.tensor([len(bits) for bits in parts["mask_bits"]])
    first_N = (image_bytes.cumsum(0) - image_bytes).to(device, non_blocking=True)
    bytes_NG = (hw_NG2.prod(-1) + 7) // 8
    return MaskCrops(
        bytes_B=torch.cat([*parts["mask_bits"], torch.zeros(1, dtype=torch.uint8, device=device)]),
        first_byte_NG=first_N[:, None] + bytes_NG.cumsum(1) - bytes_NG,
        hw_NG2=hw_NG2,
        yx_NG2=yx_NG2,
    )


def image_sizes(valid_hw: ValidSizes, device: torch.device) -> Tensor:
    """float32 (N, 2): y and x in pixels."""
    if isinstance(valid_hw, Tensor):
        return valid_hw.float()
    return torch.tensor(valid_hw, dtype=torch.float32).to(device, non_blocking=True)


def _check_target(image: int, target: object, num_classes: int, names: Sequence[str]) -> None:
    assert isinstance(target, dict)
    if missing := [key for key in names if key not in target]:
        raise HeadError(f"target {image} has no {', '.join(missing)}; available: {', '.join(target)}")
    count = len(target["boxes"])
    for key in ("labels", "mask_hw", "mask_yx"):
        if key not in names:
            continue
        if len(target[key]) != count:
            raise HeadError(f"target {image} has {count} boxes and {len(target[key])} {key}")
    labels = target["labels"]
    # On a GPU this would make the host wait for the labels.
    if count and not labels.is_cuda and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise HeadError(f"target {image} has labels {found}, expected 0..{num_classes - 1}")


def _pad(rows: list[Tensor], longest: Tensor) -> Tensor:
    """(N, G, ...), zeros at the ends; `longest` sets G."""
    return pad_sequence([*rows, longest.to(rows[0].dtype)], batch_first=True)[:-1]
