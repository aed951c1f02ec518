"""All arrays of a store, computed from its plan: paths, shapes, chunks and Zarr v3 metadata.

Two kinds. A *sharded* array holds what readers fetch by row: one chunk a row, S rows a shard file. A
*table* holds a few bytes a row in one chunk, is read whole and is bound by a digest. Beside every sharded
array stands a table of the CRC32C of its stored chunks. Readers compare with that table, because the CRC32C
inside a shard also matches in a stale, swapped or foreign shard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stores.codecs import codec
from stores.format.array_names import DIGEST_DIM, KEY_DIM, PIXEL_DIMS, level_attributes, part_dim, target_dims
from stores.format.array_spec import FORMAT_NAME, FORMAT_VERSION, ArraySpec, absent_fill
from stores.format.canonical_json import canonical_json
from stores.format.features import CONSOLIDATED, FLAT_KEYS, MAX_CONSOLIDATED_BYTES, NAMES
from stores.format.row_table import RowTable
from stores.format.targets import DenseTarget, RaggedTarget, Target
from stores.pyramid import PyramidSpec

_COMPRESSED_SHARE = {"pixels": 0.7, "differences": 0.5, "targets": 1 / 16}
"""Compressed over raw size, for estimates only; measured on views of COCO: pixels 0.67, differences 0.46."""
_JSON_FILE_BYTES = 700
"""A typical zarr.json, for estimates only."""


class PlannedBin(Protocol):
    """Geometry of the rows of one padded size; `stores.format.plan.Bin` is one."""

    @property
    def name(self) -> str: ...
    @property
    def height_px(self) -> int: ...
    @property
    def width_px(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def shard_rows(self) -> int: ...
    @property
    def shards(self) -> int: ...


class PlannedStore(Protocol):
    """The parts of a plan that the arrays depend on; `stores.format.plan.StorePlan` is one."""

    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def pyramid(self) -> PyramidSpec: ...
    @property
    def codec(self) -> str: ...
    @property
    def bins(self) -> Sequence[PlannedBin]: ...
    @property
    def targets(self) -> Sequence[Target]: ...
    @property
    def rows(self) -> RowTable: ...
    @property
    def frames(self) -> int | None: ...
    @property
    def pixels(self) -> bool: ...
    @property
    def pixel_differences(self) -> bool: ...
    @property
    def planned_tables(self) -> Mapping[str, ArraySpec]: ...
    @property
    def bin_rows(self) -> Sequence[npt.NDArray[np.int64]]: ...
    @property
    def features(self) -> Collection[str]: ...


def _table(features: Collection[str], path: str, dtype: str, shape: tuple[int, ...], *dims: str) -> ArraySpec:
    exact, flat = np.dtype(dtype), FLAT_KEYS in features
    return ArraySpec(
        path=path, dtype=exact, shape=shape, dims=("row", *dims), fill=absent_fill(exact), flat=flat
    )


def planned_tables(
    rows: int, key_bytes: int, view_params: int, features: Collection[str]
) -> dict[str, ArraySpec]:
    """The tables written at creation, as RowTable.to_tables names them; one without columns is left out."""
    table = partial(_table, features)
    tables = {
        "key": table("rows/key", "u1", (rows, key_bytes), KEY_DIM if NAMES in features else "byte"),
        "view": table("rows/view", "<i4", (rows,)),
        "params": table("rows/params", "<f8", (rows, view_params), "parameter"),
        "bin": table("rows/bin", "<i4", (rows,)),
        "padded_hw": table("rows/padded_hw", "<i4", (rows, 2), "axis"),
        "valid_hw": table("rows/valid_hw", "<i4", (rows, 2), "axis"),
        "original_hw": table("rows/original_hw", "<i4", (rows, 2), "axis"),
    }
    return {name: spec for name, spec in tables.items() if spec.total_bytes}


def outcome_tables(plan: PlannedStore) -> dict[str, ArraySpec]:
    """The tables of each row's outcome and source digest, written at commit."""
    rows, byte = len(plan.rows), DIGEST_DIM if NAMES in plan.features else "byte"
    return {
        "outcome": _table(plan.features, "rows/outcome", "u1", (rows,)),
        "source": _table(plan.features, "rows/source", "u1", (rows, 32), byte),
    }


