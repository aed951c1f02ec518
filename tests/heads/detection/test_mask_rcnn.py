"""Mask R-CNN: sizes of its parts, images without instances, bad targets, overfitting."""

import pytest
import torch
from torch import Tensor

from heads import build_head, head_names
from heads.boxes.boxes import pairwise_iou
from heads.contract import Head, HeadError
from heads.detection.mask_rcnn import MaskRCNN
from tests.heads.detection.detection_targets import empty_target, random_targets
from tests.heads.pyramids import SWINV2_CHANNELS, parameter_count, pyramid_of, random_features

CLASSES = 4
PADDED_HW = (128, 160)
VALID_HW = [(128, 160), (100, 120)]
PYRAMID = pyramid_of(24)
SMALL = {
    "width": 16,
    "box_width": 64,
    "mask_width": 16,
    "roi_samples": 48,
    "candidates": 100,
    "proposals": 50,
    "anchor_scale": 4.0,
}


def small(name: str = "fpn", **settings: object) -> Head:
    return build_head(name, "detection", PYRAMID, CLASSES, seed=0, **{**SMALL, **settings})


def features(seed: int = 0) -> dict[str, Tensor]:
    return random_features(PYRAMID, len(VALID_HW), PADDED_HW, seed)


def losses(head: Head, targets: list[dict[str, Tensor]], seed: int = 0) -> dict[str, Tensor]:
    return head.losses(features(), targets, VALID_HW, torch.Generator().manual_seed(seed))


def on_meta(name: str, model: str, **settings: object) -> MaskRCNN:
    """Full size, without memory or time."""
    with torch.device("meta"):
        head = build_head(name, "detection", pyramid_of(SWINV2_CHANNELS[model]), 80, **settings)
    assert isinstance(head, MaskRCNN)
    return head


def test_parameters_of_the_parts() -> None:
    """80 classes, 256 channels; numbers of the reference's modules."""
    head = on_meta("fpn", "b")
    assert parameter_count(head.rpn) == 593_935
    assert parameter_count(head.box_head) == 14_306_705
    assert parameter_count(head.mask_head) == 2_643_280
    without_neck = sum(map(parameter_count, (head.rpn, head.box_head, head.mask_head)))
    assert without_neck == 17_543_920
    assert parameter_count(head.neck) == 2_852_864
    assert parameter_count(head.input_norms) == 2 * 15 * 128
    assert parameter_count(head) == 17_543_920 + 2_852_864 + 3_840


@pytest.mark.parametrize(
    ("name", "settings", "neck"),
    [
        # A layer has 4_720_659, the laterals of B 689_152 (p3 has 256 channels already).
        ("bifpn1", {"norm": "none"}, 4_720_659 + 689_152),
        ("bifpn5", {"norm": "none"}, 24_292_447),
        # GroupNorm adds 512 for each of 8 nodes a layer and of 4 laterals.
        ("bifpn5", {}, 24_292_447 + 512 * (5 * 8 + 4)),
        ("bifpn9", {"norm": "none"}, 43_175_083),
        # Residual blocks weigh as much as four BiFPN layers' convolutions; each has two norms.
        ("fpn-res4", {"norm": "none"}, 2_852_864 + 18_882_560),
        ("fpn-res4", {}, 2_852_864 + 18_882_560 + 512 * 4 * 4 * 2),
    ],
)
def test_parameters_of_the_necks(name: str, settings: dict[str, object], neck: int) -> None:
    head = on_meta(name, "b", **settings)
    assert parameter_count(head.neck) == neck
    assert parameter_count(head) - parameter_count(head.input_norms) == 17_543_920 + neck


def test_names() -> None:
    names = head_names("detection")
    assert {"fpn", "fpn-res4", *(f"bifpn{layers}" for layers in range(1, 10))} <= set(names)


