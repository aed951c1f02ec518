"""The error of heads, without torch."""

from __future__ import annotations


class HeadError(ValueError):
    """A head cannot be built, or cannot take what it was given."""
