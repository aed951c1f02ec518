"""Pictures of detections and label maps: colours apart, labels apart, one box an object, even columns."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from pipelines.metrics.coco_results import Detections
from pipelines.pictures.clips import confusion_title
from pipelines.pictures.curves import curves_figure
from pipelines.pictures.detections import (
    SHOWN_SCORE,
    detections_picture,
    overlay_picture,
    shown_detections,
    write_grid,
)
from pipelines.pictures.label_places import label_place, leader
from pipelines.pictures.legend import with_legend
from pipelines.pictures.palette import LABELS, oklab_of, palette
from pipelines.tasks.info.contract import Score


def test_neighbouring_labels_have_colours_that_differ() -> None:
    lab = oklab_of(palette())
    assert len({tuple(colour) for colour in palette().tolist()}) == LABELS
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert min(apart[i, j] for i, j in combinations(range(20), 2)) > 0.11
    assert min(apart[i, j] for i, j in combinations(range(80), 2)) > 0.07  # the classes of COCO
    assert min(apart[i, j] for i in range(160) for j in range(i + 1, i + 6)) > 0.12
    assert min(apart[i, j] for i in range(LABELS) for j in range(i + 1, min(i + 6, LABELS))) > 0.1


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        labels=np.array(labels),
        counts=None,
    )


def test_no_three_boxes_on_one_object() -> None:
    """Boxes around one object, jittered, of three classes; and one beside it."""
    rng = np.random.default_rng(0)
    boxes = [[20 + dx, 30 + dy, 80 + dx, 90 + dy] for dx, dy in rng.uniform(-6, 6, (12, 2))]
    made = found([*boxes, [110, 30, 150, 80]], [*np.linspace(0.9, 0.35, 12), 0.5], [*([0, 1, 2] * 4), 1])
    assert shown_detections(made) == [0, 12]
    inside = found([[0, 0, 100, 100], [10, 10, 40, 40], [10, 10, 40, 40]], [0.9, 0.8, 0.7], [0, 0, 1])
    assert shown_detections(inside) == [0, 2]  # a part of it, and another class upon it
    low = found([[0, 0, 10, 10]], [SHOWN_SCORE - 0.01], [0])
    assert shown_detections(low) == []


def test_labels_lie_apart_and_inside() -> None:
    rng = np.random.default_rng(1)
    taken: list[tuple[float, float, float, float]] = []
    for number, (x, y) in enumerate(rng.uniform(0, 150, (60, 2))):
        place = label_place((x, y, x + 40, y + 30), (50, 10), (200, 180), taken)
        if place is None:
            continue
        assert 0 <= place[0] < place[2] <= 200 and 0 <= place[1] < place[3] <= 180
        assert not any(
            place[0] < o[2] and o[0] < place[2] and place[1] < o[3] and o[1] < place[3] for o in taken
        )
        taken.append(place)
        assert number >= 30 or len(taken) == number + 1  # none is left out while places are free
    assert len(taken) > 30
    assert label_place((0, 0, 5, 5), (50, 10), (40, 40), []) is None  # wider than the picture


def test_a_crowded_object_keeps_its_label_and_a_line_to_it() -> None:
    """Twelve small objects in one corner: all labels are drawn, those away from their boxes with a line."""
    boxes = [[float(4 * n), 0.0, 4.0 * n + 40, 30.0] for n in range(12)]
    taken: list[tuple[float, float, float, float]] = []
    for box in boxes:
        place = label_place(box, (50, 10), (200, 180), taken)
        assert place is not None
        taken.append(place)
        line = leader(box, place)
        touches = box[0] <= place[2] and place[0] <= box[2] and box[1] <= place[3] and place[1] <= box[3]
        assert (line is None) == touches
        if line is not None:
            assert place[0] <= line[0] <= place[2] and place[1] <= line[1] <= place[3]
            assert box[0] <= line[2] <= box[2] and box[1] <= line[3] <= box[3]
    assert any(leader(box, place) for box, place in zip(boxes, taken, strict=True))


def test_an_overlay_has_the_picture_and_a_legend_below_it() -> None:
    rgb = np.full((120, 160, 3), 90, np.uint8)
    made = found([[10, 10, 60, 60], [90, 20, 150, 80]], [0.9, 0.8], [3, 7])
    names = [f"class {number}" for number in range(10)]
    plain, whole = detections_picture(rgb, made, names), overlay_picture(rgb, made, names)
    assert whole.size[0] == 160 and whole.size[1] > 120
    assert np.array_equal(np.asarray(whole)[:120], np.asarray(plain))
    strip = np.asarray(whole)[120:].reshape(-1, 3).tolist()
    for label in (3, 7):
        assert palette()[label].tolist() in strip
    assert palette()[0].tolist() not in strip
    assert with_legend(plain, [], names) is plain
    many = with_legend(plain, range(100), [f"a rather long name {n}" for n in range(100)])
    assert many.size[0] == 160


def test_columns_of_a_grid_are_even(tmp_path: Path) -> None:
    """Three shapes: each picture stands in the middle of a column of one width."""
    shapes = [(60, 120), (120, 60), (80, 80)]
    pictures = [np.full((*shape, 3), 0, np.uint8) for shape in shapes]
    write_grid(tmp_path / "grid.png", {"a": pictures, "b": pictures})
    dark = np.asarray(Image.open(tmp_path / "grid.png").convert("L")) < 10
    columns = np.flatnonzero(dark[: len(dark) // 2].any(0))
    groups = np.split(columns, np.flatnonzero(np.diff(columns) > 8) + 1)
    middles = [float(group.mean()) for group in groups if len(group) > 20]
    assert len(middles) == 3
    assert np.diff(middles)[0] == pytest.approx(np.diff(middles)[1], abs=3)


def test_no_legend_over_a_curve() -> None:
    """The legend's box lies above the axes, wherever the score runs."""
    for scores in ([(0, 95.0), (100, 99.0)], [(0, 1.0), (100, 40.0)], []):
        figure = curves_figure(
            [(step, 2.0 - step / 100) for step in range(0, 100, 5)], scores, Score(name="mIoU")
        )
        FigureCanvasAgg(figure).draw()
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert all(box.y0 >= axes.get_window_extent().y1 for axes in figure.axes)
        assert len(legend.get_texts()) == (2 if scores else 1)


def test_the_confusion_pictures_title_is_true() -> None:
    assert confusion_title(3, 3).endswith("all 3 classes, the least often right first")
    assert "12 of 400 classes" in confusion_title(12, 400)
