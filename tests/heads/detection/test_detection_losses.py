"""Losses in mmdet's conventions against loops over single anchors, RoIs and cells."""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from heads.boxes.assignment import BACKGROUND, DrawUniform, assign, uniform_draws
from heads.boxes.conventions import MMDET
from heads.boxes.ground_truth import GroundTruth, stack_truth
from heads.detection.box_head import BoxHead
from heads.detection.mask_head import MaskHead, mask_loss
from heads.detection.roi_sampling import sample_rois
from heads.detection.rpn import AnchorScores, Proposals, RegionProposals
from tests.heads.detection.detection_targets import empty_target, pack_instances, random_masks

VALID_HW = [(96, 128), (128, 100), (128, 128)]
STDS = (0.1, 0.1, 0.2, 0.2)


def truth() -> GroundTruth:
    """Ground truth; the last image is empty."""
    random = np.random.default_rng(0)
    targets = [
        pack_instances(random_masks(hw, count, random), list(range(count)))
        for hw, count in zip(VALID_HW, (4, 2), strict=False)
    ]
    return stack_truth([*targets, empty_target()], VALID_HW, 5, torch.device("cpu"))


def draw(seed: int = 0) -> DrawUniform:
    return uniform_draws(torch.Generator().manual_seed(seed), torch.device("cpu"))


def deltas_of(box: list[float], reference: list[float]) -> list[float]:
    (x1, y1, x2, y2), (a1, b1, a2, b2) = box, reference
    width, height = a2 - a1, b2 - b1
    return [
        ((x1 + x2) / 2 - (a1 + a2) / 2) / width,
        ((y1 + y2) / 2 - (b1 + b2) / 2) / height,
        math.log((x2 - x1) / width),
        math.log((y2 - y1) / height),
    ]


def rpn_scores(rpn: RegionProposals) -> AnchorScores:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(3, 8, 128 >> shift, 128 >> shift, generator=generator) for shift in range(2, 7)]
    with torch.no_grad():
        scores = rpn(maps)
        return replace(scores, logits_NA=scores.logits_NA * 50, deltas_NA4=scores.deltas_NA4 * 50)


def test_region_proposal_losses() -> None:
    """BCE and plain L1, both by the number of anchors sampled: here by all that are not ignored."""
    torch.manual_seed(0)
    rpn, made = RegionProposals(8, (4, 8, 16, 32, 64), 8.0, MMDET), truth()
    scores = rpn_scores(rpn)
    anchors = scores.anchors_1A4[0].tolist()
    assigned = assign(made.boxes_NG4, made.exists_NG, scores.anchors_1A4, MMDET.rpn_rule)
    cls = box = count = 0.0
    for image in range(3):
        for anchor, match in enumerate(assigned[image].tolist()):
            logit = float(scores.logits_NA[image, anchor])
            if match == BACKGROUND:
                cls += math.log1p(math.exp(logit))
            elif match >= 0:
                cls += math.log1p(math.exp(-logit))
                wanted = deltas_of(made.boxes_NG4[image, match].tolist(), anchors[anchor])
                found = scores.deltas_NA4[image, anchor].tolist()
                box += sum(abs(a - b) for a, b in zip(found, wanted, strict=True))
            count += match == BACKGROUND or match >= 0
    assert (assigned >= 0).sum() > 10
    losses = rpn.losses(scores, made, 1 << 20, draw())
    torch.testing.assert_close(losses["loss_rpn_cls"], torch.tensor(cls / count), rtol=1e-4, atol=0)
    torch.testing.assert_close(losses["loss_rpn_box"], torch.tensor(box / count), rtol=1e-4, atol=0)


def test_region_proposal_losses_of_a_sample() -> None:
    """The mean over 64 anchors an image: near that of all, and another with other draws."""
    torch.manual_seed(0)
    rpn, made = RegionProposals(8, (4, 8, 16, 32, 64), 8.0, MMDET), truth()
    scores = rpn_scores(rpn)
    some = [float(rpn.losses(scores, made, 64, draw(seed))["loss_rpn_cls"]) for seed in range(20)]
    assert len(set(some)) == 20
    assert float(rpn.losses(scores, made, 64, draw(3))["loss_rpn_cls"]) == some[3]


def proposals(made: GroundTruth) -> Proposals:
    """Proposals near the boxes and elsewhere; the last rows are padding."""
    generator = torch.Generator().manual_seed(2)
    near = made.boxes_NG4.repeat(1, 5, 1)
    near = near + torch.randn(near.shape, generator=generator) * 4
    corner = torch.rand(3, 20, 2, generator=generator) * 80
    far = torch.cat([corner, corner + 5 + torch.rand(3, 20, 2, generator=generator) * 40], 2)
    boxes = torch.cat([near, far], 1).clamp(0, 128)
    large = ((boxes[..., 2:] - boxes[..., :2]) > 1).all(-1)
    large[:, -3:] = False
    return Proposals(boxes_NP4=boxes * large[..., None], exists_NP=large)


