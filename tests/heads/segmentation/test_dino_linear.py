"""DINOv3's linear head by loops over cells: concatenated maps and tokens, batch statistics, one matrix."""

import pytest
import torch

from heads import HeadError, build_head
from stores.pyramid import ONE_CELL_PX, Level, PyramidSpec
from tests.heads.pyramids import plain_pyramid, random_labels

CLASSES = 5


def pyramid(blocks: int, tokens: bool) -> PyramidSpec:
    maps = plain_pyramid(6, blocks)
    cells = tuple(
        Level(name=f"cls{each.name[1:]}", stride_px=ONE_CELL_PX, channels=6, stage=each.stage)
        for each in maps
    )
    return PyramidSpec((*maps, *(cells if tokens else ())))


def features(of: PyramidSpec, images: int, cells: tuple[int, int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        level.name: torch.randn(
            images, level.channels, *((1, 1) if level.is_pooled else cells), generator=generator
        )
        for level in of
    }


@pytest.mark.parametrize("use_cls", [False, True])
def test_equals_loops_over_cells(use_cls: bool) -> None:
    of = pyramid(2, use_cls)
    head = build_head("dino-linear", "segmentation", of, CLASSES, use_cls=use_cls, dropout=0.0)
    assert head.levels == of.names
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    given = features(of, 2, (3, 4))
    with torch.no_grad():
        found = head(given, [(48, 64)] * 2)
        rows = []  # of each cell of each image: all its channels
        for image in range(2):
            for y in range(3):
                for x in range(4):
                    parts = [
                        given[level.name][image, :, 0, 0]
                        if level.is_pooled
                        else given[level.name][image, :, y, x]
                        for level in of
                    ]
                    rows.append(torch.cat(parts))
        cells_RC = torch.stack(rows)
        mean, variance = cells_RC.mean(0), cells_RC.var(0, unbiased=False)
        normed_RC = (cells_RC - mean) / (variance + 1e-5).sqrt() * head.norm.weight + head.norm.bias
        expected_RK = normed_RC @ head.classifier.weight[:, :, 0, 0].T + head.classifier.bias
    torch.testing.assert_close(
        found, expected_RK.view(2, 3, 4, CLASSES).permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5
    )
    head.eval()  # running statistics, a tenth of the way from 0 and 1
    with torch.no_grad():
        moved_RC = (cells_RC - 0.1 * mean) / (0.9 + 0.1 * cells_RC.var(0) + 1e-5).sqrt()
        expected_RK = (moved_RC * head.norm.weight + head.norm.bias) @ head.classifier.weight[..., 0, 0].T
        found = head(given, [(48, 64)] * 2).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(found, expected_RK + head.classifier.bias, rtol=1e-4, atol=1e-5)


def test_the_loss_is_cross_entropy_at_label_size() -> None:
    of = pyramid(1, tokens=False)
    head = build_head("dino-linear", "segmentation", of, CLASSES, dropout=0.0)
    given, labels = features(of, 2, (3, 4)), random_labels(2, (48, 64), CLASSES)
    loss = head.losses(given, labels, [(48, 64)] * 2)["loss_seg"]
    scores = torch.nn.functional.interpolate(head(given, [(48, 64)] * 2), size=(48, 64), mode="bilinear")
    stacked = torch.stack([each["labels"] for each in labels]).long()
    expected = torch.nn.functional.cross_entropy(scores, stacked, ignore_index=255)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_its_levels_are_chosen() -> None:
    def levels(of: PyramidSpec, **settings: object) -> tuple[str, ...]:
        return build_head("dino-linear", "segmentation", of, CLASSES, **settings).levels

    assert levels(pyramid(4, True)) == ("b1", "b2", "b3", "b4n")
    assert levels(pyramid(4, True), blocks=1) == ("b4n",)
    assert levels(pyramid(4, True), blocks=2, use_cls=True) == ("b3", "b4n", "cls3", "cls4n")
    with pytest.raises(HeadError, match=r"use_cls needs level cls1n beside b1n"):
        levels(pyramid(1, False), use_cls=True)
    with pytest.raises(HeadError, match=r"needs 3 block maps of a plain ViT.*available: b1, b2n"):
        levels(pyramid(2, False), blocks=3)
