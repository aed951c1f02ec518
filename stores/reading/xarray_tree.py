"""A store as an xarray DataTree: the same groups and arrays as in Zarr, read when they are used, and checked.

Values are those that zarr-python returns, fills of skipped rows included. Unlike zarr-python's they are
compared with the store's checksums, so that damage raises instead of reading as fills.

xarray refuses dimensions of one name and several lengths (the bytes of a key, of a digest and of a target),
and a dimension with the name of its array. They are renamed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from stores.format.array_names import DIGEST_DIM, KEY_DIM, PIXEL_DIMS, level_attributes, part_dim
from stores.format.array_spec import ArraySpec
from stores.format.arrays import bin_tables, metadata_files, outcome_tables, sharded_arrays, state_tables
from stores.format.plan import StorePlan
from stores.format.row_table import WRITTEN
from stores.reading.committed_store import CommittedStore
from stores.reading.store_arrays import StoreArrays

Array = npt.NDArray[Any]
ReadRows = Callable[[npt.NDArray[np.int64]], Array]
"""Rows of an array by their numbers in it."""


def xarray_tree(committed: CommittedStore, arrays: StoreArrays) -> xr.DataTree:
    """The tree of a store; see `Store.xarray`."""
    plan = committed.plan
    nodes = {f"/{path}": dataset for path, dataset in _datasets(committed, arrays)}
    attributes = metadata_files(plan)["zarr.json"]["attributes"]
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attributes), **nodes}, name=plan.folder_name)


def _datasets(committed: CommittedStore, arrays: StoreArrays) -> Iterator[tuple[str, xr.Dataset]]:
    plan = committed.plan
    tables = [*plan.planned_tables.values(), *outcome_tables(plan).values()]
    keys = np.array(tuple(plan.rows.keys), dtype=object)
    rows = _dataset(plan, tables, lambda spec: _table(lambda: committed.table(spec)), {})
    yield "rows", rows.assign_coords(record=("row", keys))
    for level, specs_of_state in state_tables(plan).items():
        state = (plan.codec_state or {})[level]  # compared with its digest when the store was opened
        variables = {name: xr.Variable(spec.dims, state[name]) for name, spec in specs_of_state.items()}
        yield f"{plan.codec_root}/{level}", xr.Dataset(variables)
    for index, b in enumerate(plan.bins):
        root = f"bins/{b.name}"
        specs = [*sharded_arrays(plan, index).values(), *bin_tables(plan, index).values()]
        taken: dict[str, int] = {}
        for folder in sorted(
            {spec.path.rpartition("/")[0] for spec in specs}, key=len
        ):  # the bin's own first
            inside = [spec for spec in specs if spec.path.rpartition("/")[0] == folder]
            read = _reader_of_bin(committed, arrays, index, root)
            dataset = _dataset(plan, inside, read, taken)
            if folder == root:
                taken = {str(dim): size for dim, size in dataset.sizes.items()}
            yield folder, dataset.assign_coords(plan_row=("row", plan.bin_rows[index]))


def _reader_of_bin(
    committed: CommittedStore, arrays: StoreArrays, index: int, root: str
) -> Callable[[ArraySpec], ReadRows]:
    written = committed.outcome[committed.plan.bin_rows[index]] == WRITTEN

    def reader(spec: ArraySpec) -> ReadRows:
        name = spec.path.removeprefix(f"{root}/")
        if spec.shard_rows is None:
            return _table(lambda: arrays.table(index, name))

        def read(rows: npt.NDArray[np.int64]) -> Array:
            held = written[rows]
            found = arrays.read(index, name, rows[held].tolist())
            if held.all():
                return found
            filled = np.full((len(rows), *spec.row_shape), spec.fill, spec.dtype)
            filled[held] = found
            return filled

        return read

    return reader


def _table(load: Callable[[], Array]) -> ReadRows:
    return lambda rows: load()[rows]


def _dataset(
    plan: StorePlan,
    specs: Sequence[ArraySpec],
    reader: Callable[[ArraySpec], ReadRows],
    taken: Mapping[str, int],
) -> xr.Dataset:
    """The arrays of one folder.

    Args:
        plan: of the store.
        specs: the arrays.
        reader: returns what reads the rows of one of them.
        taken: lengths of dimensions in the folder above.
    """
    lengths, variables = dict(taken), dict[str, xr.Variable]()
    names = {spec.path.rpartition("/")[2] for spec in specs}
    for spec in specs:
        name = spec.path.rpartition("/")[2]
        dims = []
        for dim, length in zip(_renamed(plan, spec), spec.shape, strict=True):
            is_free = dim not in names and lengths.setdefault(dim, length) == length
            unique = dim if is_free else f"{name}_{dim}"
            lengths.setdefault(unique, length)
            dims.append(unique)
        data = indexing.LazilyIndexedArray(_StoreArray(spec, reader(spec)))
        variables[name] = xr.Variable(dims, data, _attributes(plan, spec))
    return xr.Dataset(variables)


def _renamed(plan: StorePlan, spec: ArraySpec) -> Sequence[str]:
    """The dimensions of an array by names of one length each within its folder, as `names` has them."""
    folder, _, name = spec.path.rpartition("/")
    if folder == "rows":
        byte = KEY_DIM if name == "key" else DIGEST_DIM
        return [byte if dim == "byte" else dim for dim in spec.dims]
    if name == "pixels":
        return (*spec.dims[:-3], *PIXEL_DIMS)
    if spec.ragged:
        return (*spec.dims[:-1], f"{name}_byte")
    return (*spec.dims[:-1], part_dim(name, spec.dims[-1])) if "/levels/" in folder else spec.dims


def _attributes(plan: StorePlan, spec: ArraySpec) -> dict[str, Any]:
    """Those of the Zarr array and, for codes of a level, how to decode them."""
    attributes = dict(spec.attributes)
    parts = spec.path.split("/")
    if parts[-1] != "q" or parts[-3] != "levels":
        return attributes
    level = next(level for level in plan.pyramid if level.name == parts[-2])
    return {**attributes, **level_attributes(plan.codec, level, spec.dims)}


class _StoreArray(BackendArray):
    """An array whose rows are read when they are used."""

    def __init__(self, spec: ArraySpec, read: ReadRows) -> None:
        self.shape, self.dtype, self._read = spec.shape, spec.dtype, read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple[Any, ...]) -> Array:
        """The rows of the first key, then each axis by its own: a number, a slice or an array of numbers."""
        rows = np.arange(self.shape[0])[key[0]]
        found = self._read(np.atleast_1d(rows))
        for axis in range(len(key) - 1, 0, -1):
            found = found[(*(slice(None),) * axis, key[axis])]
        return found if rows.ndim else found[0]
