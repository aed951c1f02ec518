"""Checkpoints of plain ViTs by origin: transformers' models give equal features, others equal tensors."""

import re

import pytest
import torch
from safetensors.torch import save_file

from extract.backbones.loading import WeightsMismatch, backbone_card, load_backbone
from extract.backbones.weights import get_weights
from extract.swin.timm_swin import probe
from tests.extract.backbones.small import images, worst_error
from tests.extract.backbones.test_levels import BEIT, CLIP, DINOV3, REGISTERS, SIGLIP, TINY, VIT

DINOV2 = ("timm:vit_small_patch14_dinov2", {**TINY, "img_size": 70})
DINOV3_BIASED = ("timm:vit_small_patch16_dinov3_qkvb", TINY)
SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 192}


def redrawn(model):
    """Every parameter drawn anew: layer scales of 1e-5 would hide what the blocks do."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = name.endswith("lambda1") or ("norm" in name and name.endswith("weight"))
            parameter.copy_(1 + 0.1 * noise if is_scale else 0.1 * noise)
    return model.eval()


def theirs(name):
    """A small model of transformers, and the last tokens before its norm and after it."""
    transformers = pytest.importorskip("transformers")
    mlp = {} if name.startswith("Dinov2") else {"intermediate_size": 192}
    mlp |= {"num_register_tokens": 4} if name == "DINOv3ViT" else {}
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"} | mlp
    square = {"image_size": 64, "patch_size": 16}
    if name.startswith("Dinov2"):
        square = {"image_size": 70, "patch_size": 14}
    config = getattr(transformers, f"{name}Config")(**sizes, **square)
    model = getattr(transformers, {"SiglipVision": "SiglipVisionModel"}.get(name, f"{name}Model"))(config)
    return redrawn(model)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "case", "prefix"),
    [
        ("Dinov2", DINOV2, "dinov2."),
        ("Dinov2WithRegisters", REGISTERS, ""),
        ("DINOv3ViT", DINOV3_BIASED, ""),
        ("SiglipVision", SIGLIP, "vision_model."),
        ("CLIPVision", CLIP, "vision_model."),
        ("ViT", VIT, "vit."),
    ],
)
@torch.inference_mode()
def test_transformers_files_give_its_features(tmp_path, name, case, prefix) -> None:
    """At the size that positions are of; and DINOv3, whose positions turn, at another one too."""
    model = theirs(name)
    tensors = {f"{prefix}{key}": value.contiguous() for key, value in model.state_dict().items()}
    if prefix:
        tensors["text_model.embeddings.token_embedding.weight"] = torch.zeros(3, 4)
        tensors["classifier.weight"] = torch.zeros(3, 4)
    save_file(tensors, tmp_path / "model.safetensors")
    args = dict(case[1])
    if name == "CLIPVision":
        args["act_layer"] = "quick_gelu"
    if name == "SiglipVision":
        args["act_layer"] = "gelu_tanh"
    names = ["b3n", *["cls3n"] * (name != "SiglipVision"), *["pooled"] * (name == "SiglipVision")]
    backbone = load_backbone(backbone_card(case[0], args, names), str(tmp_path / "model.safetensors"))
    patch_px = backbone.card.multiple_px
    for hw in [(case[1]["img_size"],) * 2, *[(48, 80)] * (name == "DINOv3ViT")]:
        pixels, valid = images(1, hw)
        x = backbone.normalise(pixels, valid).permute(0, 3, 1, 2)
        found, output = backbone(pixels, valid), model(pixel_values=x)
        last = output.last_hidden_state
        if name == "CLIPVision":  # its norm is for the class token alone
            last = model.get_submodule("post_layernorm")(last)
        cells = (hw[0] // patch_px) * (hw[1] // patch_px)
        expected = last[:, -cells:].unflatten(1, (hw[0] // patch_px, hw[1] // patch_px))
        assert worst_error(found["b3n"], expected) < 2e-5
        if "cls3n" in found:
            assert worst_error(found["cls3n"][:, 0, 0], last[:, 0]) < 2e-5
        else:
            assert worst_error(found["pooled"][:, 0, 0], output.pooler_output) < 2e-5


SMALL_VIT = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}


@pytest.mark.ci
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "model", "more", "hw"),
    [
        ("Dinov2", "vit_small_patch14_dinov2", {"image_size": 518, "patch_size": 14}, (518, 518)),
        (
            "DINOv3ViT",
            "vit_small_patch16_dinov3_qkvb",
            {"patch_size": 16, "num_register_tokens": 4, "intermediate_size": 1536},
            (512, 768),
        ),
        ("ViT", "vit_small_patch16_224", {"image_size": 224, "intermediate_size": 1536}, (224, 224)),
    ],
)
@torch.inference_mode()
def test_whole_models_at_users_sizes(tmp_path, name, model, more, hw) -> None:
    """ViT-S of twelve blocks as people run it; the norm's eps of transformers is the published one's."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**SMALL_VIT, **more)
    reference = redrawn(getattr(transformers, f"{name}Model")(config))
    tensors = {key: value.contiguous() for key, value in reference.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    card = backbone_card(f"timm:{model}", None, ["b12n", "cls12n"])
    backbone = load_backbone(card, str(tmp_path / "model.safetensors"))
    pixels, valid = images(1, hw)
    found = backbone(pixels, valid)
    x = backbone.normalise(pixels, valid).permute(0, 3, 1, 2)
    last = reference(pixel_values=x).last_hidden_state
    grid = (hw[0] // card.multiple_px, hw[1] // card.multiple_px)
    expected = last[:, -grid[0] * grid[1] :].unflatten(1, grid)
    assert worst_error(found["b12n"], expected) < 1e-4
    assert worst_error(found["cls12n"][:, 0, 0], last[:, 0]) < 1e-4


@pytest.mark.oracle
@torch.inference_mode()
def test_positions_resampled_as_transformers_does(tmp_path) -> None:
    """Dinov2 at another size: equal without antialias, several percent off with it."""
    model = theirs("Dinov2")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    pixels, valid = images(1, (56, 98))
    errors = {}
    for rule in ("dinov2", "timm"):
        card = backbone_card(*DINOV2, ["b3n"], pos_resample=rule)
        backbone = load_backbone(card, str(tmp_path / "model.safetensors"))
        x = backbone.normalise(pixels, valid).permute(0, 3, 1, 2)
        expected = model(pixel_values=x).last_hidden_state[:, 1:].unflatten(1, (4, 7))
        errors[rule] = worst_error(backbone(pixels, valid)["b3n"], expected)
        identity = card.identity(weights_sha256="", precision="fp32")
        assert identity.get("pos_resample") == ("dinov2" if rule == "dinov2" else None)
    assert errors["dinov2"] < 2e-5 < 1e-3 < errors["timm"]


def drawn(case):
    card = backbone_card(*case)
    return card, dict(get_weights(card, "random:3", probe(card.timm_id, card.constructor_args)).tensors)


def prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def dino(tensors):
    teacher = prefixed("module.backbone.", tensors) | {"module.head.mlp.0.weight": torch.zeros(3, 3)}
    return {
        "student": prefixed("module.", {k: torch.zeros_like(v) for k, v in tensors.items()}),
        "teacher": teacher,
    }


def mae(tensors):
    decoder = {"decoder_pos_embed": torch.zeros(1, 3), "decoder_blocks.0.norm1.weight": torch.zeros(3)}
    return {
        "model": {
            **tensors,
            **decoder,
            "mask_token": torch.zeros(1, 1, 3),
            "decoder_pred.bias": torch.zeros(3),
        }
    }


def mocov3(tensors):
    heads = {
        "module.base_encoder.head.0.weight": torch.zeros(3, 3),
        "module.predictor.0.weight": torch.zeros(3, 3),
    }
    momentum = prefixed("module.momentum_encoder.", {k: torch.zeros_like(v) for k, v in tensors.items()})
    return {"state_dict": prefixed("module.base_encoder.", tensors) | heads | momentum, "epoch": 300}


def ibot(tensors):
    return {"state_dict": {**tensors, "masked_embed": torch.zeros(1, 3)}}


def msn(tensors):
    target = prefixed("module.", tensors) | {"module.fc.fc1.weight": torch.zeros(3, 3)}
    return {"encoder": {}, "target_encoder": target, "prototypes": torch.zeros(3, 3)}


def deit(tensors):
    return {"model": {**tensors, "head.weight": torch.zeros(9, 3), "head_dist.weight": torch.zeros(9, 3)}}


def dinov2(tensors):
    """Meta's file: a class token of its own, under its own position."""
    named = {**tensors, "mask_token": torch.zeros(1, 3), "register_tokens": tensors["reg_token"]}
    position = torch.full((1, 1, 48), 0.5)
    named["pos_embed"] = torch.cat([position, tensors["pos_embed"]], 1)
    named["cls_token"] = tensors["cls_token"] - position
    del named["reg_token"]
    return named


def dinov2_training(tensors):
    return {
        "teacher": prefixed("backbone.", dinov2(tensors)) | {"dino_head.last_layer.weight": torch.zeros(3, 3)}
    }


def dinov3(tensors):
    """Meta's file: periods of the rotation, a mask of biases, which are 0."""
    rules = (("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma"), ("reg_token", "storage_tokens"))
    named = {}
    for name, tensor in tensors.items():
        for ours, official in rules:
            name = name.replace(ours, official)
        named[name] = tensor
    named |= {f"blocks.{i}.attn.qkv.bias": torch.zeros(144) for i in range(3)}
    named |= {f"blocks.{i}.attn.qkv.bias_mask": torch.full((144,), torch.nan) for i in range(3)}
    return {**named, "rope_embed.periods": torch.zeros(4), "mask_token": torch.zeros(1, 48)}


def beit(tensors):
    """Pretraining: one table of positions for all blocks, a norm that becomes the one of pooled vectors."""
    named = {
        name: tensor for name, tensor in tensors.items() if "fc_norm" not in name and "table" not in name
    }
    named |= {"norm.weight": tensors["fc_norm.weight"], "norm.bias": tensors["fc_norm.bias"]}
    table = {
        "rel_pos_bias.relative_position_bias_table": tensors["blocks.0.attn.relative_position_bias_table"]
    }
    other = {"lm_head.weight": torch.zeros(9, 3), "mask_token": torch.zeros(1, 1, 48)}
    return {"model": {**named, **table, **other, "rel_pos_bias.relative_position_index": torch.zeros(2, 2)}}


@pytest.mark.parametrize(
    ("write", "case"),
    [
        *((each, VIT) for each in (dino, mae, mocov3, ibot, msn, deit)),
        (dinov2, REGISTERS),
        (dinov2_training, REGISTERS),
        (dinov3, DINOV3),
        (beit, BEIT),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_files_of_other_origins_hold_the_same_tensors(tmp_path, write, case) -> None:
    card, tensors = drawn(case)
    if write is beit:  # one table in the file
        shared = tensors["blocks.0.attn.relative_position_bias_table"]
        tensors = {n: shared if re.search(r"bias_table$", n) else tensor for n, tensor in tensors.items()}
    torch.save(write(tensors), tmp_path / "model.pth")
    loaded = get_weights(card, str(tmp_path / "model.pth"), probe(card.timm_id, card.constructor_args))
    assert loaded.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(loaded.tensors[name], tensor, rtol=0, atol=1e-6)


def test_biases_that_a_dinov3_has_no_place_for_are_refused(tmp_path) -> None:
    card, tensors = drawn(DINOV3)
    named = dinov3(tensors)
    named["blocks.1.attn.qkv.bias"] = torch.ones(144)
    torch.save(named, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"has biases that are not 0.*_qkvb"):
        load_backbone(card, str(tmp_path / "model.pth"))


@pytest.mark.parametrize(
    ("names", "library"),
    [
        (["visual.transformer.resblocks.0.ln_1.weight", "visual.proj"], r"OpenAI's or open_clip's CLIP"),
        (["backbone.stages.0.blocks.0.attn.w_msa.qkv.weight"], r"OpenMMLab's Swin"),
        (["encoder.layers.encoder_layer_0.ln_1.weight"], r"torchvision's ViT"),
        (["layer1.0.conv1.weight", "layer1.0.bn1.bias"], r"a ResNet of torchvision or timm"),
    ],
)
def test_weights_of_another_library_are_named(tmp_path, names, library) -> None:
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "model.safetensors")
    expected = rf"names look like {library} \(.*the model's like a ViT of timm or Meta"
    with pytest.raises(WeightsMismatch, match=expected) as caught:
        load_backbone(backbone_card(*VIT), str(tmp_path / "model.safetensors"))
    assert len(str(caught.value)) < 700
