"""The folder of a run: its settings, record and checkpoints.

<run>/config.yaml        all settings of the run, in the form `--config` accepts
<run>/run.json           what it was made from: RunRecord
<run>/history.json       what was changed when it was resumed; see settings_history.py
<run>/run.lock           the process that writes it; see run_lock.py
<run>/checkpoints/       the last ones and the best; see checkpoint_files.py
<run>/metrics.csv        the log; curves.png shows it
<run>/hparams.yaml       config.yaml without nesting, where users of Lightning look for settings
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from heads.former_defaults import recorded_settings
from pipelines.config import RUN_CONFIG, TrainConfig, config_yaml
from pipelines.errors import UsageError
from pipelines.json_output import write_json
from pipelines.runs.record_bounds import check_record
from pipelines.runs.same_source import check_same_classes, check_same_source
from stores.errors import IdentityError
from stores.format.canonical_json import diff_identity
from stores.small_files import read_json

RUN_RECORD = "run.json"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.csv"
HPARAMS = "hparams.yaml"
CURVES = "curves.png"
_CHECKPOINT = re.compile(r"step-(\d+)\.ckpt")
_REPORTED_PACKAGES = ("permafrost", "torch", "lightning", "zarr", "numcodecs", "numpy")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreReference:
    """A store a run was trained from."""

    path: str
    identity_digest: str
    manifest_digest: str
    rows: int | None = None
    """Rows that were there, of runs since --allow-partial."""
    rows_planned: int | None = None
    """More than `rows` where records were skipped, or the store was still being extracted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """The head and the source of a run: enough to rebuild its head and to find its test store."""

    head: str
    head_settings: dict[str, Any]
    pyramid: list[dict[str, Any]]
    """Of the levels the head reads, `PyramidSpec.to_json`."""
    identity: dict[str, Any]
    """Of the (first) training store: data set, views, backbone, codec; or what stands for it in an online
    run."""
    stores: tuple[StoreReference, ...]
    """None when it was trained online."""
    stores_folder: str
    """Where `evaluate` looks for a test store; absolute."""
    weights: str | None
    """The --weights value; None: the default of the backbone."""
    data: str | None
    """The --data value, absolute."""
    verify: str
    """When checksums were compared while it was trained."""
    versions: dict[str, str]
    head_package: str | None = None
    """The package that provides the head; None: it is part of this project."""
    head_revision: int = 1
    """Of the defaults that stand behind `head_settings`, see heads/former_defaults.py; not recorded by
    earlier versions, whose heads were of revision 1."""

    @property
    def full_settings(self) -> dict[str, Any]:
        """Those that `build_head` needs to build the run's head again. Raises HeadError for a later version's
        run."""
        return recorded_settings(self.head, self.task, self.head_settings, self.head_revision)

    @property
    def own_settings(self) -> dict[str, Any]:
        """What sets the head apart from its preset: `full_settings` without those that the data decides."""
        facts = self.identity["dataset"].get("task_facts", {})
        return {
            name: value
            for name, value in self.full_settings.items()
            if name not in facts or facts[name] != value
        }

    @property
    def task(self) -> str:
        return str(self.identity["dataset"]["task"])

    @property
    def dataset(self) -> str:
        return str(self.identity["dataset"]["name"])

    @property
    def num_classes(self) -> int:
        return int(self.identity["dataset"]["num_classes"])

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.identity["dataset"]["class_names"])

    @property
    def model(self) -> str:
        return str(self.identity["backbone"]["model"])

    @property
    def weights_sha256(self) -> str:
        return str(self.identity["backbone"]["weights_sha256"])

    @property
    def codec(self) -> str | None:
        """None where an online run had none."""
        name = self.identity["codec"]["name"]
        return None if name is None else str(name)

    def package(self, part: str, field: str = "package") -> str | None:
        """The package that provides the `dataset`, its task (field `task_package`) or the `backbone`; None:
        it is part of this project."""
        package = self.identity[part].get(field)
        return None if package is None else str(package)

    @property
    def levels(self) -> tuple[str, ...]:
        """Those the head reads."""
        return tuple(level["name"] for level in self.pyramid)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> RunRecord:
        stores = tuple(StoreReference(**store) for store in fields["stores"])
        return cls(stores=stores, **{name: value for name, value in fields.items() if name != "stores"})

    def check_same_source(self, identity: Mapping[str, Any], where: str) -> None:
        """Raises IdentityError as `pipelines.runs.same_source.check_same_source`."""
        check_same_source(self.identity, identity, where)

    def check_same_classes(self, class_names: Sequence[str], where: str) -> None:
        """Raises IdentityError where a label means another class than in the run: scores would be wrong."""
        check_same_classes(self.class_names, class_names, where)


