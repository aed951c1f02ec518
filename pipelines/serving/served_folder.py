"""Stores and runs below a folder, and the pages of them; paths never lead out of it, by links neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from pipelines.errors import UsageError
from pipelines.pages.index_page import Entry, write_index_page
from pipelines.pages.runs_page import write_runs_page
from pipelines.pages.store_page import write_store_page
from pipelines.reporting.report_rows import report_rows
from pipelines.reporting.run_summary import read_figures, run_folders
from pipelines.runs.run_folder import RUN_RECORD
from pipelines.runs.run_lock import LockWatch
from pipelines.verbs.store_info import described_store, flat_identity

MAX_DEPTH = 4
MAX_FOLDERS = 20_000
"""That are looked at: a root such as / must not be walked for minutes."""
_STORE_FILE = "plan.json"
_KEPT_PAGES = 64


class NotServed(LookupError):
    """No store or run of that name below the root."""


@dataclass(slots=True)
class ServedFolder:
    """Pages of one folder, kept until a file of what they show changes. Safe for several threads."""

    root: Path
    """Resolved."""
    locks: LockWatch = field(default_factory=LockWatch)
    _lock: Lock = field(default_factory=Lock)
    _kept: dict[tuple[str, tuple[str, ...]], tuple[tuple[int, ...], bytes]] = field(default_factory=dict)

    def index(self) -> bytes:
        """The list of stores and runs."""
        entries = [
            Entry(kind, path.relative_to(self.root).as_posix(), self.is_changing(path))
            for kind, path in sorted(self._found(), key=lambda each: (each[0], str(each[1])))
        ]
        return self._written("index", (), lambda path: write_index_page(self.root.name, entries, path))

    def store(self, name: str) -> bytes:
        """The page of a store. Raises NotServed, and as `info` for a damaged one."""
        folder = self._inside(name, _STORE_FILE)

        def write(path: Path) -> None:
            described = described_store(folder)
            write_store_page(described, flat_identity(described["identity"]), path)

        return self._written("store", (name,), write, [folder])

    def runs(self, names: Sequence[str]) -> bytes:
        """The page of some runs. Raises NotServed for none or one that is not there."""
        folders = [self._inside(name, RUN_RECORD) for name in names]
        if not folders:
            raise NotServed("no run was named")

        def write(path: Path) -> None:
            try:
                rows = report_rows([read_figures(folder) for folder in run_folders(folders)])
            except UsageError as error:
                raise NotServed(str(error)) from error
            write_runs_page(rows, path)

        return self._written("runs", tuple(names), write, folders)

    def run_names(self) -> list[str]:
        """Every run below the root."""
        return sorted(path.relative_to(self.root).as_posix() for kind, path in self._found() if kind == "run")

    def is_changing(self, path: Path) -> bool:
        """Whether a process trains the run, or the store is not complete."""
        return self.locks.is_held(path) or (
            (path / _STORE_FILE).exists() and not (path / "MANIFEST.json").exists()
        )

    def changing(self, names: Sequence[str]) -> bool:
        """Whether one of them is changing."""
        return any(self.is_changing(self.root / name) for name in names)

    def _found(self) -> Iterator[tuple[str, Path]]:
        walk = os.walk(self.root, followlinks=False)
        for looked_at, (folder, below, files) in enumerate(walk, start=1):
            path = Path(folder)
            is_store, is_run = _STORE_FILE in files, RUN_RECORD in files
            if is_store or is_run:
                yield ("store" if is_store else "run"), path
            depth = len(path.relative_to(self.root).parts)
            if is_store or depth >= MAX_DEPTH or looked_at >= MAX_FOLDERS:
                below.clear()
            below[:] = sorted(name for name in below if not name.startswith("."))

    def _inside(self, name: str, file: str) -> Path:
        """The folder of that name. Raises NotServed where it is none, or leads or links out of the root."""
        try:
            folder = (self.root / name).resolve()
            is_there = folder.is_relative_to(self.root) and (folder / file).is_file()
        except (OSError, ValueError, RuntimeError):  # a name with a zero byte, a loop of links
            is_there = False
        if not is_there or "\0" in name:
            raise NotServed(f"no such page: {name!r}")
        for path in _entries(folder):
            if path.is_symlink() and not path.resolve().is_relative_to(self.root):
                raise NotServed(f"{name!r} holds a link out of the folder that is served")
        return folder

    def _written(
        self, kind: str, names: tuple[str, ...], write: Callable[[Path], object], folders: Sequence[Path] = ()
    ) -> bytes:
        state = tuple(stamp for folder in folders for stamp in _stamps(folder))
        with self._lock:  # matplotlib draws in one thread at a time
            kept = self._kept.get((kind, names))
            if folders and kept is not None and kept[0] == state:
                return kept[1]
            with TemporaryDirectory() as temporary:
                path = Path(temporary) / "page.html"
                write(path)
                page = path.read_bytes()
            while len(self._kept) >= _KEPT_PAGES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[kind, names] = state, page
            return page


def _entries(folder: Path) -> Iterator[Path]:
    """What a folder holds, and what its own folders hold."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from sorted(path.iterdir())


def _stamps(folder: Path) -> Iterator[int]:
    for path in _entries(folder):
        try:
            status = path.stat()
        except OSError:  # removed meanwhile, or a link to nowhere
            continue
        yield from (status.st_mtime_ns, status.st_size)
