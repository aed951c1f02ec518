"""Exported programs (.pt2, .onnx) give what `load_run` gives, of real and of made views, or are refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from pipelines import load_run
from pipelines.__main__ import main
from pipelines.errors import UsageError
from pipelines.export.outputs import inside, resized_valid
from tests.pipelines.extracted import CROP_PX


@pytest.fixture(scope="module")
def view(data: Path) -> np.ndarray:
    """A photograph of the test views' own size, which `load_run` does not resize."""
    with Image.open(next((data / "images" / "validation").iterdir())) as image:
        return np.asarray(image.convert("RGB").resize((CROP_PX, CROP_PX)))


def export(run: Path, out: Path, *more: str) -> int:
    words = ["export", "--run", str(run), "--format", out.suffix[1:], "--size", str(CROP_PX)]
    return main([*words, "--out", str(out), *more])


@pytest.mark.ci
def test_a_pt2_file_is_the_run(run: Path, view: np.ndarray, tmp_path: Path, capsys) -> None:
    out = tmp_path / "shared" / "model.pt2"
    assert export(run, out) == 0
    printed = capsys.readouterr().out
    assert "inputs images, valid_hw; outputs scores" in printed and "64x64 px" in printed
    extra = {"permafrost.json": ""}
    model = torch.export.load(out, extra_files=extra).module()
    expected = load_run(run)([view])[0]
    pixels = torch.from_numpy(view.copy()).permute(2, 0, 1)
    for count in (1, 5):  # any number of images
        found = model(pixels.expand(count, -1, -1, -1), torch.full((count, 2), CROP_PX))["scores"]
        assert found.shape == (count, *expected.shape)
        assert (found - expected).abs().max() < 1e-4
    classes = list(load_run(run).class_names)
    assert json.loads(extra["permafrost.json"])["class_names"] == classes
    config = json.loads((out.parent / "config.json").read_text())
    assert config["class_names"] == classes and config["size"] == [CROP_PX, CROP_PX]
    assert "torch.export.load" in (out.parent / "README.md").read_text()


@pytest.mark.ci
def test_an_onnx_file_is_the_run(run: Path, view: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    assert export(run, out) == 0
    onnx.checker.check_model(out)
    session = onnxruntime.InferenceSession(out)
    assert [each.name for each in session.get_inputs()] == ["images", "valid_hw"]
    pixels = np.stack([view.transpose(2, 0, 1)] * 3)
    valid = np.array([[CROP_PX, CROP_PX], [40, CROP_PX], [CROP_PX, 32]])
    (scores,) = session.run(["scores"], {"images": pixels, "valid_hw": valid})
    assert np.abs(scores[0] - load_run(run)([view])[0].numpy()).max() < 1e-4
    assert not scores[1, :, 40:].any() and not scores[2, :, :, 32:].any()  # padding has no class


@pytest.mark.ci
def test_a_head_alone_reads_levels(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "head.onnx"
    assert export(run, out, "--part", "head") == 0
    session = onnxruntime.InferenceSession(out)
    assert [each.name for each in session.get_inputs()] == ["p2", "p3", "p4", "p5", "valid_hw"]
    assert "which is not part of the file" in (tmp_path / "README.md").read_text()


def test_what_a_format_does_not_take_is_refused(run: Path, tmp_path: Path, capsys) -> None:
    refused = {
        ("model.onnx", "--format", "pt2"): "expected a name that ends in .pt2",
        ("model.pt2", "--size", "64x"): "--size 64x",
        ("model.pt2", "--batch-size", "4"): "the number of images is free",
        ("head.safetensors", "--size", "64"): "--size: a file of --format safetensors holds",
    }
    for (name, *more), reason in refused.items():
        words = ["export", "--run", str(run), "--format", name.split(".")[1], "--out", str(tmp_path / name)]
        assert main([*words, *more]) == 2
        assert reason in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(64, 96), (65, 33)])
def test_valid_parts_are_resized_as_images_by_themselves(size: tuple[int, int]) -> None:
    valid = [(size[0], size[1]), (17, 33), (64, 5)]
    cells = [(math.ceil(y / 4), math.ceil(x / 4)) for y, x in valid]
    maps = torch.randn(3, 2, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    found = resized_valid(maps, torch.tensor(cells), torch.tensor(valid), size)
    shown = inside(torch.tensor(valid), size)
    for row, ((y, x), (rows, columns)) in enumerate(zip(valid, cells, strict=True)):
        alone = torch.nn.functional.interpolate(
            maps[row : row + 1, :, :rows, :columns], size=(y, x), mode="bilinear", align_corners=False
        )
        assert (found[row, :, :y, :x] - alone[0]).abs().max() < 1e-5
        assert shown[row, :y, :x].all() and shown[row].sum() == y * x


def test_a_head_of_a_kind_of_its_own_is_refused() -> None:
    from heads.contract import Head
    from pipelines.export.outputs import outputs_of

    class Own(Head):
        losses = predict = target_names = None  # type: ignore[assignment]

    with pytest.raises(UsageError, match="Own has an interface of its own"):
        outputs_of(Own.__new__(Own))
