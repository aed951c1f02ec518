"""Pooling over the valid part only: each image as if it were alone and unpadded."""

import pytest
import torch
import torch.nn.functional as F

from heads.segmentation.pyramid_pooling import PyramidPooling, average_matrix, resize_matrix


@pytest.mark.parametrize("valid", range(1, 20))
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_matrices_equal_torchs_pooling_and_resizing(valid: int, bins: int) -> None:
    """Also for maps with fewer cells than bins."""
    size = 19
    x = torch.randn(2, 3, valid, 1, generator=torch.Generator().manual_seed(valid), dtype=torch.float64)
    lengths = torch.tensor([valid])
    average = average_matrix(lengths, size, bins)[0].double()
    expected = F.adaptive_avg_pool2d(x, (bins, 1))
    assert average[:, valid:].abs().max() == 0 if valid < size else True
    torch.testing.assert_close(
        torch.einsum("sy,ncyx->ncsx", average[:, :valid], x), expected, rtol=1e-6, atol=1e-6
    )
    resize = resize_matrix(lengths, size, bins)[0].double()
    back = F.interpolate(expected, size=(valid, 1), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        torch.einsum("ys,ncsx->ncyx", resize[:valid], expected), back, rtol=1e-5, atol=1e-6
    )
    assert torch.equal(resize[valid:], resize[valid - 1 : valid].expand(size - valid, bins))


@pytest.mark.parametrize("norm", ["bn", "none"])
def test_mixed_valid_sizes_equal_each_image_alone(norm: str) -> None:
    """The 3x3 after the pooling sees padding, so cells a cell away from it are compared."""
    torch.manual_seed(0)
    pooling = PyramidPooling(5, 8, norm).eval()
    sizes = [(7, 9), (7, 4), (2, 9), (1, 1), (5, 6)]
    x = torch.randn(len(sizes), 5, 7, 9)
    together = pooling(x, sizes)
    for row, (height, width) in enumerate(sizes):
        alone = pooling(x[row : row + 1, :, :height, :width], [(height, width)])[0]
        inner = (slice(None), slice(0, height - (height < 7)), slice(0, width - (width < 9)))
        torch.testing.assert_close(together[row][inner], alone[inner], rtol=1e-5, atol=1e-5)


def test_padding_content_does_not_reach_the_bins() -> None:
    torch.manual_seed(0)
    pooling = PyramidPooling(5, 8, "none")
    x = torch.randn(2, 5, 6, 6)
    changed = x.clone()
    changed[0, :, 4:] = 1e3
    before, after = pooling(x, [(4, 6), (6, 6)]), pooling(changed, [(4, 6), (6, 6)])
    torch.testing.assert_close(before[0, :, :3], after[0, :, :3])
    assert not torch.allclose(pooling(x, [(6, 6)] * 2)[0, :, :3], pooling(changed, [(6, 6)] * 2)[0, :, :3])


def test_gradients_of_mixed_valid_sizes() -> None:
    """Both paths give one gradient where every size is full but one."""
    torch.manual_seed(0)
    pooling = PyramidPooling(5, 8, "none")
    x = torch.randn(2, 5, 6, 8)
    full, mixed = x.clone().requires_grad_(), x.clone().requires_grad_()
    pooling(full, [(6, 8), (6, 8)])[0].square().sum().backward()
    pooling(mixed, [(6, 8), (3, 8)])[0].square().sum().backward()
    torch.testing.assert_close(full.grad[0], mixed.grad[0], rtol=1e-4, atol=1e-5)
