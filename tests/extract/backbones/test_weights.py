"""Weights from files of every origin: equal outputs and digests, or an error that lists what is wrong."""

import json
import logging
import math
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from extract.backbones.loading import (
    WeightsMismatch,
    WeightsUnavailable,
    backbone_card,
    build_trunk,
    load_backbone,
    weights_sha256,
)
from extract.backbones.weights import BUNDLED, draw_parameter, get_weights, tensors_sha256
from extract.swin.timm_swin import probe
from tests.extract.backbones import checkpoint_files
from tests.extract.backbones.small import SMALL, SMALL_GIANT, images

GIANT = {**SMALL_GIANT, "window_size": [8, 8, 8, 4]}


def drawn(card):
    return dict(get_weights(card, "random:3", probe(card.timm_id, card.constructor_args)).tensors)


def assert_loads(card, path):
    reference = load_backbone(card, "random:3")
    loaded = load_backbone(card, str(path))
    assert loaded.weights_sha256 == reference.weights_sha256 == weights_sha256(card, str(path))
    batch = images(1, (64, 96))
    expected = reference(*batch)
    for name, level in loaded(*batch).items():
        assert torch.equal(level, expected[name])


@pytest.mark.parametrize("write", checkpoint_files.V2_WRITERS)
def test_every_format_gives_equal_outputs(tmp_path, write):
    card = backbone_card("swinv2-t", SMALL)
    assert_loads(card, write(drawn(card), tmp_path))


def test_esvit_loads_into_swin_v1(tmp_path):
    card = backbone_card("timm:swin_tiny_patch4_window7_224", SMALL)
    assert_loads(card, checkpoint_files.esvit(drawn(card), tmp_path))


@pytest.mark.parametrize("model", ["timm:resnet18", "timm:convnext_atto"])
def test_a_published_classifier_is_dropped(tmp_path, model):
    card = backbone_card(model)
    tensors = drawn(card)
    classifier = {"timm:resnet18": "fc", "timm:convnext_atto": "head.fc"}[model]
    save_file({**tensors, f"{classifier}.weight": torch.zeros(9, 8)}, tmp_path / "model.safetensors")
    assert_loads(card, tmp_path / "model.safetensors")


def test_a_reduced_giant_runs_from_sharded_safetensors(tmp_path):
    card = backbone_card("swinv2-g", GIANT)
    assert_loads(card, checkpoint_files.sharded_folder(drawn(card), tmp_path))
    assert card.identity(weights_sha256="0" * 64, precision="fp32")["args"]["depths"] == [2, 2, 7, 2]


@pytest.mark.slow
def test_a_giant_512_wide_runs_from_sharded_safetensors(tmp_path):
    """Two blocks a stage at the paper's width, 420M parameters, and its window of 40."""
    card = backbone_card("swinv2-g", {"depths": [2, 2, 2, 2]})
    assert_loads(card, checkpoint_files.sharded_folder(drawn(card), tmp_path))


def test_float16_files_are_cast_up(tmp_path):
    card = backbone_card("swinv2-nano")
    halves = {name: tensor.half() for name, tensor in drawn(card).items()}
    save_file(halves, tmp_path / "half.safetensors")
    save_file({name: tensor.float() for name, tensor in halves.items()}, tmp_path / "float.safetensors")
    half, full = (load_backbone(card, str(tmp_path / f"{name}.safetensors")) for name in ("half", "float"))
    assert half.weights_sha256 != full.weights_sha256
    batch = images(1, (64, 64))
    assert all(torch.equal(a, b) for a, b in zip(half(*batch).values(), full(*batch).values(), strict=True))


def test_a_trained_trunk_loads_as_it_was_saved(tmp_path):
    """What pretraining saves is what extraction loads."""
    card = backbone_card("swinv2-nano")
    trunk = build_trunk(card, num_classes=7)
    save_file({k: v.half() for k, v in trunk.state_dict().items()}, tmp_path / "nano.safetensors")
    assert (
        load_backbone(card, str(tmp_path / "nano.safetensors"))(*images(1, (64, 64)))["p5"].isfinite().all()
    )


