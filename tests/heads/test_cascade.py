"""Cascade and HTC: sizes, what each stage learns from, and detections beside a reference of its own."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from heads import build_head, cascade
from heads.assignment import AssignRule, DrawUniform
from heads.cascade import STAGES, Cascade
from heads.contract import HeadError
from heads.ground_truth import GroundTruth, image_sizes
from heads.htc import HTC
from heads.roi_sampling import RoISamples
from heads.rpn import Proposals
from heads.semantic_branch import SemanticBranch, stuff_loss
from tests.heads.detection_targets import empty_target, random_targets
from tests.heads.pyramids import parameter_count, pyramid_of, random_features

CLASSES = 4
PADDED_HW = (128, 160)
VALID_HW = [(128, 160), (100, 120)]
PYRAMID = pyramid_of(8)
SMALL = {"width": 8, "box_width": 16, "mask_width": 8, "roi_samples": 40, "bifpn_layers": 0}
SMALL |= {"candidates": 60, "proposals": 40, "test_candidates": 30, "test_proposals": 20, "detections": 20}


def small(name: str, **settings: object) -> Any:
    return build_head(name, "detection", PYRAMID, CLASSES, seed=0, **{**SMALL, **settings})


def redraw(head: nn.Module) -> None:
    """Scores and boxes that differ from RoI to RoI."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            parameter.normal_(0, (3.0 if "deltas" in name else 1.5) / fan_in**0.5, generator=generator)


def features() -> dict[str, Tensor]:
    return random_features(PYRAMID, len(VALID_HW), PADDED_HW)


def losses(head: Cascade) -> dict[str, Tensor]:
    targets = random_targets(VALID_HW, CLASSES)
    return head.losses(features(), targets, VALID_HW, torch.Generator().manual_seed(0))


def on_meta(name: str) -> Any:
    """Full size, without memory or time."""
    with torch.device("meta"):
        return build_head(name, "detection", pyramid_of(128), 80)


def test_parameters() -> None:
    """Numbers of the reference's modules."""
    plain, hybrid, nosem = (on_meta(name) for name in ("cascade-fpn", "htc-bifpn5", "htc-nosem-bifpn5"))
    for head in (plain, hybrid, nosem):
        assert parameter_count(head.box_heads) == 41_948_415
        assert parameter_count(head.rpn) == 593_935
    assert parameter_count(plain.mask_heads) == 3 * 2_643_280
    assert parameter_count(hybrid.mask_heads) == parameter_count(nosem.mask_heads) == 8_061_424
    assert parameter_count(hybrid.semantic) == 2_802_103
    assert nosem.semantic is None
    assert parameter_count(hybrid) - parameter_count(nosem) == 2_802_103
    assert parameter_count(on_meta("cascade-bifpn5").neck) == parameter_count(hybrid.neck)


def test_weights_of_the_stages() -> None:
    """Heads that say nothing lose ln(classes + 1) and ln 2, times 1, 0.5 and 0.25."""
    head = small("cascade-fpn")
    with torch.no_grad():
        for part in [*(each.classes for each in head.box_heads), *(each.masks for each in head.mask_heads)]:
            part.weight.zero_(), part.bias.zero_()
    found = losses(head)
    for stage, weight in enumerate((1.0, 0.5, 0.25)):
        cls, mask = (found[f"loss_{name}_{stage}"].detach() for name in ("cls", "mask"))
        torch.testing.assert_close(cls, torch.tensor(weight * math.log(CLASSES + 1)))
        torch.testing.assert_close(mask, torch.tensor(weight * math.log(2)))
        assert found[f"loss_box_{stage}"] > 0
    assert len(found) == 2 + 9


Drawn = tuple[Proposals, AssignRule, RoISamples]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Drawn]:
    """Every set of RoIs drawn, with what it was drawn from."""
    calls: list[Drawn] = []
    original = cascade.sample_rois

    def watched(
        given: Proposals, truth: GroundTruth, rule: AssignRule, samples: int, draw: DrawUniform
    ) -> RoISamples:
        calls.append((given, rule, original(given, truth, rule, samples, draw)))
        return calls[-1][2]

    monkeypatch.setattr(cascade, "sample_rois", watched)
    return calls


