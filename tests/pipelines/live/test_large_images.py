"""The memory that `predict` takes for a photograph of 100 megapixels, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SIDES = (11_600, 8_700)
SCRIPT = r"""
import json, re, sys
from pathlib import Path
import torch
from extract.backbones.loading import backbone_card, load_backbone
from extract.datasets import view_recipe
from heads import build_head
from pipelines.live.run_model import RunModel
from pipelines.tasks import task_of

task, head_name, source, base = sys.argv[1:]
torch.set_num_threads(1)
card = backbone_card("swinv2-nano", {}, ("p2", "p3", "p4", "p5"))
backbone = load_backbone(card, "random:0", device=torch.device("cpu"), precision=None)
head = build_head(head_name, task, card.pyramid, 20, width=32).eval() if head_name != "linear" else \
    build_head(head_name, task, card.pyramid, 20).eval()
recipe = view_recipe({"name": "ade20k" if task == "segmentation" else "coco"}, "single", short_side=256)
model = RunModel(backbone, head, recipe, tuple(map(str, range(20))))
summary = task_of(task, None).write_prediction(model, Path(source), Path(base))
# Not ru_maxrss: it begins with the peak of the process that started this one.
peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps([summary["width"], int(peak) << 10]))
"""


@pytest.mark.ci
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(("task", "head"), [("segmentation", "linear"), ("detection", "fpn")])
def test_100_megapixels_take_less_than_2_gb(task: str, head: str, tmp_path: Path) -> None:
    source = tmp_path / "large.jpg"
    Image.linear_gradient("L").resize(SIDES).convert("RGB").save(source, progressive=True, subsampling=0)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, task, head, str(source), str(tmp_path / "found")],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    width, peak_bytes = json.loads(done.stdout.splitlines()[-1])
    assert width == SIDES[0] and peak_bytes < 2e9, f"{peak_bytes / 1e9:.2f} GB"
    with Image.open(tmp_path / "found.overlay.png") as picture:
        assert picture.size == SIDES
