"""What every registered backbone promises, without its weights; a new row needs no test code."""

import json

import pytest

from extract.backbones.registry import backbone_card, backbone_names

every_backbone = pytest.mark.parametrize("name", backbone_names())


@every_backbone
def test_a_card_says_what_the_backbone_gives(name: str) -> None:
    card = backbone_card(name)
    assert card.model == name and len(card.pyramid.names) >= 2
    strides = [level.stride_px for level in card.pyramid]
    assert strides == sorted(set(strides)) and all(level.channels > 0 for level in card.pyramid)
    assert all(0 < value < 1 for value in (*card.mean, *card.std))
    identity = card.identity(weights_sha256="ab" * 32, precision="fp32")
    assert identity == json.loads(json.dumps(identity)) and "package" not in identity
    assert identity["mean"] == list(card.mean) and identity["std"] == list(card.std)


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no backbone 'swinv3'; available: swinv2-t, .*timm:<id>"):
        backbone_card("swinv3")
    with pytest.raises(ValueError, match=r"read by its weights: pass timm:<id> .* --weights model\.safetens"):
        backbone_card("hf:facebook/dinov2-small")


def test_the_window_rule_may_be_given_by_place() -> None:
    by_place, by_name = (
        backbone_card("swinv2-t", {}, ("p5",), "cover"),
        backbone_card("swinv2-t", {}, ("p5",), window_rule="cover"),
    )
    assert by_place == by_name != backbone_card("swinv2-t", {}, ("p5",))