def refined_by_hand(head: Cascade, stage: int, boxes: Tensor, deltas: Tensor, hw: tuple[int, int]) -> Tensor:
    """torchvision's coder and clipping."""
    coder_of = pytest.importorskip("torchvision.models.detection._utils").BoxCoder
    coder = coder_of(tuple(1 / std for std in STAGES[stage].stds))
    return clip_boxes_to_image(coder.decode_single(deltas, boxes), hw)


@pytest.mark.parametrize("name", ["cascade-fpn", "htc-nosem-bifpn5"])
def test_stages_learn_from_refined_boxes_at_rising_overlaps(name: str, drawn: list[Drawn]) -> None:
    """HTC draws each stage's mask RoIs anew, from what the stage refined; true boxes are no proposals."""
    head = small(name)
    redraw(head)
    deltas = []
    for box_head in head.box_heads:
        box_head.register_forward_hook(lambda _module, _inputs, output: deltas.append(output[1].detach()))
    losses(head)
    sets = 2 if name.startswith("htc") else 1
    rising = [iou for iou in (0.5, 0.6, 0.7) for _ in range(sets)]
    assert [rule.positive_iou for _, rule, _ in drawn] == rising
    assert all(rule.negative_iou == rule.positive_iou and rule.rescue_iou is None for _, rule, _ in drawn)
    for stage in range(3):
        rois = drawn[sets * stage][2]
        following = [*drawn[sets * stage + 1 : sets * stage + sets], *drawn[sets * (stage + 1) :][:1]]
        assert len(following) == (sets if stage < 2 else sets - 1)
        for image, hw in enumerate(VALID_HW):
            stage_deltas = deltas[stage].view(len(VALID_HW), -1, 4)[image]
            expected = refined_by_hand(head, stage, rois.boxes_NS4[image], stage_deltas, hw)
            kept = rois.valid_NS[image] & ~rois.is_truth_NS[image]
            assert rois.is_truth_NS[image].any() and kept.any()
            for given, _, _ in following:
                assert torch.equal(given.exists_NP[image], kept)
                torch.testing.assert_close(given.boxes_NP4[image][kept], expected[kept], rtol=1e-4, atol=1e-3)
                assert not given.boxes_NP4.requires_grad


def test_detections_by_a_reference() -> None:
    """Logits averaged over stages that each score their own boxes; masks averaged after the sigmoid."""
    head = small("cascade-fpn")
    redraw(head)
    maps = [x.float() for x in head._neck_maps(features(), VALID_HW)]
    with torch.no_grad():
        proposals = head.rpn.propose(head.rpn(maps), image_sizes(VALID_HW, torch.device("cpu")), 30, 20)
        found = head.eval().predict(features(), VALID_HW, VALID_HW)
        for image, hw in enumerate(VALID_HW):
            boxes = proposals.boxes_NP4[image][proposals.exists_NP[image]]
            images, logits = torch.full((len(boxes),), image), []
            for stage, box_head in enumerate(head.box_heads):
                scores, deltas = box_head(head.pool(maps, boxes, images, 7))
                logits.append(scores)
                boxes = refined_by_hand(head, stage, boxes, deltas[:, 0], hw)
            probabilities = torch.stack(logits).mean(0).softmax(1)[:, :CLASSES]
            rows, labels = (probabilities > 0.05).nonzero(as_tuple=True)
            kept = batched_nms(boxes[rows], probabilities[rows, labels], labels, 0.5)[:20]
            rows, labels = rows[kept], labels[kept]
            assert len(rows) > 5
            scores = probabilities[rows, labels]
            torch.testing.assert_close(found[image]["scores"], scores, rtol=1e-4, atol=1e-6)
            assert torch.equal(found[image]["labels"], labels)
            torch.testing.assert_close(found[image]["boxes"], boxes[rows], rtol=1e-4, atol=1e-2)
            pooled = head.pool(maps, found[image]["boxes"], images[:1].expand(len(rows)), 14)
            masks = torch.stack([each(pooled, labels).sigmoid() for each in head.mask_heads]).mean(0)
            torch.testing.assert_close(found[image]["mask_probs"], masks, rtol=1e-3, atol=1e-4)


def test_features_flow_from_mask_head_to_mask_head() -> None:
    head = small("htc-nosem-bifpn5")
    redraw(head)
    pooled = torch.randn(3, 8, 14, 14, generator=torch.Generator().manual_seed(0))

    def convolved(stage: int, x: Tensor) -> Tensor:
        for conv in head.mask_heads[stage].convs:
            x = conv(x).relu()
        return x

    with torch.no_grad():
        first = convolved(0, pooled)
        second = convolved(1, pooled + head.mask_heads[1].flow(first).relu())
        third = convolved(2, pooled + head.mask_heads[2].flow(second).relu())
        assert head.mask_heads[0].flow is None
        for found, expected in zip(head.mask_features(pooled, 3), (first, second, third), strict=True):
            torch.testing.assert_close(found, expected)
        torch.testing.assert_close(head.last_mask_features(pooled, 2), second)


