"""What every registered head promises; a new head needs no test code, a new task one line of TARGETS."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from heads import build_head, head_settings
from heads.building import head_preset
from heads.contract import Head
from heads.errors import HeadError
from heads.index import head_index
from heads.segmentation.base import PixelClassifier
from stores.pyramid import PyramidSpec
from tests.contracts.small_heads import SMALL, build_small_head
from tests.heads.detection.detection_targets import random_targets
from tests.heads.pyramids import (
    clip_pyramid,
    probe_pyramid,
    pyramid_of,
    random_clips,
    random_depths,
    random_features,
    random_keypoints,
    random_labels,
)
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this file

CLASSES = 5
PADDED_HW = (160, 224)
VALID_HW = [(157, 200), (160, 224), (90, 33)]  # the last has fewer p5 cells than pooling has bins
OUTPUT_HW = [(314, 400), (160, 224), (45, 17)]
PYRAMID = pyramid_of(8, blocks=4)
CLIPS = clip_pyramid(32)
PROBES = probe_pyramid(32)
TARGETS = {
    "detection": lambda: random_targets(VALID_HW, CLASSES),
    "segmentation": lambda: random_labels(len(VALID_HW), PADDED_HW, CLASSES),
    "classification": lambda: [{"label": torch.tensor(label)} for label in range(len(VALID_HW))],
    "depth": lambda: random_depths(len(VALID_HW), PADDED_HW),
    "pose": lambda: random_keypoints(VALID_HW, CLASSES),
    "video": lambda: [{"label": torch.tensor(label)} for label in range(len(VALID_HW))],
}
HEADS = sorted(head_index())
ALIKE = {(task, f"bifpn{layers}") for task in ("detection", "segmentation") for layers in (2, 3, 4, 6, 7, 8)}
ALIKE |= {("segmentation", f"simplefpn-m2f-pd{size}") for size in ("1-td3", "1-td9", "6-td3", "6-td9")}
ALIKE |= {("detection", "simplefpn"), ("detection", "cascade-simplefpn")}
"""Like the heads between which they stand, and two seconds each: only `make test-all` runs them."""
every_head = pytest.mark.parametrize(
    ("task", "name"),
    [
        pytest.param(*head, id="-".join(head), marks=[pytest.mark.slow] if head in ALIKE else [])
        for head in HEADS
    ],
)


def small_head(name: str, task: str, **settings: Any) -> Head:
    return build_small_head(name, task, pyramid(task), CLASSES, **settings)


def decided(head: Head) -> Head:
    """New detection heads score alike up to rounding, which would choose what they detect: no longer so."""
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if head.task == "detection" and name.endswith(("classes.weight", "objectness.weight")):
                parameter.mul_(30)
    return head


def pyramid(task: str) -> PyramidSpec:
    return {"video": CLIPS, "classification": PROBES}.get(task, PYRAMID)


def features(task: str, seed: int = 0, wider: int = 1) -> dict[str, Tensor]:
    """Of as many channels as the heads are built for, or `wider` times as many."""
    if task == "video":
        return random_clips(clip_pyramid(32 * wider), len(VALID_HW), 2, PADDED_HW, seed)
    wide = probe_pyramid(32 * wider) if task == "classification" else pyramid_of(8 * wider, blocks=4)
    return random_features(wide, len(VALID_HW), PADDED_HW, seed)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def parts(prediction: Any) -> list[Tensor]:
    """The tensors of one prediction or of several."""
    if isinstance(prediction, Tensor):
        return [prediction]
    values = prediction.values() if isinstance(prediction, dict) else prediction
    return [part for value in values for part in parts(value)]


@every_head
def test_losses_are_named_finite_scalars_that_fall(task: str, name: str) -> None:
    head, targets = small_head(name, task), TARGETS[task]()
    optimiser = torch.optim.AdamW(head.parameters(), lr=3e-3)
    history = []
    for step in range(5):
        losses = head.losses(features(task), targets, VALID_HW, torch.Generator().manual_seed(step))
        assert losses and all(key.startswith("loss_") and loss.shape == () for key, loss in losses.items())
        history.append(float(total(losses).detach()))
        optimiser.zero_grad()
        total(losses).backward()
        optimiser.step()
    assert all(torch.tensor(history).isfinite()) and history[-1] < history[0]


@every_head
def test_losses_need_the_targets_it_names_and_no_others(task: str, name: str) -> None:
    head = small_head(name, task)
    needed = [{key: target[key] for key in head.target_names} for target in TARGETS[task]()]
    assert total(head.losses(features(task), needed, VALID_HW)).isfinite()
    for missing in head.target_names:
        fewer = [{key: value for key, value in target.items() if key != missing} for target in needed]
        with pytest.raises((HeadError, KeyError), match=missing):
            head.losses(features(task), fewer, VALID_HW)


@every_head
def test_a_head_without_memory_names_its_targets(task: str, name: str) -> None:
    """As the refusal of a head that a store cannot teach builds those it can."""
    with torch.device("meta"):
        found = build_head(name, task, pyramid(task), CLASSES)
    assert found.target_names == small_head(name, task).target_names
    assert all(parameter.is_meta for parameter in found.parameters())


@every_head
def test_gradients_reach_every_parameter(task: str, name: str) -> None:
    """In two steps: a parameter behind weights that start at 0 has to wait for the first.

    Anchors across the border count: no anchor of the coarsest level fits into an image as small as these.
    """
    knows_border = any(
        field.name == "border_anchors" for field in dataclasses.fields(head_settings(name, task))
    )
    head = small_head(name, task, **({"border_anchors": True} if knows_border else {}))
    untouched = {key for key, _ in head.named_parameters()}
    optimiser = torch.optim.AdamW(head.parameters())
    for _ in range(2):
        optimiser.zero_grad()
        total(head.losses(features(task), TARGETS[task](), VALID_HW)).backward()
        grads = {key: p.grad for key, p in head.named_parameters()}
        untouched -= {key for key, grad in grads.items() if grad is not None and grad.abs().sum() > 0}
        optimiser.step()
    assert not untouched


@every_head
def test_predictions_have_the_sizes_asked(task: str, name: str) -> None:
    head = small_head(name, task).eval()
    predictions = head.predict(features(task), VALID_HW, OUTPUT_HW)
    assert len(predictions) == len(VALID_HW)
    if task in ("video", "classification"):
        for probabilities in predictions:
            assert probabilities.shape == (CLASSES,) and probabilities.dtype == torch.float32
            assert not probabilities.requires_grad
            assert probabilities.min() >= 0
            torch.testing.assert_close(probabilities.sum(), torch.ones(()))
    if task == "segmentation":
        for scores, size in zip(predictions, OUTPUT_HW, strict=True):
            assert scores.shape == (CLASSES, *size) and scores.dtype == torch.float32
            assert not scores.requires_grad
            assert scores.min() >= 0
            if isinstance(head, PixelClassifier):
                torch.testing.assert_close(scores.sum(0), torch.ones(size))
    if task == "depth":
        for metres, size in zip(predictions, OUTPUT_HW, strict=True):
            assert metres.shape == size and metres.dtype == torch.float32 and not metres.requires_grad
            assert 0 <= metres.min() <= metres.max() <= 10
    if task == "pose":
        for heatmaps in predictions:
            assert heatmaps.shape[0] == CLASSES and heatmaps.dtype == torch.float32
            assert not heatmaps.requires_grad
    if task == "detection":
        for found, size in zip(predictions, OUTPUT_HW, strict=True):
            count = len(found["boxes"])
            assert 0 < count <= SMALL["detections"]
            assert found["boxes"].shape == (count, 4) and found["mask_probs"].shape == (count, 28, 28)
            assert found["scores"].shape == found["labels"].shape == (count,)
            assert found["labels"].dtype == torch.int64 and found["labels"].max() < CLASSES
            assert not any(values.requires_grad for values in found.values())
            assert (found["boxes"][:, :2] <= found["boxes"][:, 2:]).all() and found["boxes"].min() >= 0
            # The scale from view to output is a float32.
            assert (found["boxes"].amax(0)[2:] <= torch.tensor(size).flip(0) * (1 + 1e-6)).all()
            assert (found["scores"].diff() <= 0).all() and found["scores"].min() > 0


@every_head
def test_companions_do_not_change_a_prediction(task: str, name: str) -> None:
    """Neither what they are nor how much of them is padding."""
    head = decided(small_head(name, task).eval())
    batch = features(task)
    together = head.predict(batch, VALID_HW, OUTPUT_HW)
    for row, prediction in enumerate(together):
        one = {level: x[row : row + 1] for level, x in batch.items()}
        (alone,) = head.predict(one, VALID_HW[row : row + 1], OUTPUT_HW[row : row + 1])
        # Other batch sizes take other kernels: equal up to the rounding of a few hundred float32 sums.
        torch.testing.assert_close(prediction, alone, rtol=1e-3, atol=1e-5)


@every_head
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_order_does_not_matter(task: str, name: str, memory_format: torch.memory_format) -> None:
    head = decided(small_head(name, task).eval())
    if task == "video" and memory_format == torch.channels_last:
        memory_format = torch.channels_last_3d
    ordered = {level: x.contiguous(memory_format=memory_format) for level, x in features(task).items()}
    expected = head.predict(features(task), VALID_HW, OUTPUT_HW)
    for a, b in zip(head.predict(ordered, VALID_HW, OUTPUT_HW), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@every_head
def test_bf16_autocast(task: str, name: str) -> None:
    """Forward and backward are finite, and near the fp32 loss, of features in either precision."""
    head, targets = small_head(name, task), TARGETS[task]()
    exact = total(head.losses(features(task), targets, VALID_HW, torch.Generator().manual_seed(0))).detach()
    for stored in (torch.float32, torch.bfloat16):
        head.train().zero_grad()
        batch = {level: x.to(stored) for level, x in features(task).items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = total(head.losses(batch, targets, VALID_HW, torch.Generator().manual_seed(0)))
        loss.backward()
        torch.testing.assert_close(loss.detach(), exact, rtol=0.05, atol=0.05)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predictions = head.eval().predict(batch, VALID_HW, OUTPUT_HW)
        assert all(scores.isfinite().all() for scores in parts(predictions))


@every_head
def test_missing_level(task: str, name: str) -> None:
    head = small_head(name, task)
    first, last = head.levels[0], head.levels[-1]
    if head_preset(name, task).levels:
        with pytest.raises(ValueError, match=rf"{name} needs level {first}; available: .*p3, p4, p5"):
            build_head(name, task, PYRAMID.select([lv for lv in PYRAMID.names if lv != first]), CLASSES)
    else:  # of what there is it takes what it can
        assert build_head(name, task, head.source, CLASSES).levels == head.levels
    batch = features(task)
    del batch[last]
    with pytest.raises(HeadError, match=f"needs level {last}"):
        head.losses(batch, TARGETS[task](), VALID_HW)
    with pytest.raises(HeadError, match=f"needs level {last}"):
        head.predict(batch, VALID_HW, OUTPUT_HW)


@every_head
def test_sizes_that_do_not_fit(task: str, name: str) -> None:
    head = small_head(name, task)
    targets = TARGETS[task]()
    level = next(iter(head.source))
    beyond = level.cells(PADDED_HW[0]) * level.stride_px + 1
    with pytest.raises(HeadError, match=f"valid size {beyond}x224 px does not fit"):
        head.losses(features(task), targets, [*VALID_HW[:2], (beyond, 224)])
    channels, axes = next(iter(head.source)).channels, ", ".join(head.map_axes)
    with pytest.raises(HeadError, match=rf"expected \(2, {channels}, {axes}\)"):
        head.losses(features(task), targets, VALID_HW[:2])
    with pytest.raises(HeadError, match=rf"expected \(3, {channels}, {axes}\)"):
        head.predict(features(task, wider=2), VALID_HW, OUTPUT_HW)
    with pytest.raises(HeadError, match="output sizes"):
        head.predict(features(task), VALID_HW, OUTPUT_HW[:1])


@every_head
def test_state_dict_round_trip(task: str, name: str) -> None:
    trained = small_head(name, task)
    total(trained.losses(features(task), TARGETS[task](), VALID_HW)).backward()  # running statistics move
    fresh = small_head(name, task, seed=1)
    fresh.load_state_dict(trained.state_dict())
    pairs = zip(
        *(head.eval().predict(features(task), VALID_HW, OUTPUT_HW) for head in (trained, fresh)), strict=True
    )
    assert all(torch.equal(a, b) for pair in pairs for a, b in zip(*map(parts, pair), strict=True))


@every_head
def test_draws_come_from_the_generator_alone(task: str, name: str) -> None:
    """Same generator, same losses and gradients to the bit; torch's global one is neither read nor moved."""

    draws = {"dropout": 0.5} if hasattr(head_settings(name, task), "dropout") else {}

    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        head = small_head(name, task, **draws)
        loss = total(head.losses(features(task), TARGETS[task](), VALID_HW, generator))
        loss.backward()
        return torch.cat([loss.detach().flatten(), *(p.grad.flatten() for p in head.parameters())])

    torch.manual_seed(1)
    first = run(7)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, run(7))
    assert not draws or not torch.equal(first, run(8))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", [name for task, name in HEADS if task == "segmentation"])
class TestSegmentation:
    def test_nothing_labelled(self, name: str) -> None:
        head = small_head(name, "segmentation")
        targets = [{"labels": torch.full(PADDED_HW, 255, dtype=torch.uint8)} for _ in VALID_HW]
        loss = total(head.losses(features("segmentation"), targets, VALID_HW))
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is not None and not p.grad.any() for p in head.parameters())

    def test_label_maps_of_another_size(self, name: str) -> None:
        head = small_head(name, "segmentation")
        targets = random_labels(len(VALID_HW), (140, 200), CLASSES)
        with pytest.raises(HeadError, match=r"label map of \d+x\d+ px.*(40x56|10x14) cells"):
            head.losses(features("segmentation"), targets, VALID_HW)

    def test_labels_above_the_classes(self, name: str) -> None:
        head = small_head(name, "segmentation")
        with pytest.raises(HeadError, match=r"expected 0\.\.4 or 255"):
            head.losses(features("segmentation"), random_labels(len(VALID_HW), PADDED_HW, 150), VALID_HW)
