"""The tiny backbone that fills the stores of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from extract.backbones import BackboneCard, FrozenBackbone, backbone_card, load_backbone


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, which would fight over two processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def card() -> BackboneCard:
    return backbone_card("swinv2-nano")


@pytest.fixture(scope="session")
def backbone(card: BackboneCard) -> FrozenBackbone:
    return load_backbone(card, "random:0", precision="fp32")
