"""Anchors that reach beyond the image: left out of the proposals' loss by cascades, as allowed_border=0."""

import pytest
import torch
from torch import Tensor

from heads import build_head
from heads.boxes.anchors import anchors_inside, cell_anchors, grid_anchors
from heads.boxes.assignment import BACKGROUND, IGNORED, AssignRule, assign
from heads.boxes.boxes import pairwise_iou
from heads.boxes.conventions import MMDET
from heads.boxes.ground_truth import stack_truth
from heads.detection.rpn import AnchorScores, RegionProposals
from tests.heads.detection.detection_targets import random_targets
from tests.heads.pyramids import pyramid_of, random_features

SIZES = [(64, 96), (50, 70), (9, 9)]


def anchors() -> Tensor:
    return torch.cat(
        [grid_anchors(cell_anchors(stride, 4.0), (64 // stride, 96 // stride), stride) for stride in (8, 16)]
    )


def inside_by_loops(boxes: list[list[float]], hw: tuple[int, int]) -> list[bool]:
    """mmdet:core/anchor/utils.py, anchor_inside_flags: right and lower borders themselves are outside."""
    return [x1 >= 0 and y1 >= 0 and x2 < hw[1] and y2 < hw[0] for x1, y1, x2, y2 in boxes]


def test_anchors_inside_each_image() -> None:
    """Of its own size, not of the padded one; a 9 px image has none."""
    found = anchors_inside(anchors(), torch.tensor(SIZES, dtype=torch.float32))
    assert found.tolist() == [inside_by_loops(anchors().tolist(), hw) for hw in SIZES]
    counts = found.sum(1).tolist()
    assert len(anchors()) > counts[0] > counts[1] > counts[2] == 0
    touching = torch.tensor([[0.0, 0, 70, 10], [0, 0, 69.5, 10], [0, 0, 10, 50], [-0.5, 0, 9, 9]])
    assert anchors_inside(touching, torch.tensor([[50.0, 70.0]])).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("rule", [MMDET.rpn_rule, MMDET.roi_rule])
def test_others_are_ignored_and_rescue_no_box(rule: AssignRule) -> None:
    """What remains is assigned as if the other candidates were not there."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 4, 2, generator=generator) * torch.tensor([60.0, 40.0])
    truth = torch.cat([corner, corner + 6 + torch.rand(2, 4, 2, generator=generator) * 30], 2)
    exists = torch.ones(2, 4, dtype=torch.bool)
    candidates = anchors()[None]
    usable = anchors_inside(candidates[0], torch.tensor([[64.0, 96.0], [50.0, 70.0]]))
    found = assign(truth, exists, candidates, rule, usable)
    assert not torch.equal(found, assign(truth, exists, candidates, rule))
    for row in range(2):
        kept = usable[row]
        alone = assign(truth[row : row + 1], exists[:1], candidates[:, kept], rule)[0]
        assert torch.equal(found[row][kept], alone)
        assert (found[row][~kept] == IGNORED).all()
    if rule.rescue_iou == 0.3:
        # A box at the border whose best anchor reaches beyond it is rescued by the best one inside.
        best = pairwise_iou(truth[:1], candidates)[0].argmax(1)
        assert not usable[0][best].all()


def test_their_loss_is_that_of_the_anchors_inside() -> None:
    """All anchors drawn: binary cross entropy of the inside ones alone, over how many they are."""
    targets = random_targets(SIZES[:2], 3)
    truth = stack_truth(targets, SIZES[:2], 3, torch.device("cpu"))
    generator = torch.Generator().manual_seed(3)
    count = len(anchors())
    scores = AnchorScores(
        anchors_1A4=anchors()[None],
        logits_NA=torch.randn(2, count, generator=generator),
        deltas_NA4=torch.randn(2, count, 4, generator=generator),
        level_anchors=(count,),
    )

    def draw(rows: int, columns: int) -> Tensor:
        return torch.rand(rows, columns, generator=torch.Generator().manual_seed(0))

    proposals = RegionProposals(8, (8, 16), 4.0, MMDET, border_anchors=False)
    loss = proposals.losses(scores, truth, 2 * count, draw)["loss_rpn_cls"]
    terms = []
    for row, hw in enumerate(SIZES[:2]):
        inside = torch.tensor(inside_by_loops(anchors().tolist(), hw))
        boxes = targets[row]["boxes"][None]
        exists = torch.ones(1, boxes.shape[1], dtype=torch.bool)
        found = assign(boxes, exists, anchors()[None, inside], MMDET.rpn_rule)[0]
        for label, logit in zip(found.tolist(), scores.logits_NA[row, inside].tolist(), strict=True):
            if label == IGNORED:
                continue
            signed = logit if label == BACKGROUND else -logit
            terms.append(torch.nn.functional.softplus(torch.tensor(signed)).item())
    torch.testing.assert_close(loss, torch.tensor(sum(terms) / len(terms)), rtol=1e-5, atol=0)
    both = RegionProposals(8, (8, 16), 4.0, MMDET).losses(scores, truth, 2 * count, draw)["loss_rpn_cls"]
    assert not torch.isclose(both, loss)


def test_an_image_smaller_than_every_anchor_trains_nothing_in_the_proposals() -> None:
    head = build_head("cascade-fpn", "detection", pyramid_of(8), 3, width=8, box_width=16, mask_width=8)
    features = random_features(pyramid_of(8), 1, (32, 32))
    losses = head.losses(features, random_targets([(9, 9)], 3), [(9, 9)], torch.Generator().manual_seed(0))
    assert losses["loss_rpn_cls"] == losses["loss_rpn_box"] == 0
    assert all(loss.isfinite() for loss in losses.values())


def test_whose_heads_leave_them_out() -> None:
    """allowed_border is -1 in mask_rcnn_swin_fpn.py, 0 in cascade_mask_rcnn_swin_fpn.py and for HTC."""
    allowed = {
        "fpn": True,
        "bifpn5": True,
        "cascade-fpn": False,
        "htc-nosem-bifpn5": False,
        "htc-bifpn5": False,
    }
    with torch.device("meta"):
        for name, expected in allowed.items():
            head = build_head(name, "detection", pyramid_of(8), 3)
            assert head.rpn.border_anchors is expected, name
