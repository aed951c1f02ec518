"""What a device says when its memory runs out, as a user wants to read it."""

from __future__ import annotations

_CUDA = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Where not even CUDA or cuBLAS find room to start, torch raises other errors than its own."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the error is for want of the device's memory."""
    return any(words in str(error) for words in _CUDA)


def reason(problem: str) -> str:
    """Without the paragraph that torch adds about its allocator.

    >>> reason("CUDA out of memory. Tried to allocate 2.00 GiB. Of the allocated memory 9 GiB is")
    'CUDA out of memory. Tried to allocate 2.00 GiB.'
    """
    return problem.partition("\n")[0].partition(" Of the allocated memory")[0] or "out of memory"
