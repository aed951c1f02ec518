"""The tiny backbone that fills the stores of these tests."""

from __future__ import annotations

import pytest

from extract.backbones.loading import BackboneCard, FrozenBackbone, backbone_card, load_backbone
from tests.one_thread import one_thread  # noqa: F401 - a fixture of this folder


@pytest.fixture(scope="session")
def card() -> BackboneCard:
    return backbone_card("swinv2-nano")


@pytest.fixture(scope="session")
def backbone(card: BackboneCard) -> FrozenBackbone:
    return load_backbone(card, "random:0", precision="fp32")