def sharded_arrays(plan: PlannedStore, bin_index: int) -> dict[str, ArraySpec]:
    """The sharded arrays of a bin by their path below the bin's folder, in a fixed order."""
    b = plan.bins[bin_index]
    time, time_dim = ((plan.frames,), ("time",)) if plan.frames else ((), ())
    made, named = codec(plan.codec), NAMES in plan.features
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
            flat=FLAT_KEYS in plan.features,
            **more,
        )

    for lv in plan.pyramid:
        cells = (lv.cells(b.height_px), lv.cells(b.width_px))
        for kind, part in made.parts(lv.channels).items():
            axes = dict(zip(("y", "x"), cells, strict=True)) if part.per_cell else {}
            dims = (*time_dim, *axes, part_dim(kind, part.dim) if named else part.dim)
            describing = level_attributes(plan.codec, lv, ("row", *dims)) if named and kind == "q" else {}
            add(
                f"levels/{lv.name}/{kind}",
                part.dtype,
                (*time, *axes.values(), part.width),
                dims,
                fill=part.fill,
                attributes={**part.attributes, **describing},
            )
    if plan.pixels:
        shape = (*time, b.height_px, b.width_px, 3)
        dims, attributes = (*time_dim, *(PIXEL_DIMS if named else ("y", "x", "channel"))), {}
        if plan.pixel_differences:
            attributes = {"encoding": "differences"}
        add("pixels", np.dtype("u1"), shape, dims, compressed=True, attributes=attributes)
    for target in plan.targets:
        dims = target_dims(target) if named else _unnamed_dims(target)
        name = f"targets/{target.name}"
        if isinstance(target, RaggedTarget):
            add(name, np.dtype("u1"), (target.cap_bytes,), dims, compressed=True, ragged=True)
        else:
            dtype = np.dtype(target.dtype).newbyteorder("<")
            add(name, dtype, target.row_shape(b.height_px, b.width_px), dims, compressed=True)
    return specs


def _unnamed_dims(target: Target) -> tuple[str, ...]:
    """Dimensions of a target in stores without the feature `names`."""
    if isinstance(target, RaggedTarget):
        return ("byte",)
    return tuple(s if isinstance(s, str) else f"dim_{i}" for i, s in enumerate(target.shape))


def bin_tables(plan: PlannedStore, bin_index: int) -> dict[str, ArraySpec]:
    """The tables of a bin by path below its folder: CRC32C of sharded arrays, lengths of ragged rows."""
    b, root = plan.bins[bin_index], f"bins/{plan.bins[bin_index].name}/"
    paths = {spec.crc_path: "<u4" for spec in sharded_arrays(plan, bin_index).values()}
    for target in plan.targets:
        if isinstance(target, RaggedTarget):
            paths[f"{root}targets/{target.name}_bytes"] = "<i4"
    table = partial(_table, plan.features)
    return {path.removeprefix(root): table(path, dtype, (b.rows,)) for path, dtype in paths.items()}


def all_arrays(plan: PlannedStore) -> Iterator[ArraySpec]:
    """Every array of the store."""
    yield from plan.planned_tables.values()
    yield from outcome_tables(plan).values()
    for index in range(len(plan.bins)):
        yield from sharded_arrays(plan, index).values()
        yield from bin_tables(plan, index).values()


def metadata_files(plan: PlannedStore) -> dict[str, dict[str, Any]]:
    """The content of every zarr.json by path: one for each array, and a group for each folder above it."""
    arrays = {spec.path: spec.metadata() for spec in all_arrays(plan)}
    parents = {
        "/".join(path.split("/")[:depth]) for path in arrays for depth in range(1, path.count("/") + 1)
    }
    groups = {path: {"zarr_format": 3, "node_type": "group", "attributes": {}} for path in parents}
    root = {"format": {"name": FORMAT_NAME, "version": FORMAT_VERSION}, "identity": plan.identity}
    nodes: dict[str, dict[str, Any]] = dict(sorted({**arrays, **groups}.items()))
    whole: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": root}
    files = {"zarr.json": whole, **{f"{path}/zarr.json": content for path, content in nodes.items()}}
    if CONSOLIDATED in plan.features:
        tables = {
            path.removeprefix("rows/"): node for path, node in nodes.items() if path.startswith("rows/")
        }
        files["rows/zarr.json"] = _consolidated(nodes["rows"], tables)
        files["zarr.json"] = _consolidated(whole, nodes)
    return files


def _consolidated(group: dict[str, Any], nodes: Mapping[str, Any]) -> dict[str, Any]:
    """A group's zarr.json with the metadata of all below it, which zarr-python then finds in one read;
    without, where they would be too large."""
    found = {"kind": "inline", "must_understand": False, "metadata": dict(nodes)}
    whole = {**group, "consolidated_metadata": found}
    return whole if len(canonical_json(whole)) < MAX_CONSOLIDATED_BYTES else group


def estimated_bytes(plan: PlannedStore) -> int:
    """Bytes on disk: exact for features, scales and tables, an estimate for compressed arrays."""
    total = compressed_estimate(plan)
    for index, b in enumerate(plan.bins):
        for spec in sharded_arrays(plan, index).values():
            total += b.shards * spec.index_bytes + (0 if spec.compressed else b.rows * spec.stored_row_bytes)
        total += b.shards * _JSON_FILE_BYTES
    tables = [spec for spec in all_arrays(plan) if spec.shard_rows is None]
    return (
        int(total) + sum(spec.total_bytes for spec in tables) + _JSON_FILE_BYTES * len(metadata_files(plan))
    )


def compressed_estimate(plan: PlannedStore) -> float:
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


def _raw_target_bytes(plan: PlannedStore, bin_index: int, name: str, dense_bytes: int) -> int:
    target = next(target for target in plan.targets if target.name == name)
    if isinstance(target, DenseTarget):
        return dense_bytes
    return sum(target.planned_bytes(hw) for hw in plan.rows.original_hw[plan.bin_rows[bin_index]].tolist())
