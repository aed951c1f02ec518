"""Compares the result of read_encoded with a plain numpy copy."""

from collections.abc import Mapping

import numpy as np


def assert_row(
    encoded: Mapping[str, Mapping[str, np.ndarray]], at: int, copy: Mapping[str, np.ndarray]
) -> None:
    """Asserts that a row of a read equals its copy, whose arrays are named by their paths."""
    for level, kinds in encoded.items():
        for kind, array in kinds.items():
            np.testing.assert_array_equal(array[at], copy[f"levels/{level}/{kind}"])
