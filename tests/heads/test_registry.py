"""Names, settings and initial weights of heads."""

import pytest
import torch

from heads import HeadError, build_head, head_names, head_settings
from heads.necks.channel_dropout import drop_channels
from tests.heads.pyramids import pyramid_of


def test_names() -> None:
    assert {"linear", "fpn", *(f"bifpn{n}" for n in range(1, 10))} <= set(head_names("segmentation"))


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(HeadError, match=r"no head 'bifpn10'.*linear.*bifpn9"):
        build_head("bifpn10", "segmentation", pyramid_of(8), 3)
    with pytest.raises(HeadError, match=r"'sorting'.*segmentation"):
        head_names("sorting")
    with pytest.raises(HeadError, match=r"no setting depth, widht; available: neck, neck_depth, width"):
        build_head("fpn", "segmentation", pyramid_of(8), 3, widht=8, depth=3)
    with pytest.raises(HeadError, match="num_classes is 0"):
        build_head("linear", "segmentation", pyramid_of(8), 0)


def test_presets_differ_only_in_their_settings() -> None:
    five = head_settings("bifpn5", "segmentation")
    assert (five.neck, five.neck_depth) == ("bifpn", 5)
    assert head_settings("fpn", "segmentation").width == 512


def test_only_the_levels_needed_are_read() -> None:
    pyramid = pyramid_of(8, levels=5)
    assert build_head("fpn", "segmentation", pyramid, 3, width=8).levels == ("p2", "p3", "p4", "p5")


def test_seeded_initial_weights() -> None:
    def weights(name: str, seed: int | None) -> torch.Tensor:
        head = build_head(name, "segmentation", pyramid_of(8), 3, seed=seed, width=8)
        return torch.cat([p.detach().flatten() for p in head.pooling.parameters()])

    before = torch.get_rng_state()
    first = weights("fpn", 1)
    assert torch.equal(torch.get_rng_state(), before), "a seeded head leaves torch's generator alone"
    assert torch.equal(first, weights("fpn", 1))
    assert not torch.equal(first, weights("fpn", 2))
    assert not torch.equal(first, weights("bifpn1", 1)), "heads of one run must not share first weights"
    assert not torch.equal(weights("fpn", None), weights("fpn", None))


def test_channel_dropout() -> None:
    x = torch.rand(64, 100, 2, 3) + 1
    generator = torch.Generator().manual_seed(3)
    y = drop_channels(x, 0.25, generator)
    kept = y != 0
    assert torch.equal(kept, kept[:, :, :1, :1].expand_as(kept)), "whole channels"
    torch.testing.assert_close(y[kept], x[kept] / 0.75)
    assert abs(kept[:, :, 0, 0].float().mean() - 0.75) < 0.03
    assert torch.equal(y, drop_channels(x, 0.25, torch.Generator().manual_seed(3)))
    assert drop_channels(x, 0.0, None) is x
