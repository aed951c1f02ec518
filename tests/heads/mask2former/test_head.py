"""Mask2Former heads: sizes, matching, predictions, and losses of unusual targets."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import heads.mask2former.head
from heads import build_head
from heads.contract import Head, HeadError
from heads.mask2former.masked_decoder import MaskedDecoder, seen_cells
from heads.mask2former.matching import solve
from heads.mask2former.pixel_decoder import PixelDecoder
from tests.heads.pyramids import (
    SWINV2_CHANNELS,
    parameter_count,
    pyramid_of,
    random_features,
    random_labels,
)

PADDED_HW = (96, 128)
VALID_HW = [(96, 128), (90, 101)]
CLASSES = 5
PYRAMID = pyramid_of(8)


def small_head(name: str = "m2f-pd1-td3", **settings: object) -> Head:
    small = {"width": 16, "queries": 12, "points": 112} | settings
    return build_head(name, "segmentation", PYRAMID, CLASSES, seed=0, **small)


def losses_of(head: Head, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of the first images of one batch, at the same points each time."""
    images = len(targets)
    features = {level: x[:images] for level, x in random_features(PYRAMID, 2, PADDED_HW).items()}
    return head.losses(features, targets, VALID_HW[:images], torch.Generator().manual_seed(0))


# Printed in millions in the papers' reconstruction, and the integers they round.
PIXEL_PARAMETERS = {
    ("t", 1): 1.761,
    ("t", 6): 5.422,
    ("b", 1): 1.883,
    ("b", 6): 5.544,
    ("l", 1): 2.129,
    ("l", 6): 5.790,
    ("g", 1): 3.358,
    ("g", 6): 7.019,
}


@pytest.mark.parametrize(("model", "layers"), PIXEL_PARAMETERS)
def test_pixel_decoder_parameters(model: str, layers: int) -> None:
    channels = [SWINV2_CHANNELS[model] << i for i in range(4)]
    with torch.device("meta"):
        decoder = PixelDecoder(channels, 256, layers)
    assert round(parameter_count(decoder) / 1e6, 3) == PIXEL_PARAMETERS[model, layers]
    assert {parameter_count(layer) for layer in decoder.layers} == {732_192}
    if (model, layers) == ("b", 6):
        assert parameter_count(decoder) == 5_544_384


def test_masked_decoder_parameters() -> None:
    with torch.device("meta"):
        counts = [parameter_count(MaskedDecoder(256, layers, 100, 150, 3)) for layers in (3, 9)]
    assert counts == [4_986_112 + 38_807, 14_458_624 + 38_807]


@pytest.mark.parametrize(("name", "printed"), [("m2f-pd1-td3", 6.91), ("m2f-pd6-td9", 20.04)])
def test_whole_head_parameters(name: str, printed: float) -> None:
    pyramid = pyramid_of(128)
    with torch.device("meta"):
        plain, shipped = (
            parameter_count(build_head(name, "segmentation", pyramid, 150, input_norm=norm))
            for norm in ("none", "ln")
        )
    assert round(plain / 1e6, 2) == printed
    assert shipped == plain + 2 * (128 + 256 + 512 + 1024)


@pytest.mark.parametrize(("alias", "name"), [("pixeldec1", "m2f-pd1-td9"), ("pixeldec6", "m2f-pd6-td9")])
def test_short_names(alias: str, name: str) -> None:
    assert heads.mask2former.head.HEADS[alias] == heads.mask2former.head.HEADS[name]


@pytest.mark.parametrize(
    "settings", [{"width": 20}, {"queries": 0}, {"points": 4}, {"pixel_precision": "fp16"}]
)
def test_settings_out_of_range(settings: dict[str, object]) -> None:
    with pytest.raises(HeadError, match=next(iter(settings))):
        small_head(**settings)


