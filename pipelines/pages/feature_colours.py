"""Feature colours: principal components 1 to 3 of a level as red, green and blue, fitted over all images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_LOW, _HIGH = 2, 98
"""Percentiles that become black and full colour, over all images."""

Floats = npt.NDArray[np.float64]


def component_colours(maps_NCyx: Sequence[npt.NDArray[np.float32]]) -> list[npt.NDArray[np.uint8]]:
    """A colour picture (y, x, 3) of each image's map (C, y, x), one basis for all.

    Cells of all images are centred by their common mean and projected on the three directions of largest
    variance; a direction's sign makes its largest loading positive, so that equal features give equal
    colours. Maps hold valid cells only: padding must not enter the fit. A level with fewer than three
    channels leaves the other colours black.

    Raises ValueError without any cell.
    """
    cells = [map_Cyx.reshape(len(map_Cyx), -1).T.astype(np.float64) for map_Cyx in maps_NCyx]
    if not cells or not sum(map(len, cells)):
        raise ValueError("no cells to fit components on: pass at least one map")
    every = np.concatenate(cells)
    mean = every.mean(0)
    basis = _basis(every - mean)
    projected = [(each - mean) @ basis for each in cells]
    low, high = np.percentile(np.concatenate(projected), [_LOW, _HIGH], axis=0)
    span = np.where(high > low, high - low, 1.0)
    return [
        _picture((of - low) / span, map_Cyx.shape[1:])
        for of, map_Cyx in zip(projected, maps_NCyx, strict=True)
    ]


def _basis(centred: Floats) -> Floats:
    """(C, 3): eigenvectors of the covariance, the largest first."""
    _, vectors = np.linalg.eigh(centred.T @ centred)
    first = vectors[:, ::-1][:, :3]
    signs = np.sign(first[np.abs(first).argmax(0), np.arange(first.shape[1])])
    padded = np.zeros((len(first), 3))
    padded[:, : first.shape[1]] = first * np.where(signs == 0, 1.0, signs)
    return padded


def _picture(shares: Floats, hw: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8).reshape(*hw, 3)
