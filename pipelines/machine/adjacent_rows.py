"""Rows of one tensor that were handed out one by one, together again without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a report knows its tasks without torch
    from torch import Tensor


def adjacent_rows(parts: Sequence[Tensor]) -> Tensor:
    """The concatenation of tensors (1, ...) of one shape along their first axis: a view of their memory where
    they follow each other in it, else a copy.

    >>> import torch
    >>> x = torch.arange(6).view(3, 2)
    >>> adjacent_rows([x[1:2], x[2:3]]).data_ptr() == x[1].data_ptr()
    True
    >>> adjacent_rows([x[2:3], x[0:1]]).tolist()
    [[4, 5], [0, 1]]
    """
    first, storage = parts[0], parts[0].untyped_storage().data_ptr()
    start, step = first.storage_offset(), first.stride(0)
    follow = all(
        part.untyped_storage().data_ptr() == storage
        and part.storage_offset() == start + number * step
        and part.stride() == first.stride()
        for number, part in enumerate(parts)
    )
    if follow:
        return first.as_strided((len(parts), *first.shape[1:]), first.stride(), start)
    import torch  # late: see above

    return torch.cat(list(parts))
