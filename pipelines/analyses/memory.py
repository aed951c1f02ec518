"""Memory that an analysis may fill with features."""

from __future__ import annotations

from pipelines.machine.free_memory import available_bytes


def memory_bytes(asked_gb: float | None) -> int:
    """As asked, else half of what is free now."""
    return int(asked_gb * 1e9) if asked_gb is not None else available_bytes() // 2
