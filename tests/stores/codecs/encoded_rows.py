"""Comparing what read_encoded gave with a plain numpy copy."""

from collections.abc import Mapping

import numpy as np


def assert_row(
    encoded: Mapping[str, Mapping[str, np.ndarray]], at: int, copy: Mapping[str, np.ndarray]
) -> None:
    """The row at this place of a read equals its copy, whose arrays are named by their paths."""
    for level, kinds in encoded.items():
        for kind, array in kinds.items():
            np.testing.assert_array_equal(array[at], copy[f"levels/{level}/{kind}"])
