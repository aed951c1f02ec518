"""The pixel loss against torch's cross entropy on full-size logits."""

import pytest
import torch
import torch.nn.functional as F

import heads.segmentation.pixel_loss
from heads.contract import HeadError
from heads.segmentation.pixel_loss import pixel_cross_entropy
from tests.heads.pyramids import random_labels


def plain(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    fine = F.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(fine, labels.long(), ignore_index=255)


def labels_of(images: int, hw: tuple[int, int], classes: int) -> torch.Tensor:
    return torch.stack([target["labels"] for target in random_labels(images, hw, classes)])


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 6 * 30 * 45 * 2, 192 << 20], ids=["one", "two", "all"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_plain_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, memory_format: torch.memory_format
) -> None:
    monkeypatch.setattr(heads.segmentation.pixel_loss, "_CPU_BAND_BYTES", chunk_bytes)
    logits = (torch.randn(5, 6, 8, 12) * 8).contiguous(memory_format=memory_format)
    labels = labels_of(5, (30, 45), 6)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = pixel_cross_entropy(ours, labels), plain(theirs, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_half_precision_scores_and_extreme_scores() -> None:
    logits = torch.randn(2, 4, 4, 4).bfloat16().requires_grad_()
    labels = labels_of(2, (16, 16), 4)
    loss = pixel_cross_entropy(logits, labels)
    torch.testing.assert_close(loss, plain(logits, labels), rtol=1e-5, atol=1e-6)
    loss.backward()
    assert logits.grad.dtype == torch.bfloat16
    far = (torch.randn(2, 4, 4, 4) * 1e4).requires_grad_()
    torch.testing.assert_close(pixel_cross_entropy(far, labels), plain(far, labels))


def test_nothing_labelled_gives_zero_with_gradients() -> None:
    logits = torch.randn(2, 4, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((2, 16, 16), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_no_gradient_work_without_gradients() -> None:
    logits = torch.randn(2, 4, 4, 4, requires_grad=True)
    labels = labels_of(2, (16, 16), 4)
    with torch.no_grad():
        loss = pixel_cross_entropy(logits, labels)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, plain(logits, labels).detach())


def test_label_outside_the_classes() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[0, 3, 3] = 7
    with pytest.raises(HeadError, match=r"label 7, expected 0\.\.3 or 255"):
        pixel_cross_entropy(torch.randn(1, 4, 2, 2), labels)
