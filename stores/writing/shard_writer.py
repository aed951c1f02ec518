"""Writes one shard of every array of a bin, then its receipt."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs.contract import Encoded
from stores.errors import CodecError, PlanError
from stores.format.array_spec import ArraySpec
from stores.format.arrays import sharded_arrays
from stores.format.canonical_json import canonical_json
from stores.format.features import CHUNK_DIGESTS, FLAT_KEYS, PACKED
from stores.format.manifest import MANIFEST_NAME
from stores.format.pixel_differences import differences
from stores.format.plan import ShardId, StorePlan
from stores.format.row_table import UNKNOWN, WRITTEN
from stores.format.targets import RaggedTarget
from stores.shards.content_digest import row_digest
from stores.shards.disk import Files, make_folders, remove_if_there, sync_folders
from stores.shards.exclusive import write_exclusive
from stores.shards.finished import FinishedShards
from stores.shards.level_rates import level_rates
from stores.shards.receipts import Receipt, receipt_path
from stores.shards.shard_file import CompressedShardFile, FileFigures, ShardFile, check_row
from stores.shards.spool import SPOOLS, SpoolFile, spool_path
from stores.shards.written_digest import hash_of
from stores.writing.row_jobs import Job, RowJobs

_MAX_REASON = 300

Rows = Mapping[str, Mapping[str, npt.NDArray[Any]]]


class ShardWriter:
    """Writes the rows of one shard in any order, then commits or aborts. Not thread-safe."""

    def __init__(
        self, files: Files, root: Path, plan: StorePlan, shard: ShardId, finished: FinishedShards
    ) -> None:
        self.shard, self.rows = shard, plan.shard_rows(shard)
        self._files, self._root, self._plan, self._finished = files, root, plan, finished
        self._writer_id = uuid.uuid4().hex
        self._generation = finished.next_generation(shard)
        self._claimed = False
        self._codecs = {level: plan.level_codec(level) for level in plan.pyramid.names}
        self._outcome = [UNKNOWN] * len(self.rows)
        self._source: list[str | None] = [None] * len(self.rows)
        self._reasons: dict[str, str] = {}
        self._ragged = {f"targets/{t.name}": t for t in plan.targets if isinstance(t, RaggedTarget)}
        self._lengths = {t.name: [0] * len(self.rows) for t in self._ragged.values()}
        is_chunked = CHUNK_DIGESTS in plan.features
        self._digester = None if is_chunked else ThreadPoolExecutor(1, "digest")
        self._jobs = RowJobs(in_order=not is_chunked)
        self._specs = sharded_arrays(plan, shard.bin)
        self._parts: dict[str, ShardFile] = {}
        self._spool: SpoolFile | None = None
        self._packed = {name: spec for name, spec in self._specs.items() if spec.packed}
        self._open_parts()

    def _open_parts(self) -> None:
        try:
            for name, spec in self._specs.items():
                if not spec.packed:
                    self._parts[name] = self._open_part(spec)
            if self._packed:
                self._spool = self._open_spool()
        except OSError:
            self.abort()
            raise

    def _open_spool(self) -> SpoolFile:
        path = self._root / spool_path(self._plan.shard_name(self.shard))
        while True:
            try:
                make_folders(self._files, self._root, SPOOLS)
                hashed = hash_of(self._plan.features)
                return SpoolFile(self._files, hashed, path, self._packed, len(self.rows), self._writer_id)
            except FileNotFoundError:  # another writer has just committed the store, and removes its spools
                if not self._is_committed():
                    raise

    def _open_part(self, spec: ArraySpec) -> ShardFile:
        relative = spec.chunk_file(self.shard.shard)
        make_folders(self._files, self._root, relative.rpartition("/")[0])
        kind = CompressedShardFile if spec.compressed else ShardFile
        path = self._root / relative
        digester = self._digester or hash_of(self._plan.features)
        return kind(self._files, digester, path, spec, len(self.rows), self._writer_id)

    def put(
        self,
        row: int,
        levels: Rows,
        targets: Mapping[str, npt.NDArray[Any]],
        *,
        source_sha256: bytes,
        pixels: npt.NDArray[Any] | None = None,
    ) -> None:
        """Writes one row of every array: large ones in other threads, several rows at once.

        Args:
            row: bin-local, one of `rows`.
            levels: for each level of the plan the codec's `encode` of this row alone: `q`
                ([time,] y, x, channel) and, for int8, `scale` float32 ([time,] channel).
            targets: for each target of the plan an array of its dtype and shape.
            source_sha256: 32 bytes, of the source file as it was read.
            pixels: uint8 ([time,] y, x, 3) where the plan stores pixels, else None.

        The memory of all arrays must not change before `wait`, `commit` or `abort` returns.

        Raises, for a row with large arrays perhaps only when `put`, `wait` or `commit` is called next:
            PlanError: a row of another shard or given twice; arrays missing, unknown, or of another shape.
            CodecError: values that the codec never produces.
            OSError: the disk failed or is full; abort, then try the shard again.
        """
        position = self._position(row)
        arrays = {f"levels/{level}/{kind}": a for level, kinds in levels.items() for kind, a in kinds.items()}
        arrays |= {f"targets/{name}": np.asarray(a) for name, a in targets.items()}
        if pixels is not None:
            arrays["pixels"] = pixels
        if arrays.keys() != self._specs.keys():
            odd = sorted(arrays.keys() ^ self._specs.keys())
            raise PlanError(f"row {row}: {', '.join(odd)} given but not planned, or planned but not given")
        self._check(row, position, arrays)
        source = _hex(source_sha256)
        is_small = not self._jobs.is_large(_length(arrays))
        if is_small:  # all values, before anything of the row is written
            for level, encoded in levels.items():
                self._check_values(row, level, encoded)
        self._jobs.run(self._jobs_of_row(row, levels, arrays, is_checked=is_small))
        for part in self._parts.values():
            part.wait()
        self._outcome[position], self._source[position] = WRITTEN, source

    def _jobs_of_row(
        self, row: int, levels: Rows, arrays: Mapping[str, npt.NDArray[Any]], *, is_checked: bool
    ) -> Iterator[Job]:
        position = row - self.rows.start
        for level, encoded in levels.items():
            yield _length(encoded), partial(self._put_level, row, level, encoded, is_checked)
        for name, part in self._parts.items():
            if not name.startswith("levels/"):
                yield arrays[name].nbytes, partial(self._put_other, part, position, arrays[name])
        if self._spool is not None:
            packed = {name: arrays[name] for name in self._packed}
            yield _length(packed), partial(self._spool.put, position, packed)

    def _put_level(self, row: int, level: str, encoded: Encoded, is_checked: bool) -> None:
        if not is_checked:
            self._check_values(row, level, encoded)
        for kind, array in encoded.items():
            if (part := self._parts.get(f"levels/{level}/{kind}")) is not None:
                part.put(row - self.rows.start, array)

    def _put_other(self, part: ShardFile, position: int, array: npt.NDArray[Any]) -> None:
        is_difference = part.spec.path.endswith("/pixels") and self._plan.pixel_differences
        part.put(position, differences(array) if is_difference else array)

    def wait(self) -> None:
        """Returns once every row put so far is written, so that its memory may be reused. Raises what `put`
        raises."""
        self._jobs.wait()

    def _position(self, row: int) -> int:
        if row not in self.rows:
            raise PlanError(f"row {row} is not in shard {self.shard}, which holds rows {self.rows}")
        if self._outcome[row - self.rows.start] != UNKNOWN:
            raise PlanError(f"row {row} was given twice")
        return row - self.rows.start

    def _check_values(self, row: int, level: str, encoded: Encoded) -> None:
        try:
            self._codecs[level].check(encoded)
        except CodecError as error:
            raise CodecError(f"row {row}, level {level}: {error}") from None

    def _check(self, row: int, position: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        for name, array in arrays.items():
            check_row(self._specs[name], array)
        if not self._ragged:
            return
        original_hw = self._plan.rows.original_hw[self._plan.global_row(self.shard.bin, row)].tolist()
        for name, target in self._ragged.items():
            array = arrays[name]
            shape = target.row_shape(original_hw, array.nbytes)
            if (
                array.dtype != np.dtype(target.dtype)
                or array.shape != shape
                or array.nbytes > target.cap_bytes
            ):
                raise PlanError(
                    f"row {row}: target {target.name} is {array.dtype} {array.shape} of {array.nbytes} "
                    f"bytes, the plan says {target.dtype} {shape} of at most {target.cap_bytes}"
                )
            self._lengths[target.name][position] = array.nbytes

    def skip(self, row: int, code: int, reason: str, *, source_sha256: bytes | None) -> None:
        """Skips a row.

        Args:
            row: bin-local, one of `rows`.
            code: 1 to 254, see stores.format.row_table.
            reason: one readable line without paths, times or hosts, since it becomes part of the store.
            source_sha256: of the source as it was read; None if it could not be read.

        Raises:
            PlanError: a row of another shard or given twice, or another code.
        """
        position = self._position(row)
        if not WRITTEN < code < UNKNOWN:
            raise PlanError(f"row {row}: outcome code {code}, expected 1 to 254")
        for part in self._parts.values():
            part.skip(position)
        if self._spool is not None:
            self._spool.skip(position)
        self._outcome[position] = code
        self._source[position] = None if source_sha256 is None else _hex(source_sha256)
        self._reasons[str(position)] = reason[:_MAX_REASON]

    def commit(self, provenance: Mapping[str, Any], errors: Mapping[str, Any]) -> bool:
        """Finishes the shard; returns whether this writer won it.

        If another writer finished the same shard first, its files are kept and these are deleted.

        Args:
            provenance: device and library versions; no time, host, path or duration.
            errors: the codec's error figures by level; the receipt adds `bits_per_value`, what a value takes
                in the files.

        Raises:
            PlanError: a row was neither put nor skipped, `provenance` or `errors` are not JSON, or another
            writer has planned other batches.
            OSError: the disk failed or is full; abort, then try the shard again.
        """
        self.wait()
        missing = [row for row, code in zip(self.rows, self._outcome, strict=True) if code == UNKNOWN]
        if missing:
            raise PlanError(f"shard {self.shard}: rows {missing[:20]} were neither put nor skipped")
        try:
            canonical_json([dict(provenance), dict(errors)])
        except (TypeError, ValueError) as error:
            raise PlanError(
                f"shard {self.shard}: provenance or errors cannot be written as JSON: {error}"
            ) from None
        receipt = self._receipt(provenance, errors)
        if self._is_committed():  # a committed store is immutable
            self.abort()
            return False
        self._finished.refuse_another_plan()
        path = self._root / receipt_path(self._plan, self.shard, self._generation)
        self._claimed = True  # from here on a receipt may name these files
        if not write_exclusive(self._files, path, receipt.to_bytes(), self._writer_id):
            self._claimed = False
            self.abort()
            self._finished.valid(self.shard)  # completes the winner's renames, in case it was killed
            return False
        if self._was_packed_before(receipt):
            remove_if_there(self._files, path)
            self._claimed = False
            self.abort()
            return False
        self._finished.finish_renames(receipt)
        if lost := self._finished.damage(receipt):  # removed by someone between the receipt and its rename
            raise OSError(
                errno.ESTALE, f"{lost} though its receipt was just created; the shard is written once more"
            )
        self._sync_new_folders()
        return True

    def _was_packed_before(self, receipt: Receipt) -> bool:
        """Whether the store was committed with another writer's receipt of this shard, which the committer
        then deleted: only for this was there room for ours."""
        if PACKED not in self._plan.features or not self._is_committed():
            return False
        counted = self._finished.packed(self.shard)[1]
        return counted is None or counted.writer != receipt.writer

    def _is_committed(self) -> bool:
        try:
            self._files.close(self._files.open(self._root / MANIFEST_NAME))
        except FileNotFoundError:
            return False
        return True

    def _receipt(self, provenance: Mapping[str, Any], errors: Mapping[str, Any]) -> Receipt:
        files = self._seal()
        return Receipt(
            shard=self.shard,
            generation=self._generation,
            writer=self._writer_id,
            plan_sha256=self._finished.plan_sha256,
            files=files,
            outcome=tuple(self._outcome),
            source=tuple(self._source),
            reasons=self._reasons,
            lengths={name: tuple(lengths) for name, lengths in self._lengths.items()},
            errors=self._with_rates(errors, files),
            provenance=provenance,
            content=self._content(),
            spool=None if self._spool is None else self._spool.figures(),
        )

    def _with_rates(self, errors: Mapping[str, Any], files: Mapping[str, FileFigures]) -> dict[str, Any]:
        written = self._outcome.count(WRITTEN)
        rates = level_rates(self._plan, self.shard, files, written) if written else {}
        return {
            **errors,
            **{lv: {**errors.get(lv, {}), "bits_per_value": bits} for lv, bits in rates.items()},
        }

    def _content(self) -> tuple[str | None, ...] | None:
        """The digest of each row, in hex; None for a skipped row, and for all of them in older stores."""
        if CHUNK_DIGESTS not in self._plan.features:
            return None
        found: list[str | None] = []
        for position, code in enumerate(self._outcome):
            arrays = {name: part.content[position] for name, part in self._parts.items() if code == WRITTEN}
            if self._spool is not None:
                arrays |= self._spool.content(position)
            found.append(row_digest(arrays).hex() if code == WRITTEN else None)
        return tuple(found)

    def _seal(self) -> dict[str, FileFigures]:
        """Finishes all files, the largest first; syncing overlaps with digesting."""
        figures: dict[str, FileFigures] = {}

        def read_back(part: ShardFile | SpoolFile) -> None:
            if isinstance(part, ShardFile):
                figures[part.spec.chunk_file(self.shard.shard)] = part.figures()

        written = self._written()
        for part in written:
            part.write_index()
        self._files.run_all([job for part in written for job in (part.sync, partial(read_back, part))])
        for part in written:
            part.close()
        if self._digester is not None:
            self._digester.shutdown(wait=False)
        return {path: figures[path] for path in self._finished.paths(self.shard)}

    def _written(self) -> list[ShardFile | SpoolFile]:
        """All files of this shard, the largest first."""
        parts = sorted(self._parts.values(), key=lambda part: -part.spec.row_bytes)
        return [*parts, *([] if self._spool is None else [self._spool])]

    def _sync_new_folders(self) -> None:
        """Syncs the folders that this shard created: all between its files and their arrays."""
        if FLAT_KEYS in self._plan.features:  # none but that of the array, which its rename has synced
            return
        folders = {
            self._root.joinpath(*part.spec.chunk_file(self.shard.shard).split("/")[: -depth - 1])
            for part in self._parts.values()
            for depth in range(1, len(part.spec.shape) + 1)
        }
        sync_folders(self._files, sorted(folders))

    def abort(self) -> None:
        """Discards the shard and deletes its files; may be called twice and after a commit.

        If a commit failed half-way and its receipt exists, the files belong to it and are kept.
        """
        self._jobs.end()  # they use descriptors that are closed now
        receipt = self._finished.latest(self.shard)[1] if self._claimed else None
        for part in self._written():
            part.close()
            if receipt is None or receipt.writer != self._writer_id:
                part.discard()
        if self._digester is not None:
            self._digester.shutdown(wait=False)


def _length(arrays: Encoded) -> int:
    """Bytes of all of them."""
    return sum(array.nbytes for array in arrays.values())


def _hex(source_sha256: bytes) -> str:
    if len(source_sha256) != 32:
        raise PlanError(f"source_sha256 has {len(source_sha256)} bytes, expected 32")
    return source_sha256.hex()
