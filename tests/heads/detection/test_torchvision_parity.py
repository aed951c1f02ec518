"""Mask R-CNN with torchvision's conventions against torchvision's parts, on equal weights and features.

All candidates are sampled, so that no draw can differ. Both read RoIs adaptively (sampling
ratio 0; torchvision's model defaults to 2).
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heads import build_head
from heads.boxes.assignment import uniform_draws
from heads.boxes.ground_truth import image_sizes, stack_truth
from heads.detection.base import DetectionHead
from heads.detection.mask_rcnn import MaskRCNN
from tests.heads.detection.detection_targets import empty_target, pack_instances, random_masks
from tests.heads.pyramids import pyramid_of

CLASSES, WIDTH, HIDDEN = 5, 16, 24
PADDED_HW = (192, 256)
VALID_HW = [(180, 256), (192, 200), (150, 170)]
EVERYTHING = 1 << 20
PROPOSALS = {"training": 60, "testing": 40}
CANDIDATES = {"training": 100, "testing": 70}
LEVELS = [str(level) for level in range(5)]

pytestmark = pytest.mark.oracle


def redraw(head: nn.Module, seed: int = 3) -> None:
    """Weights under which scores and boxes differ from RoI to RoI."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            scale = 0.3 if "deltas" in name else 1.5
            parameter.normal_(0, scale / fan_in**0.5, generator=generator)


@pytest.fixture(scope="module")
def ours() -> MaskRCNN:
    head = build_head(
        "fpn",
        "detection",
        pyramid_of(8),
        CLASSES,
        seed=0,
        conventions="torchvision",
        width=WIDTH,
        mask_width=WIDTH,
        box_width=HIDDEN,
        rpn_samples=EVERYTHING,
        roi_samples=EVERYTHING,
        candidates=CANDIDATES["training"],
        test_candidates=CANDIDATES["testing"],
        proposals=PROPOSALS["training"],
        test_proposals=PROPOSALS["testing"],
        detections=30,
    )
    assert isinstance(head, MaskRCNN)
    redraw(head)
    return head


@pytest.fixture(scope="module")
def theirs(ours: MaskRCNN) -> SimpleNamespace:
    detection = pytest.importorskip("torchvision.models.detection")
    ops = pytest.importorskip("torchvision.ops")
    rpn = detection.rpn.RegionProposalNetwork(
        detection.rpn.AnchorGenerator(tuple((32 << i,) for i in range(5)), ((0.5, 1.0, 2.0),) * 5),
        detection.rpn.RPNHead(WIDTH, 3),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=EVERYTHING,
        positive_fraction=0.5,
        pre_nms_top_n=CANDIDATES,
        post_nms_top_n=PROPOSALS,
        nms_thresh=0.7,
    )
    roi_heads = detection.roi_heads.RoIHeads(
        ops.MultiScaleRoIAlign(LEVELS[:4], 7, 0),
        detection.faster_rcnn.TwoMLPHead(WIDTH * 49, HIDDEN),
        detection.faster_rcnn.FastRCNNPredictor(HIDDEN, CLASSES + 1),
        0.5,
        0.5,
        EVERYTHING,
        0.25,
        None,
        0.05,
        0.5,
        30,
        ops.MultiScaleRoIAlign(LEVELS[:4], 14, 0),
        detection.mask_rcnn.MaskRCNNHeads(WIDTH, (WIDTH,) * 4, 1),
        detection.mask_rcnn.MaskRCNNPredictor(WIDTH, WIDTH, CLASSES + 1),
    )
    for target, source in (
        (rpn.head, ours.rpn),
        (roi_heads.box_head, nn.ModuleList([ours.box_head.hidden1, ours.box_head.hidden2])),
        (roi_heads.box_predictor, nn.ModuleList([ours.box_head.classes, ours.box_head.deltas])),
        (roi_heads.mask_head, ours.mask_head.convs),
        (roi_heads.mask_predictor, nn.ModuleList([ours.mask_head.upsample, ours.mask_head.masks])),
    ):
        for mine, given in zip(target.parameters(), source.parameters(), strict=True):
            with torch.no_grad():
                mine.copy_(given)
    images = detection.image_list.ImageList(torch.zeros(3, 3, *PADDED_HW), VALID_HW)
    return SimpleNamespace(rpn=rpn, roi_heads=roi_heads, images=images)


@pytest.fixture(scope="module")
def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randn(3, WIDTH, PADDED_HW[0] >> shift, PADDED_HW[1] >> shift, generator=generator)
        for shift in range(2, 7)
    ]


def targets(with_empty: bool) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """The same instances in our format and in torchvision's: bitmaps, background as class 0."""
    random = np.random.default_rng(7)
    ours, theirs = [], []
    for row, hw in enumerate(VALID_HW):
        masks = [] if with_empty and row == 1 else random_masks(hw, 3 + row, random)
        labels = random.integers(0, CLASSES, len(masks)).tolist()
        ours.append(pack_instances(masks, labels) if masks else empty_target())
        bitmaps = torch.from_numpy(np.stack([*masks, np.zeros(hw, bool)])[:-1]).to(torch.uint8)
        theirs.append({"boxes": ours[-1]["boxes"], "labels": ours[-1]["labels"] + 1, "masks": bitmaps})
    return ours, theirs