def test_residual_blocks_start_as_a_plain_fpn() -> None:
    """Up to the ReLU that ends a block."""
    plain, residual = small("fpn"), small("fpn-res4")
    assert isinstance(plain, MaskRCNN) and isinstance(residual, MaskRCNN)
    missing, unexpected = residual.neck.load_state_dict(plain.neck.state_dict(), strict=False)
    assert not unexpected and all(key.startswith("blocks.") for key in missing)
    maps = [x.abs() for x in features().values()]
    with torch.no_grad():
        for neck in (plain.neck, residual.neck):
            for lateral in neck.laterals:
                lateral.weight.abs_()
        for a, b in zip(plain.neck(maps), residual.neck(maps), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("which", ["none of them", "one of them"])
def test_images_without_instances(which: str) -> None:
    """Crowds alone count as none. Losses are finite; box and mask losses are 0 without instances."""
    head = small()
    targets = (
        [empty_target(), empty_target()] if which == "none of them" else random_targets(VALID_HW, CLASSES)
    )
    targets[1] = empty_target()
    found = losses(head, targets)
    assert all(loss.isfinite() for loss in found.values())
    assert found["loss_rpn_cls"] > 0 and found["loss_cls"] > 0
    for name in ("loss_rpn_box", "loss_box", "loss_mask"):
        assert (found[name] == 0) == (which == "none of them")
    sum(found.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_features_of_zeros() -> None:
    """Every score ties and every proposal is an anchor: all results are defined."""
    head = small()
    flat = {name: torch.zeros_like(x) for name, x in features().items()}
    found = head.losses(flat, random_targets(VALID_HW, CLASSES), VALID_HW)
    assert all(loss.isfinite() for loss in found.values())
    assert all(p["boxes"].isfinite().all() for p in head.eval().predict(flat, VALID_HW, VALID_HW))


def test_it_learns() -> None:
    head, targets = small(), random_targets(VALID_HW, CLASSES)
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3)
    history = []
    for step in range(50):
        found = losses(head, targets, step)
        history.append({name: float(loss.detach()) for name, loss in found.items()})
        optimiser.zero_grad()
        sum(found.values()).backward()
        optimiser.step()
    first, last = ({k: sum(h[k] for h in part) for k in history[0]} for part in (history[:5], history[-5:]))
    for name in ("loss_rpn_cls", "loss_rpn_box", "loss_cls", "loss_mask"):
        assert last[name] < 0.6 * first[name], name
    detected = head.eval().predict(features(), VALID_HW, VALID_HW)
    for target, found_here in zip(targets, detected, strict=True):
        overlaps = pairwise_iou(target["boxes"][None], found_here["boxes"][None])[0]
        assert overlaps.amax(1).mean() > 0.65


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    """One CPU generator serves both; values that rounding moves across a threshold change little."""
    head, targets = small(), random_targets(VALID_HW, CLASSES)
    expected = losses(head, targets)
    head.cuda()
    moved = [{name: values.cuda() for name, values in target.items()} for target in targets]
    maps = {name: x.cuda() for name, x in features().items()}
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = head.losses(maps, moved, VALID_HW, torch.Generator().manual_seed(0))
    for name, loss in found.items():
        torch.testing.assert_close(loss.cpu(), expected[name], rtol=1e-2, atol=1e-3)


def test_detections_follow_the_output_size() -> None:
    head = small(score_threshold=0.0).eval()
    once = head.predict(features(), VALID_HW, VALID_HW)
    wide = head.predict(features(), VALID_HW, [(height, 3 * width) for height, width in VALID_HW])
    for a, b in zip(once, wide, strict=True):
        torch.testing.assert_close(a["boxes"] * torch.tensor([3.0, 1, 3, 1]), b["boxes"])
        assert torch.equal(a["mask_probs"], b["mask_probs"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda target: target.pop("mask_hw"), "target 1 has no mask_hw"),
        (lambda target: target.update(labels=target["labels"][:0]), r"boxes and 0 labels"),
        (lambda target: target.update(labels=target["labels"] + CLASSES), r"expected 0\.\.3"),
    ],
)
def test_bad_targets(change, message: str) -> None:
    targets = random_targets(VALID_HW, CLASSES)
    change(targets[1])
    with pytest.raises(HeadError, match=message):
        losses(small(), targets)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("neck", "pan"),
        ("neck_depth", 17),
        ("width", 4),
        ("anchor_scale", 0),
        ("score_threshold", 1.5),
        ("soft_nms", 1),
        ("conventions", "detectron2"),
        ("input_norm", "bn"),
        ("roi_samples", 2),
        ("proposals", 0),
    ],
)
def test_bad_settings(setting: str, value: object) -> None:
    with pytest.raises(HeadError, match=setting):
        small(**{setting: value})
