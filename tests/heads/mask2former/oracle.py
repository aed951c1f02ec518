"""transformers' Mask2Former modules as a reference for ours: equal weights, equal points."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from heads.mask2former.masked_decoder import MaskPredictions
from heads.mask2former.matching import Matches

WIDTH = 128  # the least with the 32 groups fixed in transformers
CLASSES = 7


def modeling():
    return pytest.importorskip("transformers.models.mask2former.modeling_mask2former")


def config_of(*, pixel_layers: int = 2, decoder_layers: int = 3, queries: int = 9, points: int = 160):
    pytest.importorskip("transformers")
    from transformers import Mask2FormerConfig

    return Mask2FormerConfig(
        feature_size=WIDTH,
        mask_feature_size=WIDTH,
        hidden_dim=WIDTH,
        encoder_feedforward_dim=4 * WIDTH,
        dim_feedforward=8 * WIDTH,
        encoder_layers=pixel_layers,
        decoder_layers=decoder_layers + 1,
        num_queries=queries,
        num_labels=CLASSES,
        train_num_points=points,
    )


PIXEL_NAMES = {
    "input_projections": "projections",
    "level_embed": "level_embedding",
    "encoder.layers": "layers",
    "self_attn.sampling_offsets": "attention.offsets",
    "self_attn.attention_weights": "attention.weights",
    "self_attn.value_proj": "attention.values",
    "self_attn.output_proj": "attention.output",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "expand",
    "fc2": "reduce",
    "final_layer_norm": "feedforward_norm",
    "adapter_1": "lateral",
    "layer_1": "smooth",
}
DECODER_NAMES = {
    "queries_embedder": "positions",
    "queries_features": "contents",
    "level_embed": "level_embeddings",
    "decoder.layers": "layers",
    "decoder.layernorm": "norm",
    "decoder.mask_predictor.mask_embedder.0.0": "mask_mlp.0",
    "decoder.mask_predictor.mask_embedder.1.0": "mask_mlp.2",
    "decoder.mask_predictor.mask_embedder.2.0": "mask_mlp.4",
    "cross_attn.in_proj_": "cross.inputs.",
    "cross_attn.out_proj": "cross.output",
    "self_attn.out_proj": "self_attention.output",
    "cross_attn_layer_norm": "cross_norm",
    "self_attn_layer_norm": "self_norm",
    "fc1": "expand",
    "fc2": "reduce",
    "final_layer_norm": "feedforward_norm",
}


def in_our_names(theirs: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Their tensors (weights or gradients) under our names; separate q, k and v become one."""
    ours: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if ".q_proj." in name:
            parts = [theirs[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            name, tensor = name.replace("self_attn.q_proj", "self_attention.inputs"), torch.cat(parts)
        if ".k_proj." in name or ".v_proj." in name:
            continue
        for old, new in names.items():
            name = name.replace(old, new)
        ours[name] = tensor
    return ours


def redraw(module: nn.Module, seed: int) -> None:
    """Random values everywhere, so that nothing initial (zeros, ones) hides a difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            scale = 1.0 if "embed" in name or "queries" in name else scale
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


def grads_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_all_close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> float:
    """The largest difference, relative to the largest value of its tensor, is below `tolerance`."""
    assert ours.keys() == theirs.keys()
    worst = 0.0
    for name in ours:
        assert ours[name].shape == theirs[name].shape, name
        error = float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp(min=1e-3))
        assert error < tolerance, f"{name} is off by {error:.2g}"
        worst = max(worst, error)
    return worst


class SharedPoints:
    """The same points for both: of an image in the matching, of an image and a class in the losses."""

    def __init__(self, images: int, points: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.rand(*shape, 2, generator=generator, dtype=torch.float64)

        self.points = points
        self.matching = draw(images, points)
        self._drawn = draw(images, CLASSES, 3 * points)
        self._rest = draw(images, CLASSES, points - int(0.75 * points))

    def for_matches(self, matches: Matches, dtype: torch.dtype) -> Callable[[int, int], Tensor]:
        """Ours: rows come in the order of the matches, piece after piece."""
        used = {table.shape[2]: 0 for table in (self._drawn, self._rest)}

        def draw(rows: int, points: int) -> Tensor:
            table = self._drawn if points == self._drawn.shape[2] else self._rest
            span = slice(used[points], used[points] + rows)
            used[points] += rows
            return table[matches.image[span], matches.label[span]].to(dtype)

        return draw

    def patch(self, monkeypatch: pytest.MonkeyPatch, loss: nn.Module, labels: list[Tensor]) -> None:
        """Theirs: torch.rand gives the image's points while matching, then those of the rows matched."""
        rows: list[tuple[int, int]] = []
        image = iter(())

        def before(*_: object) -> None:
            nonlocal image
            rows.clear()
            image = iter(range(len(self.matching)))

        def after(_: object, __: object, pairs: list[tuple[Tensor, Tensor]]) -> None:
            rows.extend((n, int(labels[n][j])) for n, (_, found) in enumerate(pairs) for j in found)

        def rand(*shape: int, device: object = None) -> Tensor:
            if shape[0] == 1 and shape[1] == self.points and not rows:
                return self.matching[next(image)][None]
            table = self._drawn if shape[1] == self._drawn.shape[2] else self._rest
            assert shape == (len(rows), table.shape[2], 2)
            return torch.stack([table[n, k] for n, k in rows])

        loss.empty_weight[-1] = 0.1  # in their dtype: that of float32 is another number
        loss.matcher.register_forward_pre_hook(before)
        loss.matcher.register_forward_hook(after)
        dtype = loss.empty_weight.dtype
        monkeypatch.setattr(modeling().torch, "rand", lambda *a, **k: rand(*a, **k).to(dtype))


def their_losses(loss: nn.Module, predictions: MaskPredictions, labels: Tensor) -> dict[str, Tensor]:
    """Their weighted losses, summed over the predictions, under our names."""
    logits = predictions.class_logits_PNQK
    masks = torch.einsum("pnqc,ncyx->pnqyx", predictions.embeddings_PNQC, predictions.mask_features_NCYX)
    classes = [each[each != 255].unique().long() for each in labels]
    binary = [(each == found[:, None, None]).to(masks) for each, found in zip(labels, classes, strict=True)]
    auxiliary = [
        {"masks_queries_logits": m, "class_queries_logits": c}
        for m, c in zip(masks[:-1], logits[:-1], strict=True)
    ]
    found = loss(masks[-1], logits[-1], binary, classes, auxiliary)
    sums = {
        ours: weight * sum(value for key, value in found.items() if key.startswith(theirs))
        for ours, theirs, weight in (
            ("loss_class", "loss_cross_entropy", 2),
            ("loss_mask", "loss_mask", 5),
            ("loss_dice", "loss_dice", 5),
        )
    }
    assert len(found) == 3 * len(masks)
    return sums
