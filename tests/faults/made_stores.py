"""Small stores whose rows are pure functions of a seed, to compare with a plain numpy copy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.codecs import codec
from stores.codecs.contract import FittedCodec
from stores.format.features import NEW_OPTIONAL, NEW_REQUIRED
from stores.format.plan import Bin, DenseTarget, RaggedTarget, ShardId, StorePlan, Target
from stores.format.row_table import UNDECODABLE, RowTable
from stores.pyramid import Level, PyramidSpec
from stores.shards.disk import Files
from stores.writing.writer import StoreWriter

Array = npt.NDArray[Any]
Place = tuple[int, int]
"""A bin's index and a row of it."""

P5 = Level(name="p5", stride_px=32, channels=3, stage=4)
P5N = Level(name="p5n", stride_px=32, channels=3, stage=4)
P4 = Level(name="p4", stride_px=16, channels=2, stage=3)
LABELS = DenseTarget("labels", "uint8", ("y", "x"))
ORIGINAL_LABELS = RaggedTarget("original_labels", "uint8", ("original_y", "original_x"), 96)
TARGETS: tuple[Target, ...] = (LABELS, ORIGINAL_LABELS)

THREE_SHARDS = (
    Bin(height_px=32, width_px=64, rows=3, shard_rows=2, batch_rows=2),
    Bin(height_px=64, width_px=32, rows=3, shard_rows=4, batch_rows=2),
)
"""Two bins, three shards, both last ones partial: the smallest plan that covers every case of a writer."""


NEW_LAYOUT: dict[str, tuple[str, ...]] = {
    "required_features": NEW_REQUIRED,
    "optional_features": NEW_OPTIONAL,
}


