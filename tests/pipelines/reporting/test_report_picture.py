"""The picture of a report, by the boxes that are drawn: nothing leaves the page or covers anything else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.transforms import Bbox

from pipelines.json_output import write_json
from pipelines.reporting.pretraining import GivenPretraining
from pipelines.reporting.report_picture import draw_report, drawable, report_figure, wrapped
from pipelines.reporting.report_rows import ReportRow, report_rows
from pipelines.reporting.run_summary import read_figures
from tests.pipelines.reporting.made_runs import made_run

LONG = "weights-of-a-project-with-a-name-that-" + "goes-on-and-" * 14 + "ends.pth"


def rows_of(folder: Path) -> list[ReportRow]:
    figures = [read_figures(path.parent) for path in sorted(folder.rglob("run.json"))]
    return report_rows(figures, GivenPretraining())


def boxes(figure: Any) -> tuple[list[Bbox], list[Bbox], list[Bbox]]:
    """In pixels: each panel's axes, each legend, each name of a head."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    axes = [each.get_window_extent(renderer) for each in figure.axes]
    legends = [each.get_legend().get_window_extent(renderer) for each in figure.axes]
    names = [text.get_window_extent(renderer) for each in figure.axes for text in each.texts]
    return axes, legends, names


def overlaps(boxes: list[Bbox]) -> Iterator[tuple[Bbox, Bbox]]:
    for one, other in combinations(boxes, 2):
        common = Bbox.intersection(one, other)
        if common is not None and common.width > 1 and common.height > 1:
            yield one, other


def check_page(figure: Any) -> tuple[list[Bbox], list[Bbox], list[Bbox]]:
    """Everything is on the page, and no panel with its labels reaches into another or into a legend."""
    axes, legends, names = boxes(figure)
    renderer = figure.canvas.get_renderer()
    page = figure.bbox
    whole = [each.get_tightbbox(renderer) for each in figure.axes]
    for box in (*axes, *legends, *names, *whole):
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, box
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, box
    assert not list(overlaps(whole)), "panels with titles, labels and legends"
    for panel, legend in zip(figure.axes, legends, strict=True):
        below = [panel.get_window_extent(renderer), panel.xaxis.get_tightbbox(renderer)]
        assert not any(list(overlaps([legend, box])) for box in below), "a legend covers its panel"
    return axes, legends, names


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_one_run_of_one_data_set(tmp_path: Path) -> None:
    """A single point stands inside axes that have marks on both scales."""
    made_run(tmp_path / "a", {"single": {"mIoU": 0.5}}, parameter_count=33_300_000)
    figure = report_figure(rows_of(tmp_path))
    assert figure is not None
    axes, _, names = check_page(figure)
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["fpn"]
    for x, y in ((33.3, 50.0), (33.3, 48.8)):  # ours and the paper's
        at = panel.transData.transform((x, y))
        assert axes[0].x0 + 20 < at[0] < axes[0].x1 - 20 and axes[0].y0 + 5 < at[1] < axes[0].y1 - 5
    assert axes[0].x0 <= names[0].x0 and names[0].x1 <= axes[0].x1
    for axis in (panel.xaxis, panel.yaxis):
        low, high = sorted(axis.get_view_interval())
        labelled = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
        shown = [tick for tick, label in labelled
                 if low <= tick <= high and label.get_text()]  # fmt: skip
        assert len(shown) >= 2, shown
    assert panel.get_xlabel() == "trainable parameters, millions" and panel.get_ylabel() == "mIoU (single), %"
    assert draw_report(rows_of(tmp_path), tmp_path / "r.png")
    assert np.ptp(imread(tmp_path / "r.png")[..., :3]) > 0.5


def test_four_data_sets(tmp_path: Path) -> None:
    for dataset, score in (("ade20k", "mIoU"), ("coco", "box AP"), ("k400", "top-1")):
        for seed, digest in ((0, "a"), (1, "b")):
            made_run(tmp_path / dataset / digest, {"single": {score: 0.5 + 0.1 * seed}}, digest=digest * 64,
                     dataset=dataset, head="linear" if dataset == "k400" else "fpn",
                     parameter_count=10**6)  # fmt: skip
    other = made_run(tmp_path / "own", {"single": {"mIoU": 0.3}}, class_names=list("abc"), parameter_count=9)
    record = read_figures(other).record
    record.identity["dataset"]["name"] = "streets"
    write_json(other / "run.json", record.to_json())
    rows = rows_of(tmp_path)
    figure = report_figure(rows)
    assert figure is not None and len(figure.axes) == 4
    axes, _, _ = check_page(figure)
    assert {panel.get_title() for panel in figure.axes} == {"ade20k", "coco", "k400", "streets"}
    assert all(abs(box.width - axes[0].width) < 1 for box in axes), "panels of one size"


def test_long_names_stay_on_the_page(tmp_path: Path) -> None:
    assert len(LONG) > 200
    for number in range(4):
        made_run(tmp_path / str(number), {"single": {"mIoU": 0.5 + 0.01 * number}}, digest=f"{number}" * 64,
                 weights=f"/w/{number}{LONG}", class_names=list("abc"), parameter_count=10**6)  # fmt: skip
    for row in (rows := rows_of(tmp_path)):
        object.__setattr__(row.first.record, "head", "h" * 200)
    figure = report_figure(rows)
    assert figure is not None
    _, legends, names = check_page(figure)
    assert len(names) == 4 and not list(overlaps(names)), "names of near points"
    assert legends[0].height > 8 * 10, "four labels of more than one line"


def test_many_heads_of_near_scores(tmp_path: Path) -> None:
    for layers in range(1, 10):
        made_run(tmp_path / str(layers), {"single": {"mIoU": 0.5 + 0.001 * layers}}, head=f"bifpn{layers}",
                 parameter_count=25_000_000 + 3_500_000 * layers)  # fmt: skip
    figure = report_figure(rows_of(tmp_path))
    assert figure is not None
    axes, _, names = check_page(figure)
    assert len(names) == 9 and not list(overlaps(names))
    assert all(axes[0].x0 <= box.x0 and box.x1 <= axes[0].x1 for box in names)


def test_letters_that_the_font_lacks_and_formulas(tmp_path: Path) -> None:
    made_run(tmp_path / "a", {"single": {"mIoU": 0.5}}, weights="/w/_$\\frac{$重み\nx.pth", parameter_count=9)
    rows = rows_of(tmp_path)
    assert draw_report(rows, tmp_path / "r.png")
    figure = report_figure(rows)
    assert figure is not None
    (text,) = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "_$\\frac{$?? x.pth" in text
    assert drawable("é 重\n") == "é ?" and max(map(len, wrapped("ab " * 200).split("\n"))) <= 84


def test_without_a_score_there_is_no_picture(tmp_path: Path) -> None:
    made_run(tmp_path / "a", {}, parameter_count=9)
    assert report_figure(rows_of(tmp_path)) is None and not draw_report(rows_of(tmp_path), tmp_path / "r.png")
