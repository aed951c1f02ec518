"""Places in a crop of a person, mapped back to its source by the stored parameters of the view."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_ROWS = (("xx", "xy", "x0"), ("yx", "yy", "y0"))
"""The map from source to crop, see extract/views/persons/affine_view.py."""


def places_in_source(
    params: Mapping[str, float], width_px: int, places_K2: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """x, y in pixels of the source, float64 (K, 2), of places in a view.

    Args:
        params: of the view by name, flip among them.
        width_px: of the view.
    """
    places = np.array(places_K2, np.float64)
    if params["flip"]:
        places[:, 0] = width_px - 1 - places[:, 0]
    rows = np.array([[params[name] for name in row] for row in _ROWS], np.float64)
    return np.asarray(np.linalg.solve(rows[:, :2], (places - rows[:, 2]).T).T, np.float64)