def test_the_bundled_nano_is_small_and_loads():
    assert BUNDLED.stat().st_size < 4 << 20
    backbone = load_backbone(backbone_card("swinv2-nano"))
    expected = {name: value for name, value in load_file(BUNDLED).items() if not name.startswith("head.")}
    assert backbone.weights_sha256 == tensors_sha256(expected)


@pytest.mark.parametrize("change", ["missing", "unexpected", "reshaped"])
def test_differences_are_listed(tmp_path, change):
    card = backbone_card("swinv2-t", SMALL)
    tensors = drawn(card)
    if change == "missing":
        del tensors["layers.2.blocks.1.mlp.fc1.bias"]
    elif change == "unexpected":
        tensors["layers.2.blocks.9.mlp.fc1.bias"] = torch.zeros(1)
    else:
        tensors["norm.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    listed = {
        "missing": r"1 missing: layers\.2\.blocks\.1\.mlp\.fc1\.bias\.",
        "unexpected": r"1 unexpected: layers\.2\.blocks\.9\.mlp\.fc1\.bias\.",
        "reshaped": r"1 of another shape: norm\.bias is \(3,\), the model's is \(256,\)",
    }
    with pytest.raises(WeightsMismatch, match=listed[change]):
        load_backbone(card, str(tmp_path / "model.safetensors"))


