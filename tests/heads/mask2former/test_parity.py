"""Mask2Former against transformers': outputs, gradients and losses on equal weights and points."""

import dataclasses

import pytest
import torch
from torch import Tensor

import heads.mask2former.losses
import heads.mask2former.matching
from heads.mask2former.losses import class_loss, mask_losses, matched_losses
from heads.mask2former.masked_decoder import MaskedDecoder, MaskPredictions
from heads.mask2former.matching import assignment_costs, match
from heads.mask2former.pixel_decoder import DecodedPixels, PixelDecoder
from heads.mask2former.point_sampling import LabelPoints
from heads.mask2former.position_encoding import sine_positions
from tests.heads.mask2former.oracle import (
    CLASSES,
    DECODER_NAMES,
    PIXEL_NAMES,
    WIDTH,
    SharedPoints,
    assert_all_close,
    config_of,
    grads_of,
    in_our_names,
    modeling,
    redraw,
    their_losses,
)

pytestmark = pytest.mark.oracle

# float64 shows that two definitions are the same, float32 that nothing is lost in the precision of training.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
CHANNELS = [12, 24, 48, 96]
SIZES = [(16, 16), (20, 28), (13, 21), (5, 8)]  # of the finest level; the last has a single coarsest row


def maps_of(finest: tuple[int, int], channels: list[int], dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    maps, (height, width) = [], finest
    for each in channels:
        x = torch.randn(2, each, height, width, generator=generator, dtype=torch.float64)
        maps.append(x.to(dtype).requires_grad_())
        height, width = (height + 1) // 2, (width + 1) // 2
    return maps


def weighted_sum(outputs: list[Tensor]) -> Tensor:
    """A scalar whose gradient differs from cell to cell."""
    return sum((out * torch.arange(out.numel(), dtype=out.dtype).view_as(out).cos()).sum() for out in outputs)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("finest", SIZES)
def test_pixel_decoder(finest: tuple[int, int], dtype: torch.dtype) -> None:
    theirs = modeling().Mask2FormerPixelDecoder(config_of(), CHANNELS)
    redraw(theirs, 1)
    theirs = theirs.to(dtype)
    ours = PixelDecoder(CHANNELS, WIDTH, layers=2).to(dtype)
    ours.load_state_dict(in_our_names(theirs.state_dict(), PIXEL_NAMES))

    maps = maps_of(finest, CHANNELS, dtype)
    expected = theirs(maps)
    outputs = [expected.mask_features, *(x.flatten(2).transpose(1, 2) for x in expected.multi_scale_features)]
    weighted_sum(outputs).backward()
    reference = {f"output {i}": x.detach() for i, x in enumerate(outputs)}
    reference |= {f"input {i}": x.grad for i, x in enumerate(maps)}
    reference |= in_our_names(grads_of(theirs), PIXEL_NAMES)

    maps = maps_of(finest, CHANNELS, dtype)
    decoded = ours(maps)
    outputs = [decoded.mask_features_NCYX, *decoded.cells]
    weighted_sum(outputs).backward()
    found = {f"output {i}": x.detach() for i, x in enumerate(outputs)}
    found |= {f"input {i}": x.grad for i, x in enumerate(maps)}
    assert_all_close(found | grads_of(ours), reference, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("layers", [3, 4])
@pytest.mark.parametrize("finest", SIZES[1:])
def test_masked_decoder(finest: tuple[int, int], layers: int, dtype: torch.dtype) -> None:
    theirs = modeling().Mask2FormerTransformerModule(WIDTH, config_of(decoder_layers=layers))
    redraw(theirs, 2)
    theirs = theirs.to(dtype)
    ours = MaskedDecoder(WIDTH, layers, 9, CLASSES, levels=3).to(dtype)
    weights = in_our_names(theirs.state_dict(), DECODER_NAMES)
    classifier = {f"classifier.{key}": value for key, value in ours.classifier.state_dict().items()}
    ours.load_state_dict(weights | classifier)

    finest_map, *levels = maps = maps_of(finest, [WIDTH] * 4, dtype)
    expected = theirs(levels[::-1], finest_map)
    masks = list(expected.masks_queries_logits)
    normed = torch.stack(expected.intermediate_hidden_states).transpose(1, 2)
    logits = torch.nn.functional.linear(normed, ours.classifier.weight, ours.classifier.bias)
    weighted_sum([*masks, logits]).backward()
    reference = {f"mask {i}": x.detach() for i, x in enumerate(masks)} | {"classes": logits.detach()}
    reference |= {f"input {i}": x.grad for i, x in enumerate(maps)}
    reference |= in_our_names(grads_of(theirs), DECODER_NAMES)
    ours.zero_grad()

    finest_map, *levels = maps = maps_of(finest, [WIDTH] * 4, dtype)
    sizes = [tuple(x.shape[2:]) for x in levels[::-1]]
    pixels = DecodedPixels(
        mask_features_NCYX=finest_map,
        cells=tuple(x.flatten(2).transpose(1, 2) for x in levels[::-1]),
        positions=tuple(sine_positions(size, WIDTH, finest_map) for size in sizes),
        sizes=tuple(sizes),
    )
    predicted = ours(pixels)
    masks = list(torch.einsum("pnqc,ncyx->pnqyx", predicted.embeddings_PNQC, finest_map))
    weighted_sum([*masks, predicted.class_logits_PNQK]).backward()
    found = {f"mask {i}": x.detach() for i, x in enumerate(masks)}
    found |= {"classes": predicted.class_logits_PNQK.detach()}
    found |= {f"input {i}": x.grad for i, x in enumerate(maps)}
    grads = {key: grad for key, grad in grads_of(ours).items() if not key.startswith("classifier.")}
    assert_all_close(found | grads, reference, TOLERANCE[dtype])


def random_predictions(
    dtype: torch.dtype, *, images: int = 3, queries: int = 9, seed: int = 0
) -> MaskPredictions:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return x.to(dtype).requires_grad_()

    return MaskPredictions(
        class_logits_PNQK=draw(4, images, queries, CLASSES + 1),
        embeddings_PNQC=draw(4, images, queries, 16),
        mask_features_NCYX=draw(images, 16, 12, 17),
    )


def random_scenes(images: int, seed: int = 0) -> Tensor:
    """Label maps (images, 48, 68) of few classes each, in blobs, with some pixels of none."""
    generator = torch.Generator().manual_seed(seed)
    scenes = []
    for _ in range(images):
        classes = torch.randperm(CLASSES, generator=generator)[: 2 + len(scenes)].to(torch.uint8)
        coarse = classes[torch.randint(len(classes), (6, 8), generator=generator)]
        coarse[0, 0] = 255
        fine = torch.nn.functional.interpolate(coarse[None, None].float(), size=(48, 68), mode="nearest")
        scenes.append(fine[0, 0].to(torch.uint8))
    return torch.stack(scenes)


def our_losses(predictions: MaskPredictions, labels: Tensor, shared: SharedPoints) -> dict[str, Tensor]:
    dtype = predictions.embeddings_PNQC.dtype
    matches = match(predictions, labels, shared.points, lambda *_: shared.matching.to(dtype))
    draw = shared.for_matches(matches, dtype)
    masks = mask_losses(predictions, matches, LabelPoints(labels), shared.points, draw)
    return {"loss_class": class_loss(predictions.class_logits_PNQK, matches), **masks}


def losses_and_grads(losses: dict[str, Tensor], predictions: MaskPredictions) -> dict[str, Tensor]:
    (losses["loss_class"] + 2 * losses["loss_mask"] + 3 * losses["loss_dice"]).backward()
    values = {name: loss.detach() for name, loss in losses.items()}
    fields = {field.name: getattr(predictions, field.name) for field in dataclasses.fields(predictions)}
    return values | {name: tensor.grad for name, tensor in fields.items()}


@pytest.mark.parametrize("pieces", ["one", "many"])
@pytest.mark.parametrize("queries", [9, 3])  # 3: an image has more classes than there are queries
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_losses(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, queries: int, pieces: str) -> None:
    if pieces == "many":
        monkeypatch.setattr(heads.mask2former.matching, "_PIECE_BYTES", 1 << 14)
        monkeypatch.setattr(heads.mask2former.losses, "_PIECE_BYTES", 1 << 17)
    labels, shared = random_scenes(3), SharedPoints(3, 160)
    predictions = random_predictions(dtype, queries=queries)
    found = losses_and_grads(our_losses(predictions, labels, shared), predictions)

    loss = modeling().Mask2FormerLoss(config_of(), {}).to(dtype)
    shared.patch(monkeypatch, loss, [each[each != 255].unique() for each in labels])
    predictions = random_predictions(dtype, queries=queries)
    expected = losses_and_grads(their_losses(loss, predictions, labels), predictions)
    assert_all_close(found, expected, TOLERANCE[dtype])


def test_matcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pair by pair, also with non-finite costs."""
    labels, shared = random_scenes(3), SharedPoints(3, 160)
    predictions = random_predictions(torch.float64)
    with torch.no_grad():
        predictions.embeddings_PNQC[1, 0, 2] = float("nan")
        predictions.class_logits_PNQK[2, 1, 4] = float("inf")
        predictions.embeddings_PNQC[3, 2] = float("nan")
    matches = match(predictions, labels, shared.points, lambda *_: shared.matching)
    pairs = torch.stack([matches.prediction, matches.image, matches.query, matches.label], 1)

    loss = modeling().Mask2FormerLoss(config_of(), {}).double()
    classes = [each[each != 255].unique().long() for each in labels]
    binary = [(each == k[:, None, None]).double() for each, k in zip(labels, classes, strict=True)]
    shared.patch(monkeypatch, loss, classes)
    expected = []
    for p, (embeddings, logits) in enumerate(
        zip(predictions.embeddings_PNQC, predictions.class_logits_PNQK, strict=True)
    ):
        masks = torch.einsum("nqc,ncyx->nqyx", embeddings, predictions.mask_features_NCYX)
        for n, (query, found) in enumerate(loss.matcher(masks, logits, binary, classes)):
            expected += [(p, n, int(q), int(classes[n][j])) for q, j in zip(query, found, strict=True)]
    assert sorted(map(tuple, pairs.tolist())) == sorted(expected)
    assert assignment_costs(predictions, labels, shared.matching).isfinite().all()


def test_losses_at_points_of_their_own_agree_on_average() -> None:
    """Our predictions of an image share their points, unlike the reference's; the mean losses are equal."""
    labels, predictions, runs = random_scenes(3), random_predictions(torch.float32), 60
    loss = modeling().Mask2FormerLoss(config_of(points=128), {})

    def draw(rows: int, points: int) -> Tensor:
        return torch.rand(rows, points, 2)

    torch.manual_seed(0)
    with torch.no_grad():
        ours = [matched_losses(predictions, labels, 128, draw) for _ in range(runs)]
        theirs = [their_losses(loss, predictions, labels) for _ in range(runs)]
    for name in ours[0]:
        mine, reference = (torch.stack([each[name] for each in losses]) for losses in (ours, theirs))
        error = ((mine.var() + reference.var()) / runs).sqrt()
        assert (mine.mean() - reference.mean()).abs() < 3 * error, name
