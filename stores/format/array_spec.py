"""One Zarr array of a store: shape, chunks and the zarr.json that follows from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FORMAT_NAME = "permafrost-store"
FORMAT_VERSION = 1
ZSTD_LEVEL = 3
CRC_BYTES = 4
_INDEX_ENTRY_BYTES = 16


def absent_fill(dtype: np.dtype[Any]) -> int | float | bool:
    """The fill value of tables and targets: the one least likely to be mistaken for data."""
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
    zstd_level: int = ZSTD_LEVEL
    channel_first: bool = False
    """Whether chunks hold the last axis before y and x: Zarr's codec `transpose`."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of the Zarr array, such as the `logical_dtype` of packed codes."""
    ragged: bool = False
    """Whether rows are shorter than the array's, padded with zeros."""
    packed: bool = False
    """Whether a shard holds rows of many work units, see stores.format.packing."""
    flat: bool = False
    """Whether chunk keys have the separator "." (`c.17.0.0.0`) instead of "/"."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def stored_row_shape(self) -> tuple[int, ...]:
        """Of the bytes in a chunk."""
        if not self.channel_first:
            return self.row_shape
        *front, y, x, channel = self.row_shape
        return (*front, channel, y, x)

    def empty(self, rows: int) -> npt.NDArray[Any]:
        """Memory for rows, (rows, *row_shape), whose bytes lie as in the chunks."""
        made = np.empty((rows, *self.stored_row_shape), self.dtype)
        return np.moveaxis(made, -3, -1) if self.channel_first else made

    def stored(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A row, or rows, with its axes as in the chunks: a view.

        >>> spec = ArraySpec(path="q", dtype=np.dtype("i1"), shape=(5, 2, 3, 4), dims=("row", "y", "x", "c"),
        ...     fill=0, channel_first=True)
        >>> spec.stored(spec.empty(1)).shape, spec.stored(spec.empty(1)).flags.c_contiguous
        ((1, 4, 2, 3), True)
        """
        return np.moveaxis(array, -1, -3) if self.channel_first else array

    @property
    def row_bytes(self) -> int:
        """Bytes of one decoded row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def total_bytes(self) -> int:
        """Bytes of the decoded array."""
        return self.shape[0] * self.row_bytes

    @property
    def shards(self) -> int:
        """Shard files of a sharded array; 1 for a table."""
        return -(-self.shape[0] // self.shard_rows) if self.shard_rows else 1

    @property
    def stored_row_bytes(self) -> int:
        """Bytes of an uncompressed chunk in its shard file: the row and its CRC32C."""
        return self.row_bytes + CRC_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of the index that ends a shard file: S entries, also in a shorter last one, and a CRC32C."""
        return _INDEX_ENTRY_BYTES * (self.shard_rows or 0) + CRC_BYTES

    @property
    def crc_path(self) -> str:
        """The path of the table with the CRC32C of this sharded array's chunks."""
        return self.path.removesuffix("q") + "crc" if self.path.endswith("/q") else self.path + "_crc"

    def chunk_file(self, shard: int = 0) -> str:
        """The path of a shard file, or of a table's single chunk."""
        key = self._separator.join(("c", str(shard), *("0" for _ in self.shape[1:])))
        return f"{self.path}/{key}"

    @property
    def _separator(self) -> str:
        return "." if self.flat else "/"

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
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": self._separator}},
            "fill_value": "NaN" if isinstance(self.fill, float) else self.fill,
            "codecs": codecs,
            "attributes": dict(self.attributes),
            "dimension_names": list(self.dims),
        }

    def _sharding(self, to_bytes: dict[str, Any]) -> dict[str, Any]:
        zstd = [{"name": "zstd", "configuration": {"level": self.zstd_level, "checksum": False}}]
        crc, last = {"name": "crc32c"}, len(self.shape) - 1
        order = [*range(last - 2), last, last - 2, last - 1]
        transpose = [{"name": "transpose", "configuration": {"order": order}}] if self.channel_first else []
        return {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, *self.row_shape],
                "codecs": [*transpose, to_bytes, *(zstd if self.compressed else []), crc],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, crc],
                "index_location": "end",
            },
        }
