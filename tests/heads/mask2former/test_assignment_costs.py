"""Costs of queries and classes beside the sums over pairs that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from heads.mask2former import matching


@pytest.mark.parametrize("points", [5, 64, 200])
@pytest.mark.parametrize("loudness", [1.0, 300.0])
def test_mask_costs_are_entropy_and_dice_of_every_pair(points: int, loudness: float) -> None:
    """Loud logits saturate the sigmoid; points are no multiple of what a product takes."""
    generator = torch.Generator().manual_seed(0)
    embeddings_NRC = torch.randn(2, 7, 4, generator=generator) * loudness
    features_NCI = torch.randn(2, 4, points, generator=generator)
    masks_NKI = torch.rand(2, 3, points, generator=generator)
    found_NRK = matching._mask_costs(embeddings_NRC, features_NCI, masks_NKI)
    logits_NRI = embeddings_NRC.double() @ features_NCI.double()
    for image in range(2):
        for row in range(7):
            for label in range(3):
                x, t = logits_NRI[image, row], masks_NKI[image, label].double()
                shares = x.sigmoid()
                dice = 1 - (2 * (shares * t).sum() + 1) / (shares.sum() + t.sum() + 1)
                expected = 5 * F.binary_cross_entropy_with_logits(x, t) + 5 * dice
                assert float(found_NRK[image, row, label]) == pytest.approx(
                    float(expected), rel=2e-5, abs=1e-5
                )


def test_every_logit_goes_through_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sigmoid: a softplus of every logit took a quarter of the loss."""
    monkeypatch.setattr(F, "softplus", lambda *_: pytest.fail("softplus of every logit"))
    monkeypatch.setattr(matching, "_sum_of_logs", _checked(matching._sum_of_logs))
    found = matching._mask_costs(torch.randn(1, 2, 3), torch.randn(1, 3, 130), torch.rand(1, 2, 130))
    assert found.isfinite().all()


def _checked(sum_of_logs):
    def run(x_NRI):
        assert x_NRI.min() >= 0.5 and x_NRI.max() <= 1
        torch.testing.assert_close(sum_of_logs(x_NRI), x_NRI.log().sum(-1, keepdim=True))
        return sum_of_logs(x_NRI)

    return run
