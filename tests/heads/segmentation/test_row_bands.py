"""Bands of rows: the labels of a whole map of scores, made some rows at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from heads import build_head
from heads.segmentation import row_bands
from tests.heads.pyramids import pyramid_of, random_features

CLASSES = 7


@pytest.mark.parametrize(("here", "there"), [((13, 17), (200, 311)), ((40, 40), (11, 7)), ((1, 1), (9, 5))])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_rows_are_those_of_the_whole_resize(
    here: tuple[int, int], there: tuple[int, int], memory_format: torch.memory_format
) -> None:
    x_1Kyx = torch.randn(1, 5, *here).contiguous(memory_format=memory_format)
    expected = F.interpolate(x_1Kyx, size=there, mode="bilinear", align_corners=False)[0]
    for rows in (1, 4, there[0]):
        bands = [(first, min(first + rows, there[0])) for first in range(0, there[0], rows)]
        found = torch.cat([row_bands.resized_rows(x_1Kyx[0], there, *band) for band in bands], dim=1)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["linear", "bifpn1", "m2f-pd1-td3"])
def test_labels_are_the_largest_of_the_scores_and_of_raw_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)  # with maps of several classes
    pyramid = pyramid_of(16)
    settings = {"width": 32} if name != "linear" else {}
    head = build_head(name, "segmentation", pyramid, CLASSES, **settings).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    features, valid = random_features(pyramid, 2, (96, 128)), [(90, 128), (96, 70)]
    sizes = [(240, 333), (61, 40)]
    monkeypatch.setattr(row_bands, "BAND_BYTES", 40_000)
    seen = set()
    with torch.no_grad():
        scores = head.predict(features, valid, sizes)
        for scores_KYX, bands, again, found in zip(
            scores,
            head.predict_bands(features, valid, sizes),
            head.predict_bands(features, valid, sizes),
            head.predict_labels(features, valid, sizes),
            strict=True,
        ):
            parts = list(bands)
            assert len(parts) > 1, "in more than one piece"
            torch.testing.assert_close(torch.cat(parts, dim=1), scores_KYX, rtol=1e-4, atol=1e-5)
            raw_KYX = torch.cat(list(again.raw), dim=1)
            score_1YX = scores_KYX.gather(0, raw_KYX.argmax(0, keepdim=True))
            torch.testing.assert_close(score_1YX[0], scores_KYX.amax(0), rtol=1e-6, atol=0)
            assert found.labels_YX.dtype == torch.uint8
            assert torch.equal(found.labels_YX.long(), scores_KYX.argmax(0))
            expected = (scores_KYX.amax(0) / scores_KYX.sum(0)).mean()
            assert found.mean_confidence == pytest.approx(float(expected), rel=1e-5)
            seen |= set(found.labels_YX.unique().tolist())
    assert len(seen) > 1, "a map of one class proves nothing"


@pytest.mark.parametrize("classes", [1, 3, 255])
def test_the_best_class_is_the_first_of_equals(classes: int) -> None:
    scores_KrX = torch.randint(0, 3, (classes, 9, 11), generator=torch.Generator().manual_seed(0)).float()
    labels_rX, best_rX = row_bands.best_class(scores_KrX)
    assert torch.equal(labels_rX.long(), scores_KrX.argmax(0))
    assert torch.equal(best_rX, scores_KrX.amax(0))
