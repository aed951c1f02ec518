"""Figures of views that go through a head together, beside those of each view by itself."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from heads import build_head
from heads.contract import Head
from pipelines.evaluation.store_views import store_views
from pipelines.metrics.pixel_scores import class_iou
from pipelines.tasks import task_of
from pipelines.tasks.contract import VIEWS_AT_ONCE, joined_features
from stores.reading.reader import Store, open_store
from tests.pipelines.made_stores import CLASSES, make_store

CPU = torch.device("cpu")
TARGETS = ("original_labels",)


@pytest.fixture(scope="module", params=["single", "ms-flip"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    views = 1 if request.param == "single" else 2
    folder = tmp_path_factory.mktemp("store")
    return open_store(make_store(folder, split="validation", records=11, views=views, codec_name="int8"))


def drawn_head(store: Store) -> Head:
    head = build_head("linear", "segmentation", store.pyramid, CLASSES, seed=0).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return head


def counts_row_by_row(store: Store, head: Head) -> np.ndarray:
    """(true class, predicted class) of all pixels: one row, one image and one pixel value at a time."""
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    for key in dict.fromkeys(store.keys):
        rows = [row for row, of in enumerate(store.keys) if of == key]
        total = 0
        for row in rows:
            features = {name: torch.from_numpy(x) for name, x in store.read_features([row]).items()}
            hw = [tuple(store.original_hw[row].tolist())]
            (scores,) = head.predict(features, [tuple(store.valid_hw[row].tolist())], hw)
            params = dict(zip(store.plan.view_params, store.params[row], strict=True))
            total = total + (scores.flip(-1) if params.get("flip") else scores)
        truth = store.read_targets([rows[0]], TARGETS)[0]["original_labels"]
        predicted = total.argmax(0).numpy()
        for label in range(CLASSES):
            counts[label] += np.bincount(predicted[truth == label], minlength=CLASSES)
    return counts


def test_figures_are_those_of_each_row_by_itself(store: Store) -> None:
    head = drawn_head(store)
    figures = task_of("segmentation").measure(
        head, store_views(store, head.levels, TARGETS, CPU), views_name="", device=CPU, bf16=False
    )
    counts = counts_row_by_row(store, head)
    assert figures.records == 11
    assert figures.intersections == counts.diagonal().tolist()
    assert figures.iou_by_class == class_iou(counts)


def test_rows_of_a_bin_go_through_the_head_together(store: Store) -> None:
    head, seen = drawn_head(store), []
    head.register_forward_pre_hook(lambda _, given: seen.append(len(given[1])))
    task_of("segmentation").measure(
        head, store_views(store, head.levels, TARGETS, CPU), views_name="", device=CPU, bf16=False
    )
    together = [store.bins.count(name) for name in dict.fromkeys(store.bins)]
    assert sum(seen) == len(store)
    if store.view_count == 1:  # views of several sizes of one record cannot wait for another's
        assert len(seen) == sum(-(-rows // VIEWS_AT_ONCE) for rows in together)
    assert max(seen) == VIEWS_AT_ONCE


def test_views_are_rows_of_one_tensor_until_the_next_are_read(store: Store) -> None:
    views, together = store_views(store, ("p3",), (), CPU), []
    for view in views:
        together = [*together, view][-VIEWS_AT_ONCE:]
        (rows,) = joined_features([view]).values()
        expected = store.read_features([store.find_row(view.key, 0) or 0], ("p3",))["p3"]
        if store.view_count == 1:
            np.testing.assert_array_equal(rows.numpy(), expected)
        if len({each.features["p3"].untyped_storage().data_ptr() for each in together}) == 1:
            joined = joined_features(together)["p3"]
            assert joined.data_ptr() == together[0].features["p3"].data_ptr()


def test_reading_ends_with_the_iterator(store: Store) -> None:
    views = store_views(store, ("p3",), (), CPU)
    next(views)
    assert any(thread.name == "read-ahead" for thread in threading.enumerate())
    views.close()
    assert not any(thread.name == "read-ahead" for thread in threading.enumerate())


@pytest.mark.gpu
def test_segmentation_waits_for_the_gpu_once(tmp_path: Path) -> None:
    device = torch.device("cuda", 0)
    with open_store(make_store(tmp_path, split="validation", records=11, codec_name="int8")) as store:
        head = drawn_head(store).to(device)
        measure = task_of("segmentation").measure
        expected = measure(
            head, store_views(store, head.levels, TARGETS, device), views_name="", device=device, bf16=False
        )
        waits = []
        hook = torch.Tensor.cpu
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                torch.Tensor, "cpu", lambda tensor: waits.append(1) or _without_errors(hook, tensor)
            )
            torch.cuda.set_sync_debug_mode("error")
            try:
                found = measure(
                    head,
                    store_views(store, head.levels, TARGETS, device),
                    views_name="",
                    device=device,
                    bf16=False,
                )
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert found == expected
    assert len(waits) == 1


def _without_errors(function, tensor):
    torch.cuda.set_sync_debug_mode("default")
    return function(tensor)