def test_rois_of_a_step() -> None:
    """A quarter positive at most, ground truth among the candidates, the rest background below 0.5."""
    made = truth()
    given = proposals(made)
    matched = assign(made.boxes_NG4, made.exists_NG, given.boxes_NP4, MMDET.roi_rule)
    rois = sample_rois(given, made, MMDET.roi_rule, 24, draw())
    for image, boxes in enumerate([4, 2, 0]):
        positives = int(((matched[image] >= 0) & given.exists_NP[image]).sum()) + boxes
        assert int(rois.positive_NS[image].sum()) == min(6, positives)
        for slot in range(24):
            box = rois.boxes_NS4[image, slot]
            if not rois.valid_NS[image, slot]:
                assert not box.any()
                continue
            among = (given.boxes_NP4[image] == box).all(-1)
            own = (made.boxes_NG4[image, :boxes] == box).all(-1)
            assert bool(rois.is_truth_NS[image, slot]) == bool(own.any())
            if rois.positive_NS[image, slot]:
                wanted = own.nonzero()[0, 0] if own.any() else matched[image][among][0]
                assert rois.match_NS[image, slot] == wanted
            else:
                assert (matched[image][among] == BACKGROUND).all() and among.any()
    all_of_them = sample_rois(given, made, MMDET.roi_rule, 400, draw())
    candidates = given.exists_NP.sum(1) + torch.tensor([4, 2, 0])
    assert all_of_them.valid_NS.sum(1).tolist() == candidates.tolist()
    assert all_of_them.is_truth_NS.sum(1).tolist() == [4, 2, 0]


def box_losses_by_loops(
    head: BoxHead, logits: Tensor, deltas: Tensor, rois, made: GroundTruth
) -> list[float]:
    cls = box = count = 0.0
    row = 0
    for image in range(3):
        for slot in range(rois.match_NS.shape[1]):
            if rois.valid_NS[image, slot]:
                count += 1
                match = int(rois.match_NS[image, slot])
                label = int(made.labels_NG[image, match]) if rois.positive_NS[image, slot] else 5
                cls -= float(logits[row].log_softmax(0)[label])
                if rois.positive_NS[image, slot]:
                    reference = rois.boxes_NS4[image, slot].tolist()
                    wanted = deltas_of(made.boxes_NG4[image, match].tolist(), reference)
                    found = deltas[row, 0 if head.class_agnostic else label].tolist()
                    box += sum(abs(f - w / s) for f, w, s in zip(found, wanted, STDS, strict=True))
            row += 1
    return [cls / count, box / count]


def test_box_losses() -> None:
    """Cross entropy with the background last; plain L1 of the own class's deltas; both by RoIs sampled."""
    made = truth()
    rois = sample_rois(proposals(made), made, MMDET.roi_rule, 24, draw())
    for class_agnostic in (False, True):
        torch.manual_seed(0)
        head = BoxHead(8, 16, 5, stds=STDS, class_agnostic=class_agnostic)
        with torch.no_grad():
            pooled = torch.randn(3 * 24, 8, 7, 7, generator=torch.Generator().manual_seed(3))
            logits, deltas = (each * 50 for each in head(pooled))
        assert logits.shape == (72, 6) and deltas.shape == (72, 1 if class_agnostic else 5, 4)
        losses = head.losses(logits, deltas, rois, made)
        expected = torch.tensor(box_losses_by_loops(head, logits, deltas, rois, made))
        torch.testing.assert_close(
            torch.stack([losses["loss_cls"], losses["loss_box"]]), expected, rtol=1e-4, atol=0
        )


def test_decoding_takes_every_class() -> None:
    torch.manual_seed(0)
    head = BoxHead(8, 16, 5, stds=STDS, background_first=True)
    deltas = torch.randn(3, 6, 4)
    boxes = torch.tensor([[10.0, 10, 50, 60]]).expand(3, 4)
    refined = head.decode(deltas, boxes)
    assert refined.shape == (3, 5, 4)
    for label in range(5):
        dx, dy, dw, dh = (deltas[1, label + 1] * torch.tensor(STDS)).tolist()
        x, y, w, h = 30 + dx * 40, 35 + dy * 50, 40 * math.exp(dw), 50 * math.exp(dh)
        expected = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        torch.testing.assert_close(refined[1, label], expected)
    logits = torch.randn(3, 6)
    assert torch.equal(head.probabilities(logits), logits.softmax(-1)[:, 1:])
    last = BoxHead(8, 16, 5, stds=STDS)
    assert torch.equal(last.probabilities(logits), logits.softmax(-1)[:, :5])


def test_a_mask_is_its_own_classs_row() -> None:
    """Equal to the convolution that makes every class's mask of every RoI."""
    torch.manual_seed(0)
    head = MaskHead(8, 12, 5)
    assert head.masks.bias is not None
    torch.nn.init.normal_(head.masks.bias)
    pooled, label = torch.randn(6, 8, 14, 14), torch.tensor([0, 3, 4, 4, 1, 2])
    everything = head.masks(torch.relu(head.upsample(head.features(pooled))))
    expected = everything[torch.arange(6), label]
    torch.testing.assert_close(head(pooled, label), expected, rtol=1e-4, atol=1e-5)


def test_mask_loss() -> None:
    """The mean over the cells of real RoIs; loss and gradients of 0 without any."""
    logits = torch.randn(4, 28, 28, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = (torch.rand(4, 28, 28, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    counts = torch.tensor([True, False, True, True])
    terms = [
        math.log1p(math.exp(-x if wanted else x))
        for row in (0, 2, 3)
        for x, wanted in zip(logits[row].flatten().tolist(), targets[row].flatten().tolist(), strict=True)
    ]
    loss = mask_loss(logits, targets, counts)
    torch.testing.assert_close(loss, torch.tensor(sum(terms) / len(terms)), rtol=1e-4, atol=0)
    none = mask_loss(logits, targets, torch.zeros(4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(none, logits)
    assert none == 0 and not gradient.any()
