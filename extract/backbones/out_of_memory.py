"""Readable out-of-memory messages."""

from __future__ import annotations

_CUDA = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In errors of CUDA and cuBLAS, which torch passes on where these cannot even start."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device's memory ran out."""
    return any(words in str(error) for words in _CUDA)


def reason(problem: str) -> str:
    """The message without torch's paragraph about its allocator.

    >>> reason("CUDA out of memory. Tried to allocate 2.00 GiB. Of the allocated memory 9 GiB is")
    'CUDA out of memory. Tried to allocate 2.00 GiB.'
    """
    return problem.partition("\n")[0].partition(" Of the allocated memory")[0] or "out of memory"
