"""Whether a codec's error matters: q20 loses accuracy on real features, q2 none that can be measured.

A linear classifier of cells of street scenes, by level p3 of EfficientNet-lite0 with ImageNet weights; see
benchmarks/stores/codec_scores.py and docs/codecs.md.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.stores.codec_scores import measure, read_split
from stores import open_store
from tests.pipelines.verbs.test_real_backbone import described, extracted, weights  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.data]


def test_q20_loses_what_q2_keeps(
    samples: Path,
    weights: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    dataset, stores = described(samples, "camvid_small", tmp_path), tmp_path / "stores"
    common = ("--codec", "float16", "--levels", "p3")
    sizes = (*common, "--crop-size", "256"), (*common, "--split", "test", "--short-side", "256")
    extracted(dataset, weights["trained"], stores, *sizes)
    (train,), (test,) = stores.glob("*-train-*"), stores.glob("*-test-*")
    with open_store(train) as first, open_store(test) as second:
        points = measure(read_split(first, "p3"), read_split(second, "p3"), ("float16", "q2", "q5", "q20"))
    exact, q2, q5, q20 = points
    print(points)
    assert exact.mean_iou is not None and q2.mean_iou is not None and q20.mean_iou is not None
    assert abs(q2.accuracy - exact.accuracy) < 0.2 and abs(q2.mean_iou - exact.mean_iou) < 0.2
    assert q20.accuracy < exact.accuracy - 0.5 and q20.mean_iou < exact.mean_iou - 0.5
    assert q2.median_error == pytest.approx(0.02, rel=0.05) and q2.worst_error < 0.025
    assert q2.share_of_int8 < 0.75 and q5.share_of_int8 < 0.58
