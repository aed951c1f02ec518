"""`evaluate`: scores of a run on a test split, from a store or on the live backbone."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from heads.contract import Head
from pipelines.catalog.choose_store import find_test_store
from pipelines.catalog.data_folder import recorded_data
from pipelines.catalog.moved_stores import stores_folder_of
from pipelines.catalog.stores import describe_store
from pipelines.config import EvaluateConfig
from pipelines.errors import UsageError
from pipelines.evaluation.open_test_store import open_test_store
from pipelines.evaluation.store_views import check_measurable, store_views, views_name
from pipelines.json_output import write_json
from pipelines.machine.devices import choose_device, uses_bf16
from pipelines.next_step import command, print_next
from pipelines.runs.run_folder import CURVES, RunRecord, read_run
from pipelines.runs.trained_head import load_head
from pipelines.tasks import Figures, TestView, task_for
from pipelines.tasks.contract import targets_there
from stores.remote.store_url import store_path

logger = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Measures a checkpoint of a run, writes the figures into its folder and prints them.

    Raises UsageError where the run has no checkpoint or no test store fits, IdentityError where the store
    named is of another backbone or data set, LevelMissing where it lacks a level, DamagedCheckpoint.
    """
    folder, device = Path(config.run), choose_device(config.device)
    record = read_run(folder)
    head, step = load_head(folder, device, config.checkpoint, command=command("evaluate", run=folder))
    began = time.perf_counter()
    with ExitStack() as opened:
        views, name, source, boxes = _views(config, record, device, opened)
        opened.callback(views.close)
        logger.info("%s, step %d, on %s", folder, step, source)
        if config.no_truth:
            split = config.split or ("test" if config.live else describe_store(Path(source)).split)
            suffix = f"-{split}" + ("" if name == "single" else f"-{name.replace('+', '-')}")
            return _write_results(config, record, head, views, suffix, device)
        figures = task_for({**record.identity["dataset"], **boxes}).measure(
            head, views, views_name=name, device=device, bf16=uses_bf16(config.precision, device)
        )
    summary = {
        "run": str(folder),
        "step": step,
        "source": source,
        **figures.summary(),
        "scores": dict(figures.scores()),
        "class_names": list(record.class_names),
        "seconds": round(time.perf_counter() - began, 3),
    }
    _write(folder, record, figures, summary)
    _draw_records(config, record, figures, source)
    print(figures.line())
    pictures = sorted(path for path in folder.glob("*.png") if path.name != CURVES)
    print_next(command("predict", run=folder, input="FOLDER"), *pictures)
    return summary


def _views(
    config: EvaluateConfig, record: RunRecord, device: torch.device, opened: ExitStack
) -> tuple[Generator[TestView, None, None], str, str, dict[str, Any]]:
    """The test views, what they are called, where they come from, and the file that boxes of persons are of,
    as the `boxes` of an identity."""
    if config.live:
        from pipelines.evaluation.live_views import open_live_views  # loads the backbone's packages

        return open_live_views(config, record, device)
    if config.boxes is not None:
        raise UsageError(
            f"--boxes {config.boxes}: a store is of the boxes it was extracted with: extract a test split "
            "with --boxes and name it by --store, or pass --live"
        )
    folder = store_path(config.stores) if config.stores else stores_folder_of(record, Path(config.run))
    path = (
        store_path(config.store)
        if config.store
        else find_test_store(
            record,
            folder,
            split=config.split,
            views=config.views,
            pixels=config.pixels,
            short_side=config.short_side,
            no_truth=config.no_truth,
        )
    )
    store, shallow = open_test_store(
        path,
        record,
        opened,
        device=device,
        threads=config.threads,
        pixels=config.pixels,
        data=config.data or record.data,
        weights=config.weights or record.weights,
        short_side=config.short_side,
    )
    task = task_for(record.identity["dataset"])
    check_measurable(store, record.levels, task, shallow, no_truth=config.no_truth)
    truth = (
        tuple(name for name in task.test_targets if name in store.targets)
        if config.no_truth
        else targets_there(task, task.test_targets, store.targets)
    )
    views = store_views(store, record.levels, truth, device, shallow)
    of_file = {name: each for name, each in store.identity["dataset"].items() if name == "boxes"}
    return views, views_name(store), str(path), of_file


def _write_results(
    config: EvaluateConfig,
    record: RunRecord,
    head: Head,
    views: Generator[TestView, None, None],
    suffix: str,
    device: torch.device,
) -> dict[str, Any]:
    """The official results files of a split without truth, in the run's folder; prints their names."""
    # Late: needs the data sets, which measuring on a store must not load.
    from extract.datasets import category_ids
    from pipelines.evaluation.results_files import Predicted, write_results_files

    dataset = record.identity["dataset"]
    written = write_results_files(
        head,
        views,
        Predicted(
            dataset=dataset,
            folder=Path(config.run),
            suffix=suffix,
            device=device,
            bf16=uses_bf16(config.precision, device),
            values=category_ids(dataset),
        ),
    )
    shown = ", ".join(map(str, written.files))
    print(f"{written.records} records predicted, no scores: {shown}")
    return {"run": config.run, "records": written.records, "files": [str(path) for path in written.files]}


def _draw_records(config: EvaluateConfig, record: RunRecord, figures: Figures, source: str) -> None:
    """The best and the worst records with their truth, of tasks that draw them."""
    draw = getattr(figures, "draw_records", None)
    draw_views = getattr(figures, "draw_views", None)
    if draw is None and draw_views is None:
        return
    # Late: needs the data sets, and only for pictures.
    from extract.datasets import first_test_split
    from pipelines.evaluation.record_images import image_source, view_source

    # Late: loads the backbone's packages.
    from pipelines.live.backbone import run_test_recipe

    dataset = record.identity["dataset"]
    split = config.split or (first_test_split(dataset) if config.live else describe_store(Path(source)).split)
    data = config.data or record.data or (None if config.live else recorded_data(source))
    where = Path(config.run), _suffix(figures), record.class_names
    if draw is not None:
        draw(*where, image_source(dataset, data, split))
    if draw_views is not None:
        recipe = run_test_recipe(record, config.views, config.short_side)
        draw_views(*where, view_source(dataset, data, split, recipe))


def _suffix(figures: Figures) -> str:
    return "" if figures.views == "single" else "-" + figures.views.replace("+", "-")


def _write(folder: Path, record: RunRecord, figures: Figures, summary: dict[str, Any]) -> None:
    """evaluate.json and what else the task writes; those of several views beside those of single ones."""
    suffix = _suffix(figures)
    write_json(folder / f"evaluate{suffix}.json", summary)
    figures.write(folder, suffix, record.class_names)