def test_weights_of_another_model_are_refused(tmp_path):
    small = drawn(backbone_card("swinv2-t", SMALL))
    path = checkpoint_files.microsoft(small, tmp_path)
    with pytest.raises(WeightsMismatch, match=r"missing: .*and \d+ more.*--model-args"):
        load_backbone(backbone_card("swinv2-s"), str(path))


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"model": {}, "payload": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="holds more than tensors and was not loaded"):
        load_backbone(backbone_card("swinv2-nano"), str(tmp_path / "hostile.pth"))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(), protocol=2))
    (tmp_path / "owned").unlink(missing_ok=True)
    with pytest.raises(ValueError):
        load_backbone(backbone_card("swinv2-nano"), str(tmp_path / "plain.pth"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all, only text" * 9, b"text" * 9, bytes(99)])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        load_backbone(backbone_card("swinv2-nano"), str(tmp_path / name))


def test_a_truncated_file_is_named(tmp_path):
    card = backbone_card("swinv2-nano")
    for write in (checkpoint_files.microsoft, checkpoint_files.safetensors):
        path = write(drawn(card), tmp_path)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(ValueError, match=path.name):
            load_backbone(card, str(path))


def test_one_changed_byte_of_a_pickle_is_noticed(tmp_path):
    """torch.load itself compares no checksum."""
    card = backbone_card("swinv2-nano")
    path = checkpoint_files.bare(drawn(card), tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.bin is not a complete checkpoint: Bad CRC-32"):
        load_backbone(card, str(path))


def test_a_pickle_without_checksums_loads(tmp_path):
    card = backbone_card("swinv2-nano")
    torch.serialization.set_crc32_options(False)
    try:
        path = checkpoint_files.bare(drawn(card), tmp_path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert weights_sha256(card, str(path)) == weights_sha256(card, "random:3")


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_file_that_is_no_checkpoint_shows_its_first_bytes(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(
        ValueError, match=r"not a complete checkpoint.*42 bytes, beginning with b'version https"
    ) as e:
        weights_sha256(backbone_card("swinv2-nano"), str(tmp_path / name))
    assert "more than tensors" not in str(e.value)


def test_a_refused_pickle_is_not_recommended(tmp_path):
    """torch's own text says how to load it without checks."""

    class Hostile:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/owned",))

    torch.save({"model": {}, "payload": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(
        ValueError, match=r"loaded: unsupported GLOBAL posix\.system .*blocked\. If"
    ) as caught:
        weights_sha256(backbone_card("swinv2-nano"), str(tmp_path / "hostile.pth"))
    assert "weights_only" not in str(caught.value)


def test_a_damaged_shard_is_named(tmp_path):
    card = backbone_card("swinv2-nano")
    index = checkpoint_files.sharded_index(drawn(card), tmp_path)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"model-00002-of-00003\.safetensors is not a complete checkpoint"):
        weights_sha256(card, str(index))


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[]", b"{", b'{"weight_map": [1]}', b'{"weight_map": {"a": 1}}']
)
def test_a_damaged_index_is_named(tmp_path, content):
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json( is not a complete checkpoint|: expected)"):
        weights_sha256(backbone_card("swinv2-nano"), str(index))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"state_dict": {f"model.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {"model": {"state_dict": tensors}},
        lambda tensors: {"module": tensors},
        lambda tensors: {"model": {"name": "swin"}, "state_dict": tensors},
    ],
    ids=["lightning", "nested", "deepspeed", "a model without tensors beside"],
)
@pytest.mark.parametrize("name", ["last.ckpt", "CHECKPOINT.PTH", "best.pth.tar"])
def test_wrappers_of_training_scripts(tmp_path, wrap, name):
    card = backbone_card("swinv2-nano")
    torch.save(wrap(drawn(card)), tmp_path / name)
    assert weights_sha256(card, str(tmp_path / name)) == weights_sha256(card, "random:3")


def test_names_that_are_no_text_are_listed(tmp_path):
    torch.save({1: torch.zeros(2)}, tmp_path / "model.pth")
    with pytest.raises(WeightsMismatch, match="1 unexpected: 1"):
        weights_sha256(backbone_card("swinv2-nano"), str(tmp_path / "model.pth"))


def test_quantised_weights_are_refused(tmp_path):
    card = backbone_card("swinv2-nano")
    tensors = drawn(card)
    tensors["norm.weight"] = tensors["norm.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsMismatch, match=r"1 not in float16, .*: norm\.weight is int8"):
        weights_sha256(card, str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("kind", ["meta", "sparse"])
def test_tensors_without_values_are_refused(tmp_path, kind):
    card = backbone_card("swinv2-nano")
    tensors = drawn(card)
    bias = tensors["norm.bias"]
    tensors["norm.bias"] = bias.to("meta") if kind == "meta" else bias.to_sparse()
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(WeightsMismatch, match=f"1 without values: norm.bias is {kind}"):
        weights_sha256(card, str(tmp_path / "model.pth"))


def test_weights_that_are_not_finite_are_refused(tmp_path):
    """Else every record would be skipped for it, one by one."""
    card = backbone_card("swinv2-nano")
    tensors = drawn(card)
    tensors["norm.weight"][3] = math.nan
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"not finite in 1 of \d+ tensors: norm\.weight"):
        weights_sha256(card, str(tmp_path / "model.safetensors"))


def coordinates(window, pretrained):
    """The table of an official file. microsoft/Swin-Transformer:models/swin_transformer_v2.py"""
    offsets = torch.arange(1 - window, window, dtype=torch.float32) * 8 / (pretrained - 1)
    one = offsets.sign() * (offsets.abs() + 1).log2() / 3
    return torch.stack(torch.meshgrid(one, one, indexing="ij"), -1)[None]


@pytest.mark.parametrize(("window", "pretrained", "fits"), [(8, 8, True), (16, 8, True), (16, 16, False)])
def test_coordinates_relative_to_another_window_are_refused(tmp_path, window, pretrained, fits):
    """Shapes do not show it: weights of windows of 16 fit a model whose coordinates are relative to 8."""
    card = backbone_card("swinv2-t", SMALL)
    table = {"layers.1.blocks.0.attn.relative_coords_table": coordinates(window, pretrained)}
    torch.save({"model": {**drawn(card), **table}}, tmp_path / "swinv2.pth")
    if fits:
        assert weights_sha256(card, str(tmp_path / "swinv2.pth")) == weights_sha256(card, "random:3")
        return
    with pytest.raises(
        ValueError, match=r"relative to windows of 16x16 cells, the model's coordinates to 8x8"
    ):
        weights_sha256(card, str(tmp_path / "swinv2.pth"))
    as_made = backbone_card("swinv2-t", {**SMALL, "pretrained_window_sizes": [16, 16, 16, 16]})
    assert weights_sha256(as_made, str(tmp_path / "swinv2.pth")) == weights_sha256(card, "random:3")


def test_an_index_stays_in_its_folder_and_names_what_is_there(tmp_path):
    card = backbone_card("swinv2-nano")
    index = checkpoint_files.sharded_index(drawn(card), tmp_path)
    whole = json.loads(index.read_text())
    for shard, message in (
        ("../model.safetensors", "outside its folder"),
        ("gone.safetensors", "missing beside"),
    ):
        index.write_text(json.dumps({"weight_map": {**whole["weight_map"], "norm.bias": shard}}))
        with pytest.raises(ValueError, match=message):
            load_backbone(card, str(index))
    index.write_text(
        json.dumps({"weight_map": {**whole["weight_map"], "more": whole["weight_map"]["norm.bias"]}})
    )
    with pytest.raises(ValueError, match="do not hold the same tensors: more"):
        load_backbone(card, str(index))
    index.write_text("{}")
    with pytest.raises(ValueError, match=index.name):
        load_backbone(card, str(index))


def test_a_missing_path_says_what_is_expected(tmp_path):
    with pytest.raises(WeightsUnavailable, match=r"no weights at .*gone\.pth.*random:SEED"):
        load_backbone(backbone_card("swinv2-t"), str(tmp_path / "gone.pth"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"0 indices and 0 \.safetensors"):
        load_backbone(backbone_card("swinv2-t"), str(tmp_path / "empty"))


def test_one_changed_byte_is_another_digest(tmp_path):
    card = backbone_card("swinv2-nano")
    tensors = drawn(card)
    before = tensors_sha256(tensors)
    changed = tensors["layers.1.blocks.0.mlp.fc1.weight"].numpy().view(np.uint8)
    changed[5, 7] ^= 1
    assert tensors_sha256(tensors) != before


def test_random_weights_warn_loudly_and_depend_on_the_seed(caplog):
    card = backbone_card("swinv2-nano")
    with caplog.at_level(logging.WARNING, "extract.backbones.weights"):
        digests = [weights_sha256(card, source) for source in ("random:0", "random:0", "random:1")]
    assert digests[0] == digests[1] != digests[2]
    assert "RANDOM WEIGHTS" in caplog.text


def test_random_weights_are_the_same_on_every_machine():
    """Uniform draws of a Mersenne twister, scaled: no function whose last bit depends on the processor."""
    assert weights_sha256(backbone_card("swinv2-nano"), "random:0") == RANDOM_NANO_SHA256


RANDOM_NANO_SHA256 = "2db0d5f80aa67fc6dd232aa8c980a0a110507259dd0f13411781e153f46359e7"


def test_each_parameter_has_a_generator_of_its_own():
    card, deeper = (
        backbone_card("swinv2-t", SMALL),
        backbone_card("swinv2-t", {**SMALL, "depths": [2, 2, 6, 2]}),
    )
    few, many = drawn(card), drawn(deeper)
    assert all(torch.equal(many[name], tensor) for name, tensor in few.items())
    same_shape = [name for name in few if name.endswith("norm1.weight") and "layers.0" in name]
    assert not torch.equal(few[same_shape[0]], few[same_shape[1]])


def test_random_res_post_norms_are_around_one():
    weight = draw_parameter("0", "layers.0.blocks.0.norm1.weight", torch.empty(4096))
    assert 0.99 < float(weight.mean()) < 1.01 and 0.05 < float(weight.std()) < 0.2
    tensors = drawn(backbone_card("swinv2-t", SMALL))
    assert all(t.std() > 0 for name, t in tensors.items() if t.numel() > 1), (
        "a constant parameter hides errors"
    )


@pytest.mark.parametrize("source", ["random:", "random"])
def test_random_needs_a_seed(source):
    with pytest.raises((ValueError, WeightsUnavailable), match="random:SEED"):
        load_backbone(backbone_card("swinv2-nano"), source)
