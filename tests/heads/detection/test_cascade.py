"""Cascade and HTC: sizes, training RoIs of each stage, and detections against a plain reference."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_align

from heads import build_head
from heads.boxes.assignment import AssignRule, DrawUniform
from heads.boxes.ground_truth import GroundTruth, image_sizes
from heads.contract import HeadError
from heads.detection import cascade
from heads.detection.cascade import STAGES, Cascade
from heads.detection.htc import HTC
from heads.detection.roi_sampling import RoISamples
from heads.detection.rpn import Proposals
from heads.detection.semantic_branch import SemanticBranch, stuff_loss
from tests.heads.detection.detection_targets import empty_target, random_targets
from tests.heads.pyramids import parameter_count, pyramid_of, random_features

CLASSES = 4
PADDED_HW = (128, 160)
VALID_HW = [(128, 160), (100, 120)]
PYRAMID = pyramid_of(8)
SMALL = {"width": 8, "box_width": 16, "mask_width": 8, "roi_samples": 40, "neck": "fpn", "neck_depth": 1}
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


def on_meta(name: str, **settings: object) -> Any:
    """Full size, without memory or time."""
    with torch.device("meta"):
        return build_head(name, "detection", pyramid_of(128), 80, **settings)


def test_parameters() -> None:
    """Numbers of the reference's modules."""
    plain, hybrid, nosem = (on_meta(name) for name in ("cascade-fpn", "htc-bifpn5", "htc-nosem-bifpn5"))
    for head in (plain, hybrid, nosem):
        assert parameter_count(head.box_heads) == 46_855_347
        assert parameter_count(head.rpn) == 593_935
        assert not head.rpn.border_anchors
    assert parameter_count(plain.mask_heads) == 3 * 2_643_280
    assert parameter_count(hybrid.mask_heads) == parameter_count(nosem.mask_heads) == 8_061_424
    assert parameter_count(hybrid.semantic) == 2_802_103
    assert nosem.semantic is None
    assert parameter_count(hybrid) - parameter_count(nosem) == 2_802_103
    for name in ("cascade-fpn", "htc-bifpn5"):
        assert parameter_count(on_meta(name, box_head="2fc").box_heads) == 41_948_415
    deep = on_meta("cascade-bifpn5")
    assert parameter_count(deep.neck) == parameter_count(hybrid.neck)
    whole = [
        parameter_count(head) - parameter_count(head.input_norms) for head in (plain, deep, hybrid, nosem)
    ]
    assert whole == [58_231_986, 79_694_097, 82_627_784, 79_825_681]


def test_weights_of_the_stages() -> None:
    """Heads with zero outputs have losses of ln(classes + 1) and ln 2, times 1, 0.5 and 0.25."""
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
    """Every set of RoIs drawn, with the proposals it was drawn from."""
    calls: list[Drawn] = []
    original = cascade.sample_rois

    def watched(
        given: Proposals, truth: GroundTruth, rule: AssignRule, samples: int, draw: DrawUniform
    ) -> RoISamples:
        calls.append((given, rule, original(given, truth, rule, samples, draw)))
        return calls[-1][2]

    monkeypatch.setattr(cascade, "sample_rois", watched)
    return calls


def refined_by_hand(stage: int, boxes: Tensor, deltas: Tensor, hw: tuple[int, int]) -> Tensor:
    """torchvision's coder and clipping."""
    coder_of = pytest.importorskip("torchvision.models.detection._utils").BoxCoder
    coder = coder_of(tuple(1 / std for std in STAGES[stage].stds))
    return clip_boxes_to_image(coder.decode_single(deltas, boxes), hw)


