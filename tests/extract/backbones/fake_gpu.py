"""A simulated GPU: tensors of the device "cuda" without memory, and the bytes they would take."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from extract.swin import block as folded_block
from extract.swin.window_rule import HW
from extract.swin.windows import WindowPlan, window_plan

GPU = torch.device("cuda", 0)
aten = torch.ops.aten
_READS = (aten._local_scalar_dense.default, aten.item.default)


class FakeGpu(TorchDispatchMode):
    """Counts the live bytes of every storage made under it, by kind of device, and the host's reads.

    Of a kernel only its tensors are counted, not what cuBLAS and the like take for themselves. Attention runs
    in one kernel, as on a GPU, which refuses masks whose rows are not aligned.
    """

    def __init__(self, read: float) -> None:
        super().__init__()
        self._read = read
        self._known: set[int] = set()
        self.bytes: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.reads = 0
        """How often the host read a value of a tensor, which waits for a GPU; each was `read`."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _READS:
            self.reads += 1
            return self._read
        if function is aten.scaled_dot_product_attention.default:
            return _fused_attention(*args, **kwargs)
        if function.namespace == "aten":
            with self:
                found = function.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        found = function(*args, **kwargs)
        for leaf in tree_leaves((args, kwargs, found)):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        return found

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size, kind = storage._cdata, storage.nbytes(), tensor.device.type
        if key in self._known:
            return

        def release() -> None:
            self._known.remove(key)
            self.bytes[kind] -= size

        self._known.add(key)
        weakref.finalize(storage, release)
        self.bytes[kind] += size
        self.peak[kind] = max(self.peak[kind], self.bytes[kind])


def _fused_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor, *, scale: float
) -> Any:
    # pytorch aten/src/ATen/native/transformers/attention.cpp pads, that is copies, other masks.
    assert all(stride % 8 == 0 for stride in attn_mask.stride()[:-1]), f"unaligned {attn_mask.stride()}"
    mask = attn_mask.expand(*q.shape[:3], k.shape[2])
    return aten._scaled_dot_product_efficient_attention(q, k, v, mask, False, scale=scale)[0]


@lru_cache(maxsize=64)
def _plan(grid: HW, window: HW, shift: HW, device: torch.device) -> WindowPlan:
    """`window_plan` needs real numbers; only its tensors are on the device."""
    with _disable_current_modes():
        real = window_plan(grid, window, shift, torch.device("cpu"))
        sizes = len(real.gather), len(real.scatter)
    gather, scatter = (torch.empty(size, dtype=torch.int64, device=device) for size in sizes)
    regions = torch.empty(sizes[0], dtype=torch.int8, device=device)
    return replace(real, gather=gather, scatter=scatter, regions=regions)


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch, *, read: float = 0.0) -> Iterator[FakeGpu]:
    """Everything made inside is fake. Args: read: the value of whatever the host reads."""
    caches = (_plan, folded_block._offsets_on, folded_block._mask_on)
    monkeypatch.setattr(folded_block, "window_plan", _plan)
    for cache in caches:
        cache.cache_clear()
    try:
        with FakeTensorMode(), FakeGpu(read) as gpu:
            yield gpu
    finally:
        for cache in caches:
            cache.cache_clear()
