"""Checkpoint files of a run: written whole beside their target, each with a SHA-256 digest.

<run>/checkpoints/step-<n>.ckpt   a Lightning checkpoint
<run>/checkpoints/best-<n>.ckpt   the head's weights with the best validation score
<run>/checkpoints/best.json       the step and score of the best weights
<run>/checkpoints/SHA256SUMS      the digest of each, as `sha256sum -c` reads it
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.json_output import write_json
from pipelines.runs.run_folder import CHECKPOINTS, checkpoints, last_checkpoint, resume_command
from stores.errors import IntegrityError
from stores.small_files import read_json

logger = logging.getLogger(__name__)

LAST, BEST = "last", "best"
DIGESTS = "SHA256SUMS"
_BEST_RECORD = "best.json"
_DIGEST_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class DamagedCheckpoint(IntegrityError):
    """A checkpoint whose bytes are not those that were written, or whose weights are not finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestScore:
    """The best validation score of a run so far."""

    step: int
    """Optimiser steps done when it was measured."""
    score: str
    """Name of the task's main score."""
    value: float


def write_checkpoint_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a checkpoint and its digest. A killed process leaves the file of before, or none.

    The digest is of the bytes in memory, so damage on the way to the disk shows too. Raises OSError where it
    cannot be written, without leaving a partial file.
    """
    digest = hashlib.sha256(content).hexdigest()
    partial = path.with_name(path.name + ".partial")
    try:
        _write_through(partial, content)
        # The digest first: a checkpoint without one would pass as that of an earlier release.
        recorded = read_digests(path.parent)
        _write_digests(path.parent, replace(recorded, of_files={**recorded.of_files, path.name: digest}))
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@dataclass(frozen=True, kw_only=True, slots=True)
class Digests:
    """The record of digests in a folder of checkpoints."""

    of_files: dict[str, str]
    """File name -> 64 hex digits."""
    unreadable: tuple[str, ...] = ()
    """Lines that are no digest and file name; those of other checkpoints still count."""


def read_digests(folder: Path) -> Digests:
    """The recorded digests of the checkpoints in a folder; empty where there is no record."""
    try:
        lines = (folder / DIGESTS).read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return Digests(of_files={})
    parsed = [(line, _DIGEST_LINE.fullmatch(line)) for line in lines]
    return Digests(
        of_files={found[2]: found[1] for _, found in parsed if found is not None},
        unreadable=tuple(line for line, found in parsed if found is None),
    )


def check_digest(path: Path) -> None:
    """Compares a checkpoint with its digest.

    Raises DamagedCheckpoint where they differ, UsageError where there is no checkpoint. A checkpoint without
    a digest, of an earlier release, passes; this is logged once a run.
    """
    recorded = read_digests(path.parent)
    expected = recorded.of_files.get(path.name)
    if expected is None and recorded.unreadable:
        raise DamagedCheckpoint(
            f"{path} cannot be checked: {path.parent / DIGESTS} is damaged, expected a digest and a file "
            f"name, found {recorded.unreadable[0][:100]!r}"
        )
    if expected is None:
        _report_without_digest(path.parent.parent)
        return
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    if found != expected:
        raise DamagedCheckpoint(
            f"{path} is damaged: its SHA-256 is {found[:16]}..., expected {expected[:16]}..."
        )


def named_checkpoint(folder: Path, name: str) -> Path:
    """The checkpoint that `last`, `best` or a step number means.

    Raises UsageError where the run has none, or `name` is none of these.
    """
    if name == LAST:
        return last_checkpoint(folder)[1]
    if name == BEST:
        best = read_best(folder)
        if best is None:
            raise UsageError(f"{folder} has no best checkpoint: no validation score was measured")
        return best_path(folder, best.step)
    found = checkpoints(folder)
    if not name.isdigit() or int(name) not in found:
        steps = ", ".join(map(str, found)) or "none"
        raise UsageError(
            f"checkpoint {name!r}: expected last, best or a step of {folder}; available: {steps}"
        )
    return found[int(name)]


def last_whole_checkpoint(folder: Path, before: int | None = None) -> tuple[int, Path] | None:
    """Step and file of the last checkpoint whose digest is right; None where there is none.

    Args:
        before: only those of fewer steps; None for all.
    """
    for step, path in reversed(checkpoints(folder).items()):
        if before is not None and step >= before:
            continue
        try:
            check_digest(path)
        except DamagedCheckpoint:
            continue
        return step, path
    return None


def best_path(folder: Path, step: int) -> Path:
    """Where the best weights are, measured after `step` optimiser steps."""
    return folder / CHECKPOINTS / f"best-{step:07d}.ckpt"


def read_best(folder: Path) -> BestScore | None:
    """The best validation score of a run; None where none is recorded."""
    try:
        best = BestScore(**read_json(folder / CHECKPOINTS / _BEST_RECORD))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return best if best_path(folder, best.step).is_file() else None


def write_best(folder: Path, best: BestScore, content: bytes | memoryview) -> None:
    """Writes the best weights and their score, then removes those of before."""
    path = best_path(folder, best.step)
    write_checkpoint_bytes(path, content)
    write_json(folder / CHECKPOINTS / _BEST_RECORD, asdict(best))
    for old in (folder / CHECKPOINTS).glob("best-*.ckpt"):
        if old != path:
            remove_checkpoint(old)


def forget_best(folder: Path) -> None:
    """Removes the best weights of a run and their score."""
    (folder / CHECKPOINTS / _BEST_RECORD).unlink(missing_ok=True)
    for old in (folder / CHECKPOINTS).glob("best-*.ckpt"):
        remove_checkpoint(old)


def remove_checkpoint(path: Path) -> None:
    """Removes a checkpoint and its digest."""
    path.unlink(missing_ok=True)
    recorded = read_digests(path.parent)
    if path.name in recorded.of_files:
        kept = {name: digest for name, digest in recorded.of_files.items() if name != path.name}
        _write_digests(path.parent, replace(recorded, of_files=kept))


def no_whole_checkpoint(folder: Path, found: list[str]) -> DamagedCheckpoint:
    """The error of a run whose every checkpoint is damaged, for what was found of each."""
    return DamagedCheckpoint(
        f"{folder} has no intact checkpoint: {'; '.join(found)}. Remove the files under "
        f"{folder / CHECKPOINTS} to begin at step 0 with: {resume_command(folder)}"
    )


@cache  # once a run
def _report_without_digest(run: Path) -> None:
    logger.warning("%s: its checkpoints have no digest (an earlier release): damage is not detected", run)


def _write_digests(folder: Path, digests: Digests) -> None:
    partial = folder / f"{DIGESTS}.partial"
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.of_files.items())]
    lines += [f"{line}\n" for line in digests.unreadable]
    try:
        _write_through(partial, "".join(lines).encode())
        partial.replace(folder / DIGESTS)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write_through(path: Path, content: bytes | memoryview) -> None:
    """Writes a file and waits until its bytes are on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
