"""A new run's folder: claimed by its lock, and removed again where the run is refused before it began."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from types import TracebackType

from pipelines.config import RUN_CONFIG
from pipelines.config.training import LOGGERS
from pipelines.errors import IDENTITY, INTEGRITY, SPACE, USAGE, exit_code
from pipelines.runs.metrics_csv import read_metrics
from pipelines.runs.run_folder import CHECKPOINTS, HPARAMS, METRICS, RUN_RECORD, checkpoints, new_run_folder

_REFUSALS = (USAGE, IDENTITY, INTEGRITY, SPACE)


class UnbegunRun:
    """Removes what was made of a new run where it is refused: the corrected command finds no run there.

    As a context manager around the training. Folders that existed before stay.

    Args:
        named, store_name, head: as of `new_run_folder`, which makes the folder.
    """

    def __init__(self, named: str | None, store_name: str, head: str) -> None:
        wanted = Path(named) if named is not None else Path("runs")
        made = [path for path in (wanted, *wanted.parents) if not path.exists()]
        self.folder = new_run_folder(named, store_name, head)
        self._made = made if named is not None else [self.folder, *made]
        self.is_ours = False
        """Whether this process writes the run: what another one wrote there stays."""

    def __enter__(self) -> UnbegunRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or exit_code(error) not in _REFUSALS:
            return
        if self.is_ours:
            if checkpoints(self.folder) or read_metrics(self.folder / METRICS):
                return  # it had begun
            for name in (RUN_RECORD, RUN_CONFIG, METRICS, HPARAMS):
                (self.folder / name).unlink(missing_ok=True)
            for name in LOGGERS:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.folder / CHECKPOINTS).rmdir()
        with contextlib.suppress(OSError):  # something else is in it
            for path in self._made:
                path.rmdir()
