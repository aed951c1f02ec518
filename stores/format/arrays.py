"""All arrays of a store, computed from its plan: paths, shapes, chunks and Zarr v3 metadata.

Two kinds. A *sharded* array holds what readers fetch by row: one chunk a row, S rows a shard file. A
*table* holds a few bytes a row in one chunk, is read whole and is bound by a digest. Beside every sharded
array stands a table of the CRC32C of its stored chunks. Readers compare with that table, because the CRC32C
inside a shard also matches in a stale, swapped or foreign shard.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stores.codecs import codec
from stores.codecs.contract import State
from stores.format.array_names import DIGEST_DIM, KEY_DIM, PIXEL_DIMS, level_attributes, part_dim, target_dims
from stores.format.array_spec import FORMAT_NAME, FORMAT_VERSION, ZSTD_LEVEL, ArraySpec, absent_fill
from stores.format.canonical_json import canonical_json
from stores.format.features import CONSOLIDATED, FLAT_KEYS, MAX_CONSOLIDATED_BYTES, NAMES, PACKED
from stores.format.packing import packed_shard_rows
from stores.format.row_table import RowTable
from stores.format.targets import RaggedTarget, Target
from stores.pyramid import PyramidSpec


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
    @property
    def own_shards(self) -> Collection[str]: ...
    @property
    def codec_state(self) -> Mapping[str, State] | None: ...
    @property
    def codec_root(self) -> str | None: ...


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


def state_tables(plan: PlannedStore) -> dict[str, dict[str, ArraySpec]]:
    """The arrays of a fitted codec by level and name. Their folder is named by their digest, since they are
    written before plan.json, which decides whose are taken."""
    found: dict[str, dict[str, ArraySpec]] = {}
    if plan.codec_state is None:
        return found
    for level, state in plan.codec_state.items():
        found[level] = {
            name: state_table(f"{plan.codec_root}/{level}/{name}", array.dtype, array.shape, plan.features)
            for name, array in state.items()
        }
    return found


def state_table(
    path: str, dtype: np.dtype[Any], shape: tuple[int, ...], features: Collection[str]
) -> ArraySpec:
    """One array of a fitted codec."""
    name, exact = path.rpartition("/")[2], dtype.newbyteorder("<")
    dims = tuple(f"{name}_dim_{axis}" for axis in range(len(shape)))
    fill, flat = absent_fill(exact), FLAT_KEYS in features
    return ArraySpec(path=path, dtype=exact, shape=shape, dims=dims, fill=fill, flat=flat)


def sharded_arrays(plan: PlannedStore, bin_index: int) -> dict[str, ArraySpec]:
    """The sharded arrays of a bin by their path below the bin's folder, in a fixed order."""
    b = plan.bins[bin_index]
    time, time_dim = ((plan.frames,), ("time",)) if plan.frames else ((), ())
    made, named = codec(plan.codec), NAMES in plan.features
    specs: dict[str, ArraySpec] = {}

    def add(
        name: str, dtype: np.dtype[Any], row_shape: tuple[int, ...], dims: tuple[str, ...], **more: Any
    ) -> None:
        more["packed"] = more.get("packed", False) and PACKED in plan.features
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
            if describing and plan.codec_root is not None:
                describing["codec_state"] = f"{plan.codec_root}/{lv.name}"
            add(
                f"levels/{lv.name}/{kind}",
                part.dtype,
                (*time, *axes.values(), part.width),
                dims,
                fill=part.fill,
                packed=not part.per_cell,
                compressed=part.zstd_level is not None,
                zstd_level=part.zstd_level or ZSTD_LEVEL,
                channel_first=part.channel_first,
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
        more = {"compressed": True, "packed": target.name not in plan.own_shards}
        if isinstance(target, RaggedTarget):
            add(name, np.dtype("u1"), (target.cap_bytes,), dims, ragged=True, **more)
        else:
            dtype = np.dtype(target.dtype).newbyteorder("<")
            add(name, dtype, target.row_shape(b.height_px, b.width_px), dims, **more)
    return _with_packed_shards(b, specs)


def _with_packed_shards(b: PlannedBin, specs: dict[str, ArraySpec]) -> dict[str, ArraySpec]:
    """The packed ones in shards of many work units, the same rows of each."""
    largest = max((s.row_bytes for s in specs.values() if s.packed and not s.compressed), default=0)
    rows = packed_shard_rows(b.rows, b.shard_rows, largest)
    return {name: replace(s, shard_rows=rows) if s.packed else s for name, s in specs.items()}


def own_arrays(plan: PlannedStore, bin_index: int) -> dict[str, ArraySpec]:
    """The sharded arrays of which a work unit writes shards of its own."""
    return {name: spec for name, spec in sharded_arrays(plan, bin_index).items() if not spec.packed}


def packed_arrays(plan: PlannedStore, bin_index: int) -> dict[str, ArraySpec]:
    """The other ones; empty without the feature `packed`."""
    return {name: spec for name, spec in sharded_arrays(plan, bin_index).items() if spec.packed}


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
    for tables in state_tables(plan).values():
        yield from tables.values()
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
