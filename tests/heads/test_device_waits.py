"""Host waits for a GPU in a training step of detection heads, counted without one.

Recorded are the operations whose result the host needs, or whose output's size depends on values.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from heads import build_head
from heads.boxes import ground_truth
from heads.boxes.nms import suppress_together
from heads.detection import rpn
from tests.heads.detection.detection_targets import random_targets
from tests.heads.pyramids import pyramid_of, random_features

WAITING = {"nonzero", "equal", "_local_scalar_dense", "bincount", "masked_select", "unique_dim", "_unique2"}
VALID_HW = [(128, 160), (100, 120)]
SMALL = {"width": 8, "box_width": 16, "mask_width": 8, "roi_samples": 32, "candidates": 40, "proposals": 30}


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        if name in WAITING or by_mask:
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Runs heads as on a GPU: NMS of many boxes at a time, labels not read by the host."""
    monkeypatch.setattr(rpn, "suppress", suppress_together)
    monkeypatch.setattr(ground_truth, "_check_target", lambda *_: None)
    recording = Recorder()
    original = Tensor.tolist

    def tolist(self: Tensor) -> Any:
        recording.waits["tolist"] += 1
        return original(self)

    monkeypatch.setattr(Tensor, "tolist", tolist)
    with recording:
        yield recording


@pytest.mark.parametrize(
    ("name", "box_heads", "pools"),
    [("fpn", 1, 2), ("cascade-fpn", 3, 6), ("htc-nosem-bifpn5", 3, 6), ("htc-bifpn5", 3, 6)],
)
def test_a_step_waits_where_documented(recorder: Recorder, name: str, box_heads: int, pools: int) -> None:
    """In each level's NMS; for the positive RoIs of each mask head; for levels and for sizes of RoIs."""
    head = build_head(name, "detection", pyramid_of(8), 4, seed=0, **SMALL)
    targets, features = random_targets(VALID_HW, 4), random_features(pyramid_of(8), 2, (128, 160))
    recorder.waits.clear()
    losses = head.losses(features, targets, VALID_HW, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    rounds = recorder.waits.pop("equal")
    assert 5 <= rounds <= 10
    assert recorder.waits == {"nonzero": box_heads, "tolist": pools + box_heads}


def test_the_recorder_sees_what_waits(recorder: Recorder) -> None:
    values = torch.arange(4.0)
    float(values.sum())
    values[values > 1] = 0
    values[values > 1]
    values.tolist()
    assert recorder.waits == {"_local_scalar_dense": 1, "index_put_": 1, "index": 1, "tolist": 1}
