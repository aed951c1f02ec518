"""Recomputed shallow levels: the backbone's first stages run on pixels, the deep levels come from the store.

The shallow levels hold most of a pyramid's bytes but little of its compute. A store of the deep levels can
train any head if the views' pixels are available: stored beside the features, or as source images, from
which the stored parameters replay each view. Only this kind of training from a store loads a backbone.

Letters in tensor names: N rows, H and W pixels or cells, C channels.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from extract.backbones.frozen import FrozenBackbone
from extract.backbones.loading import card_of_identity
from extract.datasets import Dataset, open_dataset
from extract.sources.byte_sources import SourceError, retried
from pipelines.catalog.missing_levels import PixelsFrom, check_recomputable, lacking
from pipelines.live.backbone import load_same_backbone
from stores.errors import IdentityError
from stores.pyramid import PyramidSpec
from stores.reading.reader import Store

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]
Rows = Sequence[int] | npt.NDArray[np.int64]


class PixelSource(Protocol):
    """Where the pixels of rows come from."""

    def read(self, store: Store, rows: Rows) -> Pixels:
        """uint8 RGB (N, H, W, 3) of a store's rows, padded as they were extracted. From one thread."""

    def close(self) -> None:
        """Ends its threads."""


class StoredPixels:
    """Those that the store keeps."""

    def read(self, store: Store, rows: Rows) -> Pixels:
        return store.read_pixels(rows)

    def close(self) -> None: ...


class SourcePixels:
    """Source images, decoded anew and shown as each row's view."""

    def __init__(self, dataset: Dataset, workers: int) -> None:
        self._dataset = dataset
        self._index_of = {record.key: index for index, record in enumerate(dataset.records)}
        self._pool = ThreadPoolExecutor(workers, "source-pixels")

    def read(self, store: Store, rows: Rows) -> Pixels:
        return np.stack(list(self._pool.map(lambda row: self._view(store, int(row)), rows)))

    def close(self) -> None:
        self._pool.shutdown()

    def _view(self, store: Store, row: int) -> Pixels:
        """Raises IdentityError where the image is not the one that the row was made of."""
        key, dataset = store.keys[row], self._dataset
        expected = store.source_sha256[row].tobytes().hex()
        what = f"the image of record {key} (sha256)"
        advice = f"{store.path} was extracted from other images; pass their folder as --data"
        if key not in self._index_of:
            raise IdentityError(what, expected, "no such record", advice)
        index = self._index_of[key]
        try:
            data = retried(lambda: dataset.read_source(index), f"image of {key}")
        except (FileNotFoundError, SourceError):  # gone, or listed by its annotation alone
            raise IdentityError(what, expected, "no file", advice) from None
        if (found := hashlib.sha256(data).hexdigest()) != expected:
            raise IdentityError(what, expected, found, advice)
        view = dataset.media.view_from_params(store.params[row]).of_store(store.identity["views"])
        try:
            return dataset.media.render(data, dataset.records[index], [view])[0]
        except SourceError as error:  # it was decoded once, when the row was made
            raise IdentityError(f"the image of record {key}", "decodes", error.reason, advice) from error


class ShallowLevels:
    """Some levels of a store's rows, from their pixels."""

    def __init__(self, backbone: FrozenBackbone, source: PixelSource) -> None:
        self._backbone, self._source = backbone, source

    @property
    def pyramid(self) -> PyramidSpec:
        """What is recomputed."""
        return self._backbone.pyramid

    def arrays(self, store: Store, rows: Rows) -> dict[str, npt.NDArray[Any]]:
        """What `levels` needs of rows of one store, on the host: pixels and valid sizes."""
        index = np.asarray(rows, dtype=np.int64)
        return {"pixels": self._source.read(store, index), "valid_hw": store.valid_hw[index]}

    def levels(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Level -> float32 (N, C, H, W), channels last in memory, on the backbone's device.

        Args:
            arrays: those of `arrays`, as tensors.
        """
        found = self._backbone(arrays["pixels"], arrays["valid_hw"])
        # Cloned outside inference mode, as autograd wants it of what a head keeps for its backward pass.
        return {name: x_NHWC.clone().permute(0, 3, 1, 2) for name, x_NHWC in found.items()}

    def close(self) -> None:
        """Ends the threads that decode."""
        self._source.close()


def full_pyramid(identity: Mapping[str, Any], stored: PyramidSpec) -> PyramidSpec:
    """The levels that there are once those above the store's are recomputed: raw ones, finest first."""
    backbone = identity["backbone"]
    whole = card_of_identity(backbone).pyramid
    first = min(level.stage for level in stored)
    return PyramidSpec((*(level for level in whole if level.stage < first), *stored))


def open_shallow_levels(
    store: Store,
    needed: Sequence[str],
    *,
    pixels: PixelsFrom | None,
    data: str | None,
    weights: str | None,
    device: torch.device,
    workers: int,
) -> ShallowLevels | None:
    """What recomputes the levels that a store lacks; None where it holds all that are needed.

    Args:
        needed: levels of the head.
        pixels: where from; None: the store, where it holds them.
        data: folder of the data set, for `source`; None: data/<official folder name>.
        weights: of the backbone; None: timm.
        device: to compute on.
        workers: threads that decode.

    Raises:
        LevelMissing: a level that cannot be recomputed. UsageError: pixels that are not there.
        WeightsUnavailable: none such. IdentityError: others than those the store was made with.
    """
    missing = lacking(needed, store.levels)
    if not missing:
        return None
    source = open_pixels(
        store, check_recomputable(store.plan, missing, pixels, str(store.path)), data, workers
    )
    return ShallowLevels(first_stages(store, missing, weights, device), source)


def open_pixels(store: Store, pixels: PixelsFrom, data: str | None, workers: int) -> PixelSource:
    """Where the pixels of a store's rows come from; arguments and errors as of `open_shallow_levels`."""
    if pixels == "stored":
        return StoredPixels()
    identity = store.identity["dataset"]
    dataset = open_dataset(identity, Path(data) if data else None, identity["split"])
    return SourcePixels(dataset, workers)


def first_stages(
    store: Store, levels: Sequence[str], weights: str | None, device: torch.device
) -> FrozenBackbone:
    """The store's backbone as far as those levels; arguments and errors as of `open_shallow_levels`."""
    wanted = store.identity["backbone"]
    precision = shallow_precision(wanted["precision"], device)
    backbone = load_same_backbone(wanted, levels, weights or "timm", device, precision=precision)
    logger.info(
        "%s holds %s; the first %d stages of %s recompute %s",
        *(store.path, ", ".join(store.levels), max(level.stage for level in backbone.pyramid)),
        *(wanted["model"], ", ".join(levels)),
    )
    return backbone


def shallow_precision(stored: str, device: torch.device) -> str:
    """The precision that comes nearest to the store's: its own, but float32 where a device or a network of
    which the first stages ran in float32 asks for it.

    >>> gpu = torch.device("cuda")
    >>> shallow_precision("fp16", gpu), shallow_precision("fp16-after-3", gpu)
    ('fp16', 'fp32')
    """
    return "fp32" if device.type == "cpu" or "-after-" in stored else stored