def grads(loss: Tensor, modules: list[nn.Module], inputs: list[Tensor]) -> list[Tensor]:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return list(torch.autograd.grad(loss, [*parameters, *inputs]))


@pytest.mark.parametrize("with_empty", [False, True])
def test_losses_and_gradients(
    ours: MaskRCNN, theirs: SimpleNamespace, maps: list[Tensor], with_empty: bool
) -> None:
    mine, given = targets(with_empty)
    leaves = [x.clone().requires_grad_() for x in maps]
    named = dict(zip(LEVELS, leaves, strict=True))
    theirs.rpn.train(), theirs.roi_heads.train()
    proposals, expected_rpn = theirs.rpn(theirs.images, named, given)
    _, expected = theirs.roi_heads(named, proposals, VALID_HW, given)
    expected = {**expected_rpn, **expected}
    their_grads = grads(sum(expected.values()), [theirs.rpn.head, theirs.roi_heads], leaves)

    truth = stack_truth(mine, VALID_HW, CLASSES, torch.device("cpu"))
    draw = uniform_draws(torch.Generator().manual_seed(0), torch.device("cpu"))
    scores = ours.rpn(leaves)
    losses = ours.rpn.losses(scores, truth, EVERYTHING, draw)
    proposed = ours.rpn.propose(scores, truth.image_hw_N2, CANDIDATES["training"], PROPOSALS["training"])
    losses |= ours.roi_losses(leaves, proposed, mine, truth, draw)
    our_grads = grads(
        sum(losses.values()), [ours.rpn, ours.box_head, *ours.mask_head.convs, *_last(ours)], leaves
    )
    names = {
        "loss_rpn_cls": "loss_objectness",
        "loss_rpn_box": "loss_rpn_box_reg",
        "loss_cls": "loss_classifier",
        "loss_box": "loss_box_reg",
        "loss_mask": "loss_mask",
    }
    assert set(names) == set(losses)
    for name, their_name in names.items():
        assert expected[their_name] > 1e-4, "nothing is compared"
        torch.testing.assert_close(losses[name], expected[their_name], rtol=1e-5, atol=1e-6)
    for a, b in zip(our_grads, their_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def _last(head: MaskRCNN) -> list[nn.Module]:
    return [head.mask_head.upsample, head.mask_head.masks]


@pytest.mark.parametrize("phase", ["training", "testing"])
def test_proposals(ours: MaskRCNN, theirs: SimpleNamespace, maps: list[Tensor], phase: str) -> None:
    theirs.rpn.train(phase == "training")
    _, given = targets(False)
    with torch.no_grad():
        expected, _ = theirs.rpn(theirs.images, dict(zip(LEVELS, maps, strict=True)), given)
        found = ours.rpn.propose(
            ours.rpn(maps),
            image_sizes(VALID_HW, torch.device("cpu")),
            CANDIDATES[phase],
            PROPOSALS[phase],
        )
    for boxes_P4, exists_P, expected_P4 in zip(found.boxes_NP4, found.exists_NP, expected, strict=True):
        assert len(expected_P4) == PROPOSALS[phase]
        torch.testing.assert_close(boxes_P4[exists_P], expected_P4, rtol=1e-5, atol=1e-4)


def test_detections(ours: MaskRCNN, theirs: SimpleNamespace, maps: list[Tensor]) -> None:
    theirs.rpn.eval(), theirs.roi_heads.eval()
    named = dict(zip(LEVELS, maps, strict=True))
    with torch.no_grad():
        proposals, _ = theirs.rpn(theirs.images, named)
        expected, _ = theirs.roi_heads(named, proposals, VALID_HW)
        sizes = image_sizes(VALID_HW, torch.device("cpu"))
        proposed = ours.rpn.propose(ours.rpn(maps), sizes, CANDIDATES["testing"], PROPOSALS["testing"])
        found, mask_probs = ours.detect(maps, proposed, sizes)
    for mine, probs, theirs_here in zip(found, mask_probs, expected, strict=True):
        assert len(mine.scores_D) == 30
        torch.testing.assert_close(mine.scores_D, theirs_here["scores"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(mine.labels_D, theirs_here["labels"] - 1)
        torch.testing.assert_close(mine.boxes_D4, theirs_here["boxes"], rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(probs, theirs_here["masks"][:, 0], rtol=1e-4, atol=1e-5)


def test_mmdet_conventions_give_other_numbers(ours: MaskRCNN, maps: list[Tensor]) -> None:
    """The setting matters: with mmdet's conventions the same weights propose other boxes."""
    other = build_head("fpn", "detection", pyramid_of(8), CLASSES, seed=0, width=WIDTH)
    assert isinstance(other, DetectionHead)
    other.rpn.load_state_dict(ours.rpn.state_dict())
    sizes = image_sizes(VALID_HW, torch.device("cpu"))
    with torch.no_grad():
        a, b = (head.rpn.propose(head.rpn(maps), sizes, 70, 40) for head in (ours, other))
    assert (a.boxes_NP4 - b.boxes_NP4).abs().max() > 0.1