def new_run_folder(named: str | None, store_name: str, head: str) -> Path:
    """Makes the folder of a new run: `named`, or the first free runs/<store>-<head>-<n>.

    Raises UsageError where `named` already holds a run.
    """
    if named is not None:
        folder = Path(named)
        refuse_other_run(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    number = 1
    while True:
        folder = Path("runs") / f"{store_name}-{head}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def refuse_other_run(folder: Path) -> None:
    """Raises UsageError where a folder already holds a run."""
    if (folder / RUN_RECORD).exists():
        raise UsageError(f"{folder} already holds a run; pass --resume to continue it, or another --run")


def write_run(folder: Path, config: TrainConfig, record: RunRecord, *, comment: str = "") -> None:
    """Records a run; run.json comes last, so a folder with one is complete.

    Args:
        comment: stands above the settings in config.yaml.
    """
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    settings = config_yaml(dataclasses.replace(config, resume=False, take_over=False))
    partial = folder / f".{RUN_CONFIG}.partial"
    partial.write_text(comment + settings)
    partial.replace(folder / RUN_CONFIG)
    write_json(folder / RUN_RECORD, record.to_json())


def resume_command(folder: Path) -> str:
    """The command that resumes a run, or several of one folder."""
    return f"python -m pipelines train-head --resume --run {shlex.quote(str(folder))}"


def read_run(folder: Path) -> RunRecord:
    """The record of a run. Raises UsageError where the folder holds none."""
    path = folder / RUN_RECORD
    if not path.is_file():
        inside = sorted(found.parent.name for found in folder.glob(f"*/{RUN_RECORD}"))
        hint = f"; it contains runs, pass one of: {', '.join(inside)}" if inside else ""
        raise UsageError(f"{folder} is not the folder of a run: {path} does not exist{hint}")
    try:
        record = RunRecord.from_json(read_json(path))
        check_record(record)
        return record
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {str(error)[:300]}"
        raise UsageError(f"{path} is not the record of a run: {what}") from error


def check_resumable(recorded: RunRecord, found: RunRecord) -> None:
    """Raises IdentityError if a resumed run would change its source or head."""
    for field, before, now in diff_identity(recorded.identity, found.identity):
        raise IdentityError(field, before, now, "a resumed run must use the stores it started with")
    before_digests = [store.identity_digest for store in recorded.stores]
    now_digests = [store.identity_digest for store in found.stores]
    if before_digests != now_digests:
        raise IdentityError(
            "stores", before_digests, now_digests, "a resumed run must use the stores it started with"
        )
    for name in ("head", "head_settings", "pyramid"):
        if getattr(recorded, name) != getattr(found, name):
            raise IdentityError(
                name, getattr(recorded, name), getattr(found, name), "a resumed run must keep its head"
            )


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the weights after `step` optimiser steps stand."""
    return folder / CHECKPOINTS / f"step-{step:07d}.ckpt"


def checkpoints(folder: Path) -> dict[int, Path]:
    """Every checkpoint of a run by step, the last one last."""
    found = {}
    for path in (folder / CHECKPOINTS).glob("step-*.ckpt"):
        if match := _CHECKPOINT.fullmatch(path.name):
            found[int(match.group(1))] = path
    return dict(sorted(found.items()))


def step_of(checkpoint: Path) -> int:
    """The optimiser steps done when a checkpoint was written."""
    return int(checkpoint.stem.rpartition("-")[2])


def last_checkpoint(folder: Path) -> tuple[int, Path]:
    """Step and file of a run's last checkpoint. Raises UsageError if it has none yet."""
    found = checkpoints(folder)
    if not found:
        raise UsageError(
            f"{folder} has no checkpoint: training stopped before the first checkpoint; resume it with "
            f"{resume_command(folder)}"
        )
    step = max(found)
    return step, found[step]


def package_versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    return {name: metadata.version(name) for name in _REPORTED_PACKAGES}