@pytest.mark.parametrize(
    ("name", "box_head"),
    [("cascade-fpn", "2fc"), ("cascade-fpn", "giou_4conv1fc"), ("htc-nosem-bifpn5", "2fc")],
)
def test_stages_learn_from_refined_boxes_at_rising_overlaps(
    name: str, box_head: str, drawn: list[Drawn]
) -> None:
    """HTC draws each stage's mask RoIs from its refined boxes; ground-truth boxes are no proposals.

    With boxes per class positive RoIs move by the deltas of their object's class, others by the best class's.
    """
    head = small(name, box_head=box_head)
    redraw(head)
    outputs = []
    for each in head.box_heads:
        each.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    losses(head)
    truth = random_targets(VALID_HW, CLASSES)
    sets = 2 if name.startswith("htc") else 1
    rising = [iou for iou in (0.5, 0.6, 0.7) for _ in range(sets)]
    assert [rule.positive_iou for _, rule, _ in drawn] == rising
    assert all(rule.negative_iou == rule.positive_iou and rule.rescue_iou is None for _, rule, _ in drawn)
    for stage in range(3):
        rois = drawn[sets * stage][2]
        following = [*drawn[sets * stage + 1 : sets * stage + sets], *drawn[sets * (stage + 1) :][:1]]
        assert len(following) == (sets if stage < 2 else sets - 1)
        for image, hw in enumerate(VALID_HW):
            logits, deltas = (
                each.detach().unflatten(0, (len(VALID_HW), -1))[image] for each in outputs[stage]
            )
            own = truth[image]["labels"][rois.match_NS[image]]
            label = torch.where(rois.positive_NS[image], own, logits[:, :CLASSES].argmax(1))
            chosen = deltas.expand(-1, CLASSES, -1)[torch.arange(len(label)), label]
            expected = refined_by_hand(stage, rois.boxes_NS4[image], chosen, hw)
            kept = rois.valid_NS[image] & ~rois.is_truth_NS[image]
            assert rois.is_truth_NS[image].any() and kept.any()
            for given, _, _ in following:
                assert torch.equal(given.exists_NP[image], kept)
                torch.testing.assert_close(given.boxes_NP4[image][kept], expected[kept], rtol=1e-4, atol=1e-3)
                assert not given.boxes_NP4.requires_grad


@pytest.mark.parametrize("box_head", ["2fc", "giou_4conv1fc"])
def test_detections_by_a_reference(box_head: str) -> None:
    """Logits averaged over stages that each score their own boxes; masks averaged after the sigmoid.

    With boxes per class a RoI moves by its best class's deltas between stages, by each class's at the end.
    """
    head = small("cascade-fpn", box_head=box_head)
    redraw(head)
    maps = [x.float() for x in head.neck_maps(features(), VALID_HW)]
    with torch.no_grad():
        proposals = head.rpn.propose(head.rpn(maps), image_sizes(VALID_HW, torch.device("cpu")), 30, 20)
        found = head.eval().predict(features(), VALID_HW, VALID_HW)
        for image, hw in enumerate(VALID_HW):
            boxes = proposals.boxes_NP4[image][proposals.exists_NP[image]]
            images, logits = torch.full((len(boxes),), image), []
            for stage, each in enumerate(head.box_heads):
                scores, deltas = each(head.pool(maps, boxes, images, 7))
                logits.append(scores)
                deltas = deltas.expand(-1, CLASSES, -1)
                per_class = [refined_by_hand(stage, boxes, deltas[:, label], hw) for label in range(CLASSES)]
                likeliest = scores[:, :CLASSES].argmax(1)
                boxes = torch.stack(per_class, 1)[torch.arange(len(boxes)), likeliest]
            probabilities = torch.stack(logits).mean(0).softmax(1)[:, :CLASSES]
            rows, labels = (probabilities > 0.05).nonzero(as_tuple=True)
            boxes, scores = torch.stack(per_class, 1)[rows, labels], probabilities[rows, labels]
            kept = batched_nms(boxes, scores, labels, 0.5)[:20]
            assert len(kept) > 5
            torch.testing.assert_close(found[image]["scores"], scores[kept], rtol=1e-4, atol=1e-6)
            assert torch.equal(found[image]["labels"], labels[kept])
            torch.testing.assert_close(found[image]["boxes"], boxes[kept], rtol=1e-4, atol=1e-2)
            pooled = head.pool(maps, found[image]["boxes"], images[:1].expand(len(kept)), 14)
            masks = torch.stack([each(pooled, labels[kept]).sigmoid() for each in head.mask_heads]).mean(0)
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
        maps = head.neck_maps(features(), VALID_HW)
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
    for name, box_head in (("cascade-fpn", "giou_4conv1fc"), ("htc-nosem-bifpn5", "2fc")):
        head = small(name, box_head=box_head)
        found = head.losses(features(), [empty_target()] * 2, VALID_HW)
        assert all(loss.isfinite() for loss in found.values())
        assert all(found[f"loss_{part}_{stage}"] == 0 for part in ("box", "mask") for stage in range(3))
        sum(found.values()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