def test_the_semantic_branch() -> None:
    branch = SemanticBranch(8, 3, 6)
    redraw(branch)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 8, *hw, generator=generator) for hw in ((16, 20), (8, 10), (4, 5))]
    with torch.no_grad():
        scores, features_NCyx = branch(maps)
        x = branch.laterals[1](maps[1]).relu()
        for level in (0, 2):
            resized = F.interpolate(maps[level], size=(8, 10), mode="bilinear", align_corners=True)
            x = x + branch.laterals[level](resized).relu()
        for conv in branch.convs:
            x = conv(x).relu()
        torch.testing.assert_close(scores, branch.scores(x))
        torch.testing.assert_close(features_NCyx, branch.embedding(x).relu())


def test_semantic_features_join_every_roi() -> None:
    """Read over 14 x 14 cells at stride 8 and averaged to 7 x 7 for boxes."""
    head = small("htc-bifpn5", stuff_classes=3)
    assert isinstance(head, HTC) and head.semantic is not None
    boxes, images = torch.tensor([[8.0, 12.0, 90.0, 70.0], [30.0, 5.0, 50.0, 100.0]]), torch.tensor([1, 0])
    with torch.no_grad():
        maps = head._neck_maps(features(), VALID_HW)
        semantic = head.semantic(maps)[1]
        rois = torch.cat([images[:, None].float(), boxes], 1)
        added = roi_align(semantic, rois, (14, 14), 1 / 8, 0, True)
        assert added.abs().max() > 0.01
        read, _ = head._reader(maps)
        torch.testing.assert_close(read(boxes, images, 14), head.pool(maps, boxes, images, 14) + added)
        halved = added.unflatten(2, (7, 2)).unflatten(4, (7, 2)).mean((3, 5))
        torch.testing.assert_close(read(boxes, images, 7), head.pool(maps, boxes, images, 7) + halved)


def test_stuff_loss() -> None:
    """0.2 x the mean cross entropy over labelled cells, each labelled by its first pixel."""
    scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    stuff = torch.randint(0, 3, (2, 32, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    stuff[0, :9] = 255
    targets = [{"stuff": stuff[0]}, {"stuff": stuff[1, :20, :30]}]
    terms = []
    for image, (rows, columns) in enumerate([(32, 40), (20, 30)]):
        for y in range(0, rows, 8):
            for x in range(0, columns, 8):
                label = int(stuff[image, y, x])
                if label != 255:
                    terms.append(-float(scores[image, :, y // 8, x // 8].log_softmax(0)[label]))
    assert len(terms) == 10 + 12
    torch.testing.assert_close(
        stuff_loss(scores, targets, 8), torch.tensor(0.2 * sum(terms) / len(terms)), rtol=1e-5, atol=0
    )
    nothing = [{"stuff": torch.full((32, 40), 255, dtype=torch.uint8)}] * 2
    assert stuff_loss(scores, nothing, 8) == 0
    with pytest.raises(HeadError, match="stuff map of 33x40 px"):
        stuff_loss(scores, [{"stuff": torch.zeros(33, 40, dtype=torch.uint8)}] * 2, 8)


def test_without_stuff_maps() -> None:
    """HTC asks for them by name; the head without its semantic branch does not."""
    targets = random_targets(VALID_HW, CLASSES)
    for target in targets:
        del target["stuff"]
    with pytest.raises(HeadError, match="htc-nosem-bifpn5"):
        small("htc-bifpn5").losses(features(), targets, VALID_HW)
    assert "loss_semantic" not in small("htc-nosem-bifpn5").losses(features(), targets, VALID_HW)


def test_losses_of_images_without_instances() -> None:
    for name in ("cascade-fpn", "htc-nosem-bifpn5"):
        head = small(name)
        found = head.losses(features(), [empty_target()] * 2, VALID_HW)
        assert all(loss.isfinite() for loss in found.values())
        assert all(found[f"loss_{part}_{stage}"] == 0 for part in ("box", "mask") for stage in range(3))
        sum(found.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
