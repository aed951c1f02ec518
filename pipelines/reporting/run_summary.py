"""Summary of a finished run, read from its folder alone: head, store, scores and costs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RUN_CONFIG, TrainConfig
from pipelines.config.fields import one_report_row_settings
from pipelines.errors import UsageError
from pipelines.runs.costs import RunCosts, read_costs
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.run_folder import METRICS, RUN_RECORD, RunRecord, checkpoints, read_run
from pipelines.runs.settings_history import SettingsChange, read_history
from pipelines.tasks import task_info
from stores.format.canonical_json import canonical_json
from stores.small_files import read_json, read_parsed

WHILE_TRAINING = "single, while training"
"""What the views are called of a score that `evaluate` has not confirmed: the last validation's."""
_SHARE = re.compile(r"(?:coco-)?(\d+(?:\.\d+)?)\s*(?:%|pct)(?:-fold\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFigures:
    """One run."""

    folder: Path
    record: RunRecord
    config: Mapping[str, Any]
    """Its settings."""
    scores: Mapping[str, Mapping[str, float]]
    """Views -> score -> share in 0..1, the score that counts first first; as `evaluate` measured them."""
    history: tuple[SettingsChange, ...] = ()
    """Settings that changed when it was resumed."""
    costs: RunCosts | None
    """None for a run without a checkpoint."""
    steps_done: int = 0
    """Optimiser steps of its last checkpoint, score or line of the log; 0 before the first."""
    evaluated_step: int | None = None
    """Of the checkpoint that `scores` are of; None where `evaluate` measured none."""

    @property
    def is_finished(self) -> bool:
        """Whether it was trained to its last step."""
        wanted = self.config.get("max_steps")
        return wanted is None or self.steps_done >= int(wanted)

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def parameters(self) -> int:
        """Trainable parameters of the head."""
        if self.costs is not None:
            return self.costs.parameters
        from pipelines.runs.trained_head import new_head  # late: it loads torch, and a finished run has costs

        return sum(p.numel() for p in new_head(self.record).parameters() if p.requires_grad)

    @property
    def share(self) -> float:
        """Of the data set's records that it was trained on."""
        kept = self.record.identity["dataset"].get("subset")
        stored = kept["count"] / self.record.identity["dataset"]["records"]["count"] if kept else 1.0
        written = _SHARE.fullmatch(str(self.config.get("subset")).strip())
        return round(stored * (float(written[1]) / 100 if written else 1.0), 4)

    @property
    def store(self) -> str:
        """The stores' identities, 8 digits each, or that there was none."""
        return "+".join(store.identity_digest[:8] for store in self.record.stores) or "online"

    def learned_alike(self) -> str:
        """Equal for runs that differ in nothing but their seed, and have finished or have not."""
        compared = one_report_row_settings(TrainConfig)
        same = {name: value for name, value in self.config.items() if name in compared}
        stores = [store.identity_digest for store in self.record.stores]
        views = dict(self.record.identity["views"]) if not stores else {}  # of an online run, drawn by seed
        views.pop("seed", None)
        source = [stores, views, self.record.identity["backbone"], self.record.dataset]
        source += [self.record.full_settings, self.is_finished]
        changed = [
            [change.step, name, *values]
            for change in self.history
            for name, values in change.changed.items()
            if name.partition(".")[0] in compared
        ]
        return canonical_json([same, source, changed]).decode()


def read_figures(folder: Path) -> RunFigures:
    """The figures of one run. Raises UsageError where the folder holds none."""
    import yaml  # late, so that doctor can say that it is missing

    record = read_run(folder)
    try:
        config = read_parsed(folder / RUN_CONFIG, yaml.safe_load)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{folder / RUN_CONFIG} is not the configuration of a run: {error}") from error
    scores, evaluated_step = _evaluated(folder)
    logged = [int(row["step"]) for row in read_metrics(folder / METRICS)]
    return RunFigures(
        folder=folder,
        record=record,
        config=config,
        scores=scores or _validated(folder, record),
        history=tuple(read_history(folder)),
        costs=read_costs(folder),
        steps_done=max([0, *checkpoints(folder), *logged, evaluated_step or 0]),
        evaluated_step=evaluated_step,
    )


def _evaluated(folder: Path) -> tuple[dict[str, dict[str, float]], int | None]:
    """Views -> scores, and the earliest step they were measured after."""
    found, steps = {}, []
    for path in sorted(folder.glob("evaluate*.json"), key=lambda path: len(path.name)):
        try:
            summary = read_json(path)
        except ValueError as error:
            raise UsageError(
                f"{path} cannot be read as a result of evaluate: {error}; run evaluate again"
            ) from error
        known = {name: float(value) for name, value in summary.get("scores", {}).items() if value is not None}
        if known:
            found[str(summary["views"])] = known
            steps += [int(summary["step"])] if "step" in summary else []
    return found, min(steps, default=None)


def _validated(folder: Path, record: RunRecord) -> dict[str, dict[str, float]]:
    main = task_info(record.task).main_score
    rows = [row for row in read_metrics(folder / METRICS) if main in row]
    return {WHILE_TRAINING: {main: float(rows[-1][main])}} if rows else {}


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The folders of runs: those named, and those inside a named one that holds several.

    Raises UsageError where one holds none.
    """
    found: dict[Path, None] = {}
    for path in paths:
        inside = list(_runs_below(path))
        if not inside:
            raise UsageError(
                f"{path} is not the folder of a run and contains none; pass what train-head printed"
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def _runs_below(path: Path) -> Iterator[Path]:
    """A run; several heads or seeds; several seeds of several heads."""
    for pattern in ("", "*/", "*/*/"):
        yield from sorted(record.parent for record in path.glob(f"{pattern}{RUN_RECORD}"))
