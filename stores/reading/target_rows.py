"""Targets of rows: dense ones as stored, ragged ones cut to their length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.errors import IntegrityError, PlanError
from stores.format.plan import StorePlan
from stores.format.targets import DenseTarget, RaggedTarget, Target
from stores.reading.store_arrays import StoreArrays

Array = npt.NDArray[Any]


class TargetRows:
    """Reads targets by bin and bin-local row.

    Args:
        store: its path, for messages.
        plan: of the store.
        arrays: to read from.
        at_once: ragged rows that are read together; each takes its largest size until it is cut.
    """

    def __init__(self, store: str, plan: StorePlan, arrays: StoreArrays, at_once: int) -> None:
        self._store, self._plan, self._arrays, self._at_once = store, plan, arrays, at_once

    def named(self, names: Sequence[str] | None) -> list[Target]:
        """The targets of these names in plan order, all for None. Raises KeyError for an unknown one."""
        by_name = {target.name: target for target in self._plan.targets}
        unknown = sorted(set(names or ()) - set(by_name))
        if unknown:
            raise KeyError(
                f"{self._store} holds no target {', '.join(unknown)}; "
                f"available: {', '.join(by_name) or 'none'}"
            )
        return [target for name, target in by_name.items() if names is None or name in names]

    def read(self, target: Target, index: int, local: list[int]) -> Sequence[Array]:
        """One target of these rows of a bin. Raises IntegrityError where a length contradicts the plan."""
        name = f"targets/{target.name}"
        if isinstance(target, DenseTarget):
            return list(self._arrays.read(index, name, local))
        lengths = self._arrays.table(index, f"{name}_bytes")
        original_hw = self._plan.rows.original_hw[self._plan.bin_rows[index]]
        found: list[Array] = []
        for start in range(0, len(local), self._at_once):
            some = local[start : start + self._at_once]
            for row, flat in zip(some, self._arrays.read(index, name, some), strict=True):
                found.append(self._cut(target, flat, int(lengths[row]), original_hw[row].tolist()))
        return found

    def _cut(self, target: RaggedTarget, flat: Array, length: int, original_hw: list[int]) -> Array:
        if not 0 <= length <= len(flat):
            raise IntegrityError(
                f"{self._store}: a row of {target.name} has {length} bytes, expected 0 to {len(flat)}"
            )
        try:
            shape = target.row_shape(original_hw, length)
        except PlanError as error:
            raise IntegrityError(f"{self._store}: {error}") from None
        return flat[:length].copy().view(np.dtype(target.dtype).newbyteorder("<")).reshape(shape)
