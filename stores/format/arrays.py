"""The arrays of a store: their paths, shapes, chunks and Zarr v3 metadata, all of which follow from the plan.

Two kinds. A *sharded* array holds what readers fetch by row: one chunk a row, S rows a shard file. A
*table* holds a few bytes a row in one chunk, is read whole and is bound by a digest. Beside every sharded
array stands a table of the CRC32C of its stored chunks: what a reader compares with, because the four bytes
inside a shard are as valid in a stale, swapped or foreign shard as in the right one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.codecs import codec
from stores.format.targets import DenseTarget, RaggedTarget

if TYPE_CHECKING:
    from stores.format.plan import StorePlan

FORMAT_NAME = "permafrost-store"
FORMAT_VERSION = 1
ZSTD_LEVEL = 3
CRC_BYTES = 4
_INDEX_ENTRY_BYTES = 16
_COMPRESSED_SHARE = {"pixels": 0.7, "differences": 0.5, "targets": 1 / 16}
"""What zstd leaves of photographs, of their differences and of label maps, for estimates only: 0.67 and 0.46
of views of COCO's images."""
_JSON_FILE_BYTES = 700
"""A typical zarr.json, for estimates only."""


def absent_fill(dtype: np.dtype[Any]) -> int | float | bool:
    """The fill of tables and targets: the value least likely to be taken for data."""
    if dtype.kind == "f":
        return float("nan")
    if dtype.kind == "b":
        return False
    return int(np.iinfo(dtype).max if dtype.kind == "u" else np.iinfo(dtype).min)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One Zarr array."""

    path: str
    """From the root of the store, with slashes."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    fill: int | float | bool
    shard_rows: int | None = None
    """S of a sharded array; None for a table."""
    compressed: bool = False
    """Whether chunks are zstd frames."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Of the Zarr array, such as the `logical_dtype` of packed codes."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def total_bytes(self) -> int:
        """Bytes of the decoded array."""
        return self.shape[0] * self.row_bytes

    @property
    def stored_row_bytes(self) -> int:
        """Bytes of a chunk in its shard file, where chunks are not compressed: the row and its CRC32C."""
        return self.row_bytes + CRC_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of the index that ends a shard file: S entries, also in a shorter last one, and a CRC32C."""
        return _INDEX_ENTRY_BYTES * (self.shard_rows or 0) + CRC_BYTES

    @property
    def crc_path(self) -> str:
        """Where the CRC32C of the chunks of this sharded array stand."""
        return self.path.removesuffix("q") + "crc" if self.path.endswith("/q") else self.path + "_crc"

    def chunk_file(self, shard: int = 0) -> str:
        """The path of a shard file, or of a table's only chunk."""
        return "/".join((self.path, "c", str(shard), *("0" for _ in self.shape[1:])))

    def metadata(self) -> dict[str, Any]:
        """The array's zarr.json."""
        endian = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        to_bytes = {"name": "bytes", **endian}
        if self.shard_rows is None:
            chunk_shape, codecs = list(self.shape), [to_bytes]
        else:
            chunk_shape, codecs = [self.shard_rows, *self.row_shape], [self._sharding(to_bytes)]
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": "NaN" if isinstance(self.fill, float) else self.fill,
            "codecs": codecs,
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dims),
        }

    def _sharding(self, to_bytes: dict[str, Any]) -> dict[str, Any]:
        zstd = [{"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}}]
        crc = {"name": "crc32c"}
        return {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, *self.row_shape],
                "codecs": [to_bytes, *(zstd if self.compressed else []), crc],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, crc],
                "index_location": "end",
            },
        }


def _table(path: str, dtype: str, shape: tuple[int, ...], *dims: str) -> ArraySpec:
    exact = np.dtype(dtype)
    return ArraySpec(path=path, dtype=exact, shape=shape, dims=("row", *dims), fill=absent_fill(exact))


def planned_tables(rows: int, key_bytes: int, view_params: int) -> dict[str, ArraySpec]:
    """The tables written at creation, as RowTable.to_tables names them; one without columns is left out."""
    tables = {
        "key": _table("rows/key", "u1", (rows, key_bytes), "byte"),
        "view": _table("rows/view", "<i4", (rows,)),
        "params": _table("rows/params", "<f8", (rows, view_params), "parameter"),
        "bin": _table("rows/bin", "<i4", (rows,)),
        "padded_hw": _table("rows/padded_hw", "<i4", (rows, 2), "axis"),
        "valid_hw": _table("rows/valid_hw", "<i4", (rows, 2), "axis"),
        "original_hw": _table("rows/original_hw", "<i4", (rows, 2), "axis"),
    }
    return {name: spec for name, spec in tables.items() if spec.total_bytes}


def outcome_tables(rows: int) -> dict[str, ArraySpec]:
    """The tables of what became of each row, written by the committer."""
    return {
        "outcome": _table("rows/outcome", "u1", (rows,)),
        "source": _table("rows/source", "u1", (rows, 32), "byte"),
    }


