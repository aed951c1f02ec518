"""Depth data: pairs of an image and a depth map, whatever the layout they were listed from."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.datasets.layouts.label_maps import LabelMaps, Pair
from extract.sources.byte_sources import BAD_TARGET, LIMIT_PX, SourceError, decode_label_values
from extract.views.view import Hw, View
from stores.format.plan import DenseTarget, RaggedTarget, Target

NOT_MEASURED = 0
"""The value of pixels without depth, in stores."""
Depths = npt.NDArray[np.uint16]
"""(H, W), in units of which `DepthFacts.units_per_m` make a metre."""
CROPS = ("none", "eigen", "garg")
"""Parts of an image that scores are of, see pipelines/metrics/depth.py."""
_NPY = b"\x93NUMPY"
_MOST = 0xFFFF


def depth_facts(
    *, units_per_m: float, max_depth_m: float, min_depth_m: float = 1e-3, crop: str = "none"
) -> dict[str, Any]:
    """The `task_facts` of a depth data set.

    Args:
        units_per_m: stored values of one metre.
        max_depth_m: the largest depth that heads give and that scores count.
        min_depth_m: the smallest that scores count.
        crop: one of CROPS.

    Raises ValueError for values that contradict each other.
    """
    if not (0 < units_per_m <= 1e6 and 0 <= min_depth_m < max_depth_m <= _MOST / units_per_m):
        raise ValueError(
            f"scale {units_per_m:g} and max_depth {max_depth_m:g}: expected a scale up to 1000000 and depths "
            f"up to {_MOST / units_per_m:g} m, as 16 bits hold no more"
        )
    facts = {"units_per_m": units_per_m, "max_depth_m": max_depth_m, "min_depth_m": min_depth_m}
    return {**{name: float(value) for name, value in facts.items()}, "crop": crop}


class DepthMaps(LabelMaps):
    """One split of a depth data set; a `Dataset`. Truth is uint16 (H, W), 0 = not measured."""

    task = "depth"

    def __init__(
        self,
        name: str,
        split: str,
        is_training: bool,
        pairs: Sequence[Pair],
        subset: str | None,
        facts: Mapping[str, Any],
        *,
        invalid: int = NOT_MEASURED,
        has_truth: bool = True,
    ) -> None:
        """Args:
        facts: of `depth_facts`.
        invalid: the value in files of pixels without depth; 0 is none either.
        """
        decode = partial(decode_depth, units_per_m=float(facts["units_per_m"]), invalid=invalid)
        super().__init__(name, split, is_training, (), pairs, subset, decode, has_truth=has_truth)  # type: ignore[arg-type]
        self.task_facts = facts

    def target_specs(
        self, with_original: bool, params: Sequence[npt.NDArray[np.float64]]
    ) -> tuple[Target, ...]:
        if not self.has_truth:
            return ()
        in_view = DenseTarget("depth", "uint16", ("y", "x"))
        if not with_original:
            return (in_view,)
        cap_bytes = 2 * max(record.original_hw[0] * record.original_hw[1] for record in self.records)
        return in_view, RaggedTarget("original_depth", "uint16", ("original_y", "original_x"), cap_bytes)

    def targets(self, truth: Any, view: View) -> Mapping[str, Any]:
        if not self.has_truth:
            return {}
        return {"depth": view.apply_map(truth, NOT_MEASURED), "original_depth": truth}


def decode_depth(annotation: bytes, original_hw: Hw, *, units_per_m: float, invalid: int) -> Depths:
    """The depth map in a file: uint16 (H, W) in its units, 0 = not measured.

    Args:
        annotation: a gray PNG of 8 or 16 bits, or a .npy file: whole numbers as in a PNG, floating point in
            metres, of which what is not finite or not above 0 is not measured.
        original_hw: height and width of its image.
        units_per_m: values of one metre.
        invalid: the value of pixels without depth.

    Raises SourceError for another file, another size, and depths beyond 16 bits.

    >>> import io; from PIL import Image
    >>> file = io.BytesIO(); Image.fromarray(np.array([[0, 1500, 65535]], np.uint16)).save(file, "PNG")
    >>> decode_depth(file.getvalue(), (1, 3), units_per_m=1000, invalid=65535).tolist()
    [[0, 1500, 0]]
    """
    try:
        values = _npy(annotation) if annotation.startswith(_NPY) else decode_label_values(annotation)
    except SourceError as error:
        raise SourceError(BAD_TARGET, f"depth map: {error.reason}") from None
    if values.shape != original_hw:
        shape, (image_h, image_w) = "x".join(map(str, values.shape[::-1])), original_hw
        raise SourceError(BAD_TARGET, f"depth map of {shape} pixels, its image has {image_w}x{image_h}")
    if values.dtype.kind == "f":
        metres = np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float64)
        values = np.rint(metres * units_per_m).astype(np.int64)
        # What is measured stays so, however near it is.
        values = np.where(metres > 0, np.maximum(values, 1), 0)
    elif invalid != NOT_MEASURED:
        values = np.where(values == invalid, 0, values)
    if values.min() < 0 or values.max() > _MOST:
        raise SourceError(
            BAD_TARGET,
            f"depth map holds {int(values.min())} to {int(values.max())}, expected 0 to {_MOST}; choose a "
            "smaller scale, or mark such pixels as invalid",
        )
    return values.astype(np.uint16)


def _npy(data: bytes) -> npt.NDArray[Any]:
    try:
        shape, _, dtype = _npy_header(data)
        if len(shape) != 2 or dtype.kind not in "iuf" or shape[0] * shape[1] > LIMIT_PX:
            raise ValueError(f"{dtype} of shape {shape}, expected numbers (height, width)")
        found: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
        return found
    except (ValueError, EOFError, OSError) as error:
        raise SourceError(BAD_TARGET, f"a .npy file that cannot be read: {str(error)[:120]}") from None


def _npy_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    return found
