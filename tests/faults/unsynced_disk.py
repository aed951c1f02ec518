"""A disk that forgets what was not synced when its machine loses power."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from stores.shards.disk import Buffer
from tests.faults.faulty_files import Fault, FaultyFiles


class UnsyncedDisk:
    """Changes of the machine's processes that are not synced yet.

    Stricter than any file system: a name is lost unless its own folder was synced after it was made, removed
    or changed, whatever else was synced.
    """

    def __init__(self, attic: Path) -> None:
        self._attic = attic
        """Folder of unlinked files, since their names may come back."""
        self._safe_bytes: dict[int, tuple[int, int]] = {}
        """By inode: a descriptor, and the bytes that are synced."""
        self._undo: list[tuple[Path, Callable[[], None]]] = []
        attic.mkdir()

    def write(self, fd: int) -> None:
        """Records a file before it is written to."""
        inode = os.fstat(fd).st_ino
        if inode not in self._safe_bytes:
            self._safe_bytes[inode] = os.dup(fd), os.fstat(fd).st_size

    def sync(self, fd: int) -> None:
        spare = self._safe_bytes.pop(os.fstat(fd).st_ino, None)
        if spare is not None:
            os.close(spare[0])

    def change(self, folder: Path, undo: Callable[[], None]) -> None:
        """Records a name that was created or removed in this folder."""
        self._undo.append((folder, undo))

    def sync_folder(self, path: Path) -> None:
        self._undo = [(folder, undo) for folder, undo in self._undo if folder != path]

    def keep(self, path: Path) -> Path | None:
        """Another name of the file at this path, which is about to be removed."""
        if not path.is_file():
            return None
        kept = self._attic / str(len(list(self._attic.iterdir())))
        os.link(path, kept)
        return kept

    def lose_power(self) -> None:
        for fd, safe_bytes in self._safe_bytes.values():
            os.ftruncate(fd, safe_bytes)
            os.close(fd)
        self._safe_bytes.clear()
        for _, undo in reversed(self._undo):
            try:
                undo()
            except (FileNotFoundError, NotADirectoryError):  # its folder is gone already
                continue
        self._undo.clear()


class FilesOnUnsyncedDisk(FaultyFiles):
    """A process that writes to such a disk. A kill of the process alone loses nothing."""

    def __init__(self, disk: UnsyncedDisk, faults: Mapping[int, Fault] | None = None) -> None:
        super().__init__(faults)
        self._disk = disk

    def write(self, fd: int, parts: Sequence[Buffer], offset: int) -> int:
        self._disk.write(fd)
        return super().write(fd, parts, offset)

    def sync(self, fd: int) -> None:
        super().sync(fd)
        self._disk.sync(fd)

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self._disk.sync_folder(path)

    def make_folder(self, path: Path) -> None:
        new = not path.exists()
        super().make_folder(path)
        if new:
            self._disk.change(path.parent, partial(shutil.rmtree, path))

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._disk.change(path.parent, partial(os.unlink, path))
        return fd

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._disk.change(target.parent, partial(os.unlink, target))

    def rename(self, source: Path, target: Path) -> None:
        kept = self._disk.keep(target)
        super().rename(source, target)

        def undo() -> None:
            os.rename(target, source)
            if kept is not None:
                os.link(kept, target)

        self._disk.change(target.parent, undo)

    def unlink(self, path: Path) -> None:
        kept = self._disk.keep(path)
        super().unlink(path)
        if kept is not None:
            self._disk.change(path.parent, partial(os.link, kept, path))