def sharded_arrays(plan: StorePlan, bin_index: int) -> dict[str, ArraySpec]:
    """The sharded arrays of a bin by their path below the bin's folder, in a fixed order."""
    b = plan.bins[bin_index]
    time, time_dim = ((plan.frames,), ("time",)) if plan.frames else ((), ())
    made = codec(plan.codec)
    specs: dict[str, ArraySpec] = {}

    def add(
        name: str, dtype: np.dtype[Any], row_shape: tuple[int, ...], dims: tuple[str, ...], **more: Any
    ) -> None:
        more.setdefault("fill", absent_fill(dtype))
        specs[name] = ArraySpec(
            path=f"bins/{b.name}/{name}",
            dtype=dtype,
            shape=(b.rows, *row_shape),
            dims=("row", *dims),
            shard_rows=b.shard_rows,
            **more,
        )

    for lv in plan.pyramid:
        cells = (lv.cells(b.height_px), lv.cells(b.width_px))
        for kind, part in made.parts(lv.channels).items():
            axes = dict(zip(("y", "x"), cells, strict=True)) if part.per_cell else {}
            add(
                f"levels/{lv.name}/{kind}",
                part.dtype,
                (*time, *axes.values(), part.width),
                (*time_dim, *axes, part.dim),
                fill=part.fill,
                attributes=part.attributes,
            )
    if plan.pixels:
        shape = (*time, b.height_px, b.width_px, 3)
        dims, told = (*time_dim, "y", "x", "channel"), {}
        if plan.pixel_differences:
            told = {"encoding": "differences"}
        add("pixels", np.dtype("u1"), shape, dims, compressed=True, attributes=told)
    for target in plan.targets:
        if isinstance(target, RaggedTarget):
            add(f"targets/{target.name}", np.dtype("u1"), (target.cap_bytes,), ("byte",), compressed=True)
        else:
            dtype = np.dtype(target.dtype).newbyteorder("<")
            dims = tuple(s if isinstance(s, str) else f"dim_{i}" for i, s in enumerate(target.shape))
            add(
                f"targets/{target.name}",
                dtype,
                target.row_shape(b.height_px, b.width_px),
                dims,
                compressed=True,
            )
    return specs


def bin_tables(plan: StorePlan, bin_index: int) -> dict[str, ArraySpec]:
    """The tables of a bin by their path below its folder: crcs of sharded arrays, lengths of ragged rows."""
    b, root = plan.bins[bin_index], f"bins/{plan.bins[bin_index].name}/"
    paths = {spec.crc_path: "<u4" for spec in sharded_arrays(plan, bin_index).values()}
    for target in plan.targets:
        if isinstance(target, RaggedTarget):
            paths[f"{root}targets/{target.name}_bytes"] = "<i4"
    return {path.removeprefix(root): _table(path, dtype, (b.rows,)) for path, dtype in paths.items()}


def all_arrays(plan: StorePlan) -> Iterator[ArraySpec]:
    """Every array of the store."""
    yield from plan.planned_tables.values()
    yield from outcome_tables(len(plan.rows)).values()
    for index in range(len(plan.bins)):
        yield from sharded_arrays(plan, index).values()
        yield from bin_tables(plan, index).values()


def metadata_files(plan: StorePlan) -> dict[str, dict[str, Any]]:
    """The content of every zarr.json by its path: the arrays, and a group in each folder above one."""
    arrays = {spec.path: spec.metadata() for spec in all_arrays(plan)}
    parents = {
        "/".join(path.split("/")[:depth]) for path in arrays for depth in range(1, path.count("/") + 1)
    }
    groups = {path: {"zarr_format": 3, "node_type": "group", "attributes": {}} for path in parents}
    root = {"format": {"name": FORMAT_NAME, "version": FORMAT_VERSION}, "identity": plan.identity}
    files = {f"{path}/zarr.json": content for path, content in sorted({**arrays, **groups}.items())}
    return {"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": root}, **files}


def estimated_bytes(plan: StorePlan) -> int:
    """Bytes on disk: exact for features, scales and tables, by rule of thumb for the rest."""
    total = compressed_estimate(plan)
    for index, b in enumerate(plan.bins):
        for spec in sharded_arrays(plan, index).values():
            total += b.shards * spec.index_bytes + (0 if spec.compressed else b.rows * spec.stored_row_bytes)
        total += b.shards * _JSON_FILE_BYTES
    tables = [spec for spec in all_arrays(plan) if spec.shard_rows is None]
    return (
        int(total) + sum(spec.total_bytes for spec in tables) + _JSON_FILE_BYTES * len(metadata_files(plan))
    )


def compressed_estimate(plan: StorePlan) -> float:
    """The part of `estimated_bytes` that is compressed: targets and pixels."""
    total = 0.0
    for index, b in enumerate(plan.bins):
        for name, spec in sharded_arrays(plan, index).items():
            if spec.compressed:
                raw = b.rows * spec.stored_row_bytes
                if name.startswith("targets/"):
                    raw = _raw_target_bytes(plan, index, name.removeprefix("targets/"), raw)
                kind = name.split("/")[0]
                if name == "pixels" and plan.pixel_differences:
                    kind = "differences"
                total += _COMPRESSED_SHARE[kind] * raw
    return total


def _raw_target_bytes(plan: StorePlan, bin_index: int, name: str, dense_bytes: int) -> int:
    target = next(target for target in plan.targets if target.name == name)
    if isinstance(target, DenseTarget):
        return dense_bytes
    return sum(target.planned_bytes(hw) for hw in plan.rows.original_hw[plan.bin_rows[bin_index]].tolist())