def small_plan(
    codec_name: str = "int8",
    *,
    bins: tuple[Bin, ...] = THREE_SHARDS,
    levels: tuple[Level, ...] = (P5,),
    targets: tuple[Target, ...] = TARGETS,
    views: int = 2,
    seed: int = 0,
    **more: Any,
) -> StorePlan:
    """A plan whose rows go through the bins in turn, view by view; `seed` stands in its identity."""
    left = [b.rows for b in bins]
    bin_of: list[int] = []
    while any(left):
        for index in range(len(bins)):
            if left[index]:
                left[index] -= 1
                bin_of.append(index)
    rows = len(bin_of)
    records = -(-rows // views)
    position = np.arange(rows, dtype=np.int32)
    padded = np.array([(bins[i].height_px, bins[i].width_px) for i in bin_of], dtype=np.int32)
    table = RowTable(
        keys=tuple(f"record-{r % records}" for r in range(rows)),
        view=position // records,
        params=np.stack([position / 8, position % 2], axis=1).astype(np.float64),
        bin=np.array(bin_of, dtype=np.int32),
        padded_hw=padded,
        valid_hw=padded - position[:, None] % 4,
        original_hw=np.stack([5 + position % 4, 7 + position % 3], axis=1),
    )
    return StorePlan(
        name=f"made-training-nano-{codec_name}",
        identity={"dataset": "made", "codec": codec_name, "views": {"count": views, "seed": seed}},
        pyramid=PyramidSpec(levels),
        codec=codec_name,
        codec_settings={},
        bins=bins,
        targets=targets,
        view_params=("scale", "flip"),
        rows=table,
        **more,
    )


def places(plan: StorePlan) -> list[Place]:
    """Every planned row, in plan order."""
    local = [iter(range(b.rows)) for b in plan.bins]
    return [(int(index), next(local[index])) for index in plan.rows.bin]


def fitted(plan: StorePlan) -> StorePlan:
    """The plan with a state of its codec, fitted to the kind of features that MadeRows makes."""
    made = codec(plan.codec)
    assert isinstance(made, FittedCodec)
    noise = {
        lv.name: np.random.default_rng(lv.channels).standard_normal((20, 4, 4, lv.channels), np.float32)
        for lv in plan.pyramid
    }
    return plan.with_state({level: made.fit(x) for level, x in noise.items()})


@dataclass(frozen=True, slots=True)
class MadeRows:
    """Data of the rows of a plan; another seed gives other bytes for the same plan."""

    plan: StorePlan
    seed: int = 0
    skipped: frozenset[Place] = frozenset({(1, 1)})
    """Rows of records that do not decode."""

    def _generator(self, bin_index: int, row: int, purpose: str) -> np.random.Generator:
        text = f"{self.seed} {bin_index} {row} {purpose}"
        return np.random.default_rng(list(hashlib.sha256(text.encode()).digest()))

    def features(self, bin_index: int, row: int) -> dict[str, Array]:
        """float32 ([time,] y, x, channel) by level, one channel of them zero throughout."""
        b = self.plan.bins[bin_index]
        time = () if self.plan.frames is None else (self.plan.frames,)
        made = {}
        for lv in self.plan.pyramid:
            shape = (*time, lv.cells(b.height_px), lv.cells(b.width_px), lv.channels)
            made[lv.name] = self._generator(bin_index, row, lv.name).standard_normal(shape, np.float32)
            made[lv.name][..., -1] = 0
        return made

    @cache  # noqa: B019 - a few rows of a few stores
    def encoded(self, bin_index: int, row: int) -> dict[str, dict[str, Array]]:
        return {
            level: self.plan.level_codec(level).encode(x)
            for level, x in self.features(bin_index, row).items()
        }

    @cache  # noqa: B019
    def targets(self, bin_index: int, row: int) -> dict[str, Array]:
        b = self.plan.bins[bin_index]
        original = self.plan.rows.original_hw[self.plan.global_row(bin_index, row)].tolist()
        made: dict[str, Array] = {}
        for target in self.plan.targets:
            generator = self._generator(bin_index, row, target.name)
            if isinstance(target, DenseTarget):
                shape = target.row_shape(b.height_px, b.width_px)
            elif -1 in target.shape:  # so many boxes, perhaps none
                shape = tuple(int(generator.integers(4)) if size == -1 else size for size in target.shape)  # type: ignore[misc]
            else:
                shape = (original[0], original[1])
            made[target.name] = generator.integers(0, 6, shape).astype(target.dtype)
        return made

    def pixels(self, bin_index: int, row: int) -> Array | None:
        """uint8 ([time,] y, x, 3) where the plan stores them."""
        if not self.plan.pixels:
            return None
        b = self.plan.bins[bin_index]
        time = () if self.plan.frames is None else (self.plan.frames,)
        return (
            self._generator(bin_index, row, "pixels")
            .integers(0, 256, (*time, b.height_px, b.width_px, 3))
            .astype(np.uint8)
        )

    def source_sha256(self, bin_index: int, row: int) -> bytes:
        key = self.plan.rows.keys[self.plan.global_row(bin_index, row)]
        return hashlib.sha256(key.encode()).digest()

    def written(self) -> list[Place]:
        """Every row that holds data, in plan order: the rows of an open store."""
        return [place for place in places(self.plan) if place not in self.skipped]

    def copies(self) -> dict[Place, dict[str, Array]]:
        """The plain numpy copy: every array of every written row, by its path below the bin's folder."""
        return {place: self._copy(*place) for place in self.written()}

    def _copy(self, bin_index: int, row: int) -> dict[str, Array]:
        copy = {
            f"levels/{level}/{kind}": array
            for level, arrays in self.encoded(bin_index, row).items()
            for kind, array in arrays.items()
        }
        copy |= {f"targets/{name}": array for name, array in self.targets(bin_index, row).items()}
        pixels = self.pixels(bin_index, row)
        return copy if pixels is None else {**copy, "pixels": pixels}


def fill_shard(writer: StoreWriter, shard: ShardId, rows: MadeRows) -> bool:
    """Writes a shard as an extractor does, rows out of order; returns whether this writer won it."""
    shard_writer = writer.open_shard(shard)
    try:
        for row in reversed(shard_writer.rows):
            place = shard.bin, row
            source = rows.source_sha256(*place)
            if place in rows.skipped:
                shard_writer.skip(row, UNDECODABLE, "not an image", source_sha256=source)
                continue
            shard_writer.put(
                row,
                rows.encoded(*place),
                rows.targets(*place),
                source_sha256=source,
                pixels=rows.pixels(*place),
            )
        return shard_writer.commit({"numpy": "2"}, {"p5": {"median": 0.5}})
    except OSError:
        shard_writer.abort()
        raise


def fill_shards(root: Path, rows: MadeRows, files: Files | None = None) -> dict[ShardId, bool]:
    """Runs or resumes an extraction without the manifest; returns the shards this writer won."""
    writer = StoreWriter.open_or_create(root, rows.plan, files=files)
    return {shard: fill_shard(writer, shard, rows) for shard in writer.pending()}


def extract(root: Path, rows: MadeRows, files: Files | None = None) -> dict[ShardId, bool]:
    """Runs or resumes a whole extraction; returns the shards this writer won."""
    won = fill_shards(root, rows, files)
    StoreWriter.open_or_create(root, rows.plan, files=files).finish()
    return won
