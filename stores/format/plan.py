"""The plan of a store: its identity and its geometry, fixed before any pixel is decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from stores.codecs import codec
from stores.codecs.contract import Codec, FittedCodec, State, states_sha256
from stores.errors import CodecError, PlanError
from stores.format.array_spec import ArraySpec
from stores.format.arrays import planned_tables, sharded_arrays
from stores.format.canonical_json import diff_identity, identity_digest, normalized
from stores.format.features import DOTTED_LEVEL_NAMES, FITTED_CODEC, WIDE_SHARDS
from stores.format.pixel_differences import PIXEL_DIFFERENCES
from stores.format.row_table import RowTable
from stores.format.size_estimate import estimated_bytes
from stores.format.targets import MAX_CHUNK_BYTES, DenseTarget, RaggedTarget, Target
from stores.pyramid import PyramidSpec

__all__ = [
    "Bin",
    "DenseTarget",
    "RaggedTarget",
    "ShardId",
    "StorePlan",
    "Target",
    "diff_identity",
    "feature_row_bytes",
    "identity_digest",
    "shard_rows_for",
]

MAX_SHARD_BYTES = 512 << 20
"""512 MiB. It sets `shard_rows` of new plans only: stores with another shard size stay readable."""
MAX_SHARD_ROWS = 1024
MAX_WIDE_SHARD_ROWS = 1 << 16
"""With the required feature `wide-shards`."""
MAX_PLAN_BYTES = 1 << 20  # 1 MiB
MAX_BINS = 1 << 16
MAX_SIDE_PX = 1 << 16
MAX_FRAMES = 1 << 12
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")


def shard_rows_for(row_bytes_largest: int, rows: int, most_rows: int = MAX_SHARD_ROWS) -> int:
    """S, the rows of a shard: the largest power of two with which the largest array fits MAX_SHARD_BYTES.

    At least 1, at most `most_rows` and, so that small stores have several shards, an eighth of the rows.

    >>> shard_rows_for(8 << 20, 118_287), shard_rows_for(2 << 20, 100), shard_rows_for(1 << 30, 100)
    (64, 8, 1)
    """
    limit = min(MAX_SHARD_BYTES // row_bytes_largest, most_rows, rows // 8)
    return 1 << max(0, limit.bit_length() - 1)


def feature_row_bytes(
    pyramid: PyramidSpec, codec_name: str, height_px: int, width_px: int, frames: int | None = None
) -> dict[str, int]:
    """Bytes of one row of each level, without scales; the largest one determines S."""
    found = {}
    for lv in pyramid:
        parts = codec(codec_name).parts(lv.channels).values()
        cell_bytes = sum(part.width * part.dtype.itemsize for part in parts if part.per_cell)
        found[lv.name] = (frames or 1) * cell_bytes * lv.cells(height_px) * lv.cells(width_px)
    return found


@dataclass(frozen=True, order=True, slots=True)
class ShardId:
    """One unit of work: the same shard of every array of a bin."""

    bin: int
    """Index into the plan's bins."""
    shard: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The rows of one padded size. Raises PlanError for sizes outside the format."""

    height_px: int
    width_px: int
    rows: int
    shard_rows: int
    """S: rows of a shard, a power of two up to 1024, with `wide-shards` 65,536; the last shard of a bin may
    be shorter."""
    batch_rows: int | None = None
    """Rows of a backbone batch, fixed because it can change the numbers; None if not planned."""

    def __post_init__(self) -> None:
        for side in (self.height_px, self.width_px):
            if type(side) is not int or not 1 <= side <= MAX_SIDE_PX:
                raise PlanError(f"bin {self.name}: a side of {side!r} px, expected 1 to {MAX_SIDE_PX}")
        if type(self.rows) is not int or self.rows < 1:
            raise PlanError(f"bin {self.name}: {self.rows!r} rows, expected 1 or more")
        s = self.shard_rows
        if type(s) is not int or not 1 <= s <= MAX_WIDE_SHARD_ROWS or s & (s - 1):
            raise PlanError(
                f"bin {self.name}: shard_rows {s!r}, expected a power of two up to {MAX_WIDE_SHARD_ROWS}"
            )
        if self.batch_rows is not None and (type(self.batch_rows) is not int or self.batch_rows < 1):
            raise PlanError(f"bin {self.name}: batch_rows {self.batch_rows!r}, expected 1 or more")

    @property
    def name(self) -> str:
        return f"{self.height_px}x{self.width_px}"

    @property
    def shards(self) -> int:
        return -(-self.rows // self.shard_rows)

    def to_json(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in ("height_px", "width_px", "rows", "shard_rows", "batch_rows")
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class StorePlan:
    """Identity and geometry of a store. Raises PlanError if the parts contradict each other."""

    name: str
    """`<data set>-<split>-<model>-<codec>`; lower-case letters, digits, dots, hyphens and underscores."""
    identity: dict[str, Any]
    """Everything that determines the stored bytes, as JSON values; normalised on construction."""
    pyramid: PyramidSpec
    """The levels that are stored."""
    codec: str
    codec_settings: dict[str, Any]
    """Settings of the codec; no codec has any yet."""
    bins: tuple[Bin, ...]
    targets: tuple[Target, ...]
    view_params: tuple[str, ...]
    """Names of the columns of rows.params."""
    rows: RowTable
    frames: int | None = None
    """Length of the time axis of levels and pixels; None for images."""
    pixels: bool = False
    """Whether the views' uint8 RGB is stored too."""
    required_features: tuple[str, ...] = ()
    """Extensions of v1 that a reader must know to read the store, in addition to those of the codec."""
    optional_features: tuple[str, ...] = ()

    own_shards: tuple[str, ...] = ()
    """With the feature `packed`: the targets that are not packed, see stores.format.packing."""
    codec_state: Mapping[str, State] | None = None
    """By level what a fitted codec learned, with the feature `fitted-codec`; None for other codecs, and
    before the codec was fitted."""
    data_licence: str | None = None
    """Licence of the data set, for the store's README.md."""
    weights_licence: str | None = None
    """Licence that timm records for its own weights of the backbone, for the same."""
    backbone_costs: dict[str, Any] | None = None
    """What a row costs the backbone, as JSON values: `input_px`, `tokens`, `multiply_adds`; for reports."""

    def __post_init__(self) -> None:
        for name in (
            "bins",
            "targets",
            "view_params",
            "required_features",
            "optional_features",
            "own_shards",
        ):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("identity", "codec_settings"):
            object.__setattr__(self, name, normalized(getattr(self, name)))
        self._check_names()
        self._check_rows()
        self._check_chunks()

    def _check_names(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.endswith((".", "-")):
            raise PlanError(f"store name {self.name!r}: expected {_NAME.pattern}")
        try:
            made = codec(self.codec, self.codec_package)
        except CodecError as error:
            raise PlanError(str(error)) from None
        if self.codec_state is not None:
            self._check_state(made)
        if self.codec_settings:
            raise PlanError(f"codec {self.codec} has no settings, found {self.codec_settings}")
        if self.frames is not None and (type(self.frames) is not int or not 1 <= self.frames <= MAX_FRAMES):
            raise PlanError(f"frames {self.frames!r}, expected None or 1 to {MAX_FRAMES}")
        dotted = [name for name in self.pyramid.names if "." in name]
        if dotted and DOTTED_LEVEL_NAMES not in self.required_features:
            raise PlanError(f"level {dotted[0]} needs the required feature {DOTTED_LEVEL_NAMES}")
        names = [target.name for target in self.targets]
        if unknown := sorted(set(self.own_shards) - set(names)):
            raise PlanError(f"own_shards names {unknown}, which are not among the targets {names}")
        if len(set(names)) != len(names) or len(set(self.view_params)) != len(self.view_params):
            raise PlanError(f"repeated names in targets {names} or view parameters {self.view_params}")

    def _check_state(self, made: Codec) -> None:
        assert self.codec_state is not None
        if not isinstance(made, FittedCodec) or FITTED_CODEC not in self.required_features:
            raise PlanError(
                f"codec {self.codec} with a state, which the plan does not announce or it cannot take"
            )
        if self.codec_state.keys() != set(self.pyramid.names):
            raise PlanError(
                f"codec {self.codec} has the state of {sorted(self.codec_state)}, the levels are "
                f"{', '.join(self.pyramid.names)}"
            )
        for level, state in self.codec_state.items():
            for name, array in state.items():
                is_numbers = array.ndim and array.size and array.dtype.kind in "iuf"
                if not is_numbers or not _NAME.fullmatch(name):
                    raise PlanError(
                        f"codec {self.codec}, {level}: {name[:80]!r} of its state is {array.dtype} "
                        f"{array.shape}, expected numbers with one axis or more"
                    )
            try:
                made.with_state(state)
            except CodecError as error:
                raise PlanError(f"level {level}: {error}") from None

    def level_codec(self, level: str) -> Codec:
        """The codec of a level, with its state. Raises CodecError where it has to be fitted first."""
        made = codec(self.codec)
        if not isinstance(made, FittedCodec):
            return made
        if self.codec_state is None:
            raise CodecError(f"codec {self.codec} has to be fitted to sample rows first")
        return made.with_state(self.codec_state[level])

    @cached_property
    def codec_root(self) -> str | None:
        """The folder of the arrays of a fitted codec, named by their digest; None for other codecs."""
        return None if self.codec_state is None else f"codec/{states_sha256(self.codec_state)[:16]}"

    def with_state(self, state: Mapping[str, State]) -> StorePlan:
        """The plan of a fitted codec with what it learned of each level."""
        others = tuple(name for name in self.required_features if name != FITTED_CODEC)
        return replace(self, codec_state=dict(state), required_features=(*others, FITTED_CODEC))

    def _check_rows(self) -> None:
        if not 1 <= len(self.bins) <= MAX_BINS or len({b.name for b in self.bins}) != len(self.bins):
            raise PlanError(f"{len(self.bins)} bins, expected 1 to {MAX_BINS} of different sizes")
        if self.rows.bin.max() >= len(self.bins):  # before counting, whose memory grows with the largest
            raise PlanError(f"rows.bin names bin {self.rows.bin.max()} of {len(self.bins)}")
        wide = [b for b in self.bins if b.shard_rows > MAX_SHARD_ROWS]
        if wide and WIDE_SHARDS not in self.required_features:
            raise PlanError(
                f"bin {wide[0].name}: shard_rows {wide[0].shard_rows}, more than {MAX_SHARD_ROWS} need the "
                f"required feature {WIDE_SHARDS}"
            )
        counts = np.bincount(self.rows.bin, minlength=len(self.bins))
        if counts.tolist() != [b.rows for b in self.bins]:
            raise PlanError(
                f"rows.bin counts {counts.tolist()[:20]}, the bins hold {[b.rows for b in self.bins][:20]}"
            )
        sizes = np.array([(b.height_px, b.width_px) for b in self.bins], dtype=np.int32)
        if (sizes[self.rows.bin] != self.rows.padded_hw).any():
            raise PlanError("a row's padded size is not that of its bin")
        if self.rows.params.shape[1] != len(self.view_params):
            raise PlanError(
                f"rows.params has {self.rows.params.shape[1]} columns for {len(self.view_params)} names"
            )

    def _check_chunks(self) -> None:
        for index, b in enumerate(self.bins):
            for name, spec in sharded_arrays(self, index).items():
                if spec.row_bytes > MAX_CHUNK_BYTES:
                    raise PlanError(f"bin {b.name}: a row of {name} exceeds {MAX_CHUNK_BYTES} bytes")

    @property
    def codec_package(self) -> str | None:
        """The package that provided the codec, as recorded in the identity; None: this project."""
        recorded = self.identity.get("codec")
        package = recorded.get("package") if isinstance(recorded, dict) else None
        return package if isinstance(package, str) else None

    @property
    def pixel_differences(self) -> bool:
        """Whether `pixels` holds differences (stores.format.pixel_differences), the default of new stores."""
        return PIXEL_DIFFERENCES in self.required_features

    @cached_property
    def features(self) -> frozenset[str]:
        """Required and optional features, without those of the codec."""
        return frozenset((*self.required_features, *self.optional_features))

    @cached_property
    def identity_digest(self) -> str:
        """64 hex digits of the identity."""
        return identity_digest(self.identity)

    @property
    def folder_name(self) -> str:
        return f"{self.name}-{self.identity_digest[:8]}"

    @property
    def total_bytes(self) -> int:
        """Bytes on disk: exact for features and tables, an estimate for what is compressed."""
        return estimated_bytes(self)

    @cached_property
    def planned_tables(self) -> dict[str, ArraySpec]:
        """The tables of the planned rows; see RowTable.to_tables."""
        key_bytes = self.rows.key_bytes
        return planned_tables(len(self.rows), key_bytes, len(self.view_params), self.features)

    def bin_index(self, name: str) -> int:
        """The number of a bin. Raises KeyError, listing the names, for an unknown one."""
        for index, b in enumerate(self.bins):
            if b.name == name:
                return index
        raise KeyError(f"no bin {name!r}; available: {', '.join(b.name for b in self.bins)}")

    def shards(self) -> tuple[ShardId, ...]:
        """Every work unit, bin by bin."""
        return tuple(ShardId(i, shard) for i, b in enumerate(self.bins) for shard in range(b.shards))

    def shard_rows(self, shard: ShardId) -> range:
        """The bin-local rows of a shard."""
        b = self.bins[shard.bin]
        if not 0 <= shard.shard < b.shards:
            raise PlanError(f"bin {b.name} has no shard {shard.shard}, expected 0 to {b.shards - 1}")
        start = shard.shard * b.shard_rows
        return range(start, min(start + b.shard_rows, b.rows))

    def shard_name(self, shard: ShardId) -> str:
        """Bin and number, such as "512x512-3"; the receipt is named by it."""
        return f"{self.bins[shard.bin].name}-{shard.shard}"

    @cached_property
    def bin_rows(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], ...]:
        """For each bin, the plan row of every bin-local row."""
        return tuple(self.rows.bin_rows(index) for index in range(len(self.bins)))

    def global_row(self, bin_index: int, local: int) -> int:
        """The plan row of a bin-local row."""
        return int(self.bin_rows[bin_index][local])