def test_solve_finds_the_least_cost_and_names_classes() -> None:
    costs = np.random.default_rng(0).random((2, 3, 4, CLASSES))
    present = np.array([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)
    pairs = solve(costs, present)
    assert pairs.shape == (4, 9) and set(pairs[0]) == {0}
    for prediction in range(3):
        _, _, query, label = pairs[:, pairs[1] == prediction]
        assert sorted(label) == [1, 3, 4] and len(set(query)) == 3
        least = min(
            costs[0, prediction, list(chosen), [1, 3, 4]].sum() for chosen in permutations(range(4), 3)
        )
        assert costs[0, prediction, query, label].sum() == pytest.approx(least)


def test_a_query_sees_its_mask_and_all_where_that_is_empty() -> None:
    gate = torch.tensor([[[2.0, 0.5, -1.0, -3.0]]])  # one image, one channel, four cells
    queries = torch.tensor([[[1.0], [-1.0], [0.0]]])
    seen = seen_cells(queries, gate)
    assert seen.tolist() == [[[[True, True, False, False], [False, False, True, True], [True] * 4]]]
    assert seen_cells(-queries[:, :1], gate.abs()).tolist() == [[[[True] * 4]]]


def test_prediction_is_the_reference_formula() -> None:
    head = small_head().eval()
    features = random_features(PYRAMID, 2, PADDED_HW)
    sizes = [(61, 83), (90, 101)]
    found = head.predict(features, VALID_HW, sizes)
    with torch.no_grad():
        last = head(features, VALID_HW)
        masks = torch.einsum("nqc,ncyx->nqyx", last.embeddings_PNQC[-1], last.mask_features_NCYX)
        masks = F.interpolate(masks, size=PADDED_HW, mode="bilinear")
        classes = last.class_logits_PNQK[-1].softmax(-1)[..., :-1]
        scores = torch.einsum("nqk,nqyx->nkyx", classes, masks.sigmoid())
    for score, (y, x), size, scored in zip(scores, VALID_HW, sizes, found, strict=True):
        expected = F.interpolate(score[None, :, :y, :x], size=size, mode="bilinear")[0]
        torch.testing.assert_close(scored, expected, rtol=1e-4, atol=1e-5)


def test_prediction_does_not_depend_on_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    head, features = small_head().eval(), random_features(PYRAMID, 2, PADDED_HW)
    whole = head.predict(features, VALID_HW, VALID_HW)
    monkeypatch.setattr(heads.mask2former.head, "_SCORE_BYTES", 1)
    for a, b in zip(head.predict(features, VALID_HW, VALID_HW), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_an_image_without_any_class_adds_nothing() -> None:
    targets = random_labels(2, PADDED_HW, CLASSES)
    empty = {"labels": torch.full(PADDED_HW, 255, dtype=torch.uint8)}
    head = small_head()
    with torch.no_grad():
        head.masked_decoder.classifier.bias[-1] = 3  # queries of the second that predict no object were cheap
    both, alone = losses_of(head, [targets[0], empty]), losses_of(head, targets[:1])
    torch.testing.assert_close(both["loss_class"], alone["loss_class"], rtol=1e-4, atol=0)
    torch.stack(list(both.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_more_classes_than_queries() -> None:
    losses = losses_of(small_head(queries=2), random_labels(2, PADDED_HW, CLASSES))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_fp32_pixel_decoder_ignores_autocast() -> None:
    features = random_features(PYRAMID, 2, PADDED_HW)
    exact = small_head(pixel_precision="fp32").pixel_decoder
    maps = list(features.values())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same, low = exact(maps), small_head().pixel_decoder(maps)
    assert torch.equal(same.mask_features_NCYX, exact(maps).mask_features_NCYX)
    assert low.mask_features_NCYX.dtype == torch.bfloat16
    error = (low.cells[-1] - same.cells[-1]).abs().mean() / same.cells[-1].abs().mean()
    assert low.cells[-1].dtype == torch.float32 and 0 < error < 0.02


class _Waits(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: values and sizes that depend on values."""

    names = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "bincount", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.names):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_transfers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    transfers: list[torch.Size] = []
    to_host = Tensor.cpu
    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "cpu", lambda x: transfers.append(x.shape) or to_host(x))
        yield transfers


def test_a_step_waits_for_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    head, targets = small_head("m2f-pd1-td9"), random_labels(2, PADDED_HW, CLASSES)
    with counted_transfers(monkeypatch) as transfers, _Waits() as waits:
        torch.stack(list(losses_of(head, targets).values())).sum().backward()
    assert len(transfers) == 1 and not waits.seen


def test_a_process_without_masks_still_joins_the_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    met = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", met.append)
    losses = losses_of(small_head(), [{"labels": torch.full(PADDED_HW, 255, dtype=torch.uint8)}])
    assert len(met) == 1 and losses["loss_mask"].item() == 0


def test_masks_are_averaged_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    head, targets = small_head(), random_labels(2, PADDED_HW, CLASSES)
    alone = losses_of(head, targets)
    distributed = torch.distributed
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        distributed, "all_reduce", lambda total: total.mul_(4)
    )  # the other has three times as many
    shared = losses_of(head, targets)
    torch.testing.assert_close(shared["loss_class"], alone["loss_class"])
    for name in ("loss_mask", "loss_dice"):
        torch.testing.assert_close(shared[name], alone[name] / 2)
